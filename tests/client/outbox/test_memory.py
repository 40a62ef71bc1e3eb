"""What an outbox may take of a job's memory, from the files of both versions of cgroups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlogs.outbox import memory
from tlogs.outbox.memory import has_room
from tlogs.outbox.outbox import Outbox

MIB = 1 << 20
GIB = 1 << 30
CGROUP = Path("/sys/fs/cgroup/memory")


def cgroup(path: Path, *, old: bool, limit: int | None, used: int, cached: int = 0) -> None:
    path.mkdir(parents=True, exist_ok=True)
    limit_file, usage_file = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
    )
    none = "9223372036854771712" if old else "max"
    (path / limit_file).write_text(f"{none if limit is None else limit}\n")
    (path / usage_file).write_text(f"{used}\n")
    prefix = "total_" if old else ""
    (path / "memory.stat").write_text(f"anon 1\n{prefix}active_file {cached}\n{prefix}inactive_file 0\n")


@pytest.fixture(params=[True, False], ids=["version 1", "version 2"])
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    (tmp_path / "own").write_text("4:memory:/job/step\n0::/\n" if request.param else "0::/job/step\n")
    monkeypatch.setattr(memory, "_OWN", tmp_path / "own")
    return bool(request.param)


def root(tmp_path: Path, old: bool) -> Path:
    return tmp_path / "memory" if old else tmp_path


def test_without_a_limit_there_is_room(tmp_path: Path, old: bool) -> None:
    assert has_room(4 * MIB, GIB)
    cgroup(root(tmp_path, old) / "job" / "step", old=old, limit=None, used=GIB)
    assert has_room(4 * MIB, GIB)


def test_a_limit_of_any_cgroup_above_holds(tmp_path: Path, old: bool) -> None:
    cgroup(root(tmp_path, old) / "job" / "step", old=old, limit=64 * GIB, used=GIB)
    assert has_room(4 * MIB, 4 * MIB)
    cgroup(root(tmp_path, old) / "job", old=old, limit=8 * GIB, used=8 * GIB - 500 * MIB)
    assert not has_room(4 * MIB, 4 * MIB)  # 256 MiB and a part in 32 must be left
    cgroup(root(tmp_path, old) / "job", old=old, limit=8 * GIB, used=8 * GIB - 520 * MIB)
    assert has_room(4 * MIB, 4 * MIB)
    assert not has_room(9 * MIB, 9 * MIB)


def test_what_is_cached_of_files_does_not_count(tmp_path: Path, old: bool) -> None:
    cgroup(root(tmp_path, old) / "job", old=old, limit=8 * GIB, used=8 * GIB, cached=GIB)
    assert has_room(4 * MIB, 4 * MIB)


def test_all_outboxes_of_a_directory_take_a_part_in_64_together(tmp_path: Path, old: bool) -> None:
    cgroup(root(tmp_path, old) / "job", old=old, limit=8 * GIB, used=GIB)
    assert has_room(4 * MIB, 128 * MIB)
    assert not has_room(4 * MIB, 129 * MIB)


def test_in_a_container_whose_cgroup_is_the_root_that_one_holds(tmp_path: Path, old: bool) -> None:
    cgroup(root(tmp_path, old), old=old, limit=GIB, used=GIB - 100 * MIB)
    assert not has_room(4 * MIB, 4 * MIB)


def test_an_outbox_in_memory_grows_only_while_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def room(size: int, together: int) -> bool:
        asked.append((size, together))
        return len(asked) < 3

    monkeypatch.setattr(memory, "is_memory", lambda path: True)
    monkeypatch.setattr(memory, "has_room", room)
    outbox = Outbox(tmp_path / "a.outbox", stream=bytes(16), meta={}, capacity=8 * MIB)
    while outbox.append(40, "a", "x" * 10_000, None, None, "", 0, "", "", None):
        pass
    assert outbox._file.pieces == 3  # the first was not asked for
    assert [size for size, _ in asked[:3]] == [2 * MIB] * 3
    assert asked[0][1] >= 4 * MIB
    outbox.close(delete=True)


def test_a_helper_without_room_has_a_small_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "is_memory", lambda path: True)
    monkeypatch.setattr(memory, "has_room", lambda size, together: False)
    outbox = Outbox(tmp_path / "a.outbox", stream=bytes(16), meta={}, capacity=4 * MIB, helper=True)
    assert outbox._file.piece == 256 * 1024
    assert outbox._file.grow() is None
    outbox.close(delete=True)


def test_memory_is_given_back_when_all_is_acknowledged(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "a.outbox", stream=bytes(16), meta={}, capacity=16 * MIB)
    for _ in range(1000):
        assert outbox.append(20, "a", "x" * 10_000, None, None, "", 0, "", "", None)
    assert os.stat(outbox.path).st_blocks * 512 > 8 * MIB
    outbox._words[6] = outbox.head
    outbox.trim()
    assert os.stat(outbox.path).st_blocks * 512 < 2.2 * MIB
    for _ in range(1000):
        assert outbox.append(20, "a", "x" * 10_000, None, None, "", 0, "", "", None)
    outbox.close(delete=True)


FULL_SPEED = """
import os, sys
from tlogs.outbox.outbox import Outbox
with open(sys.argv[2] + "/cgroup.procs", "w") as procs: procs.write(str(os.getpid()))
outbox = Outbox(sys.argv[1] + "/a.outbox", stream=bytes(16), meta={}, capacity=1 << 30)
ballast = bytearray(int(sys.argv[3]))
for _ in range(60_000): outbox.append(20, "a", "x" * 10_000, None, None, "", 0, "", "", None)
print(outbox.dropped[20], outbox.head)
"""


@pytest.mark.multiprocess
def test_a_job_near_its_limit_drops_records_and_nobody_is_killed(tmp_path: Path) -> None:
    """In a real memory cgroup, where this test may make one: with the collector away and at full speed."""
    own = CGROUP / f"tlogs-test-{os.getpid()}"
    try:
        own.mkdir()
    except OSError as error:
        pytest.skip(f"needs a memory cgroup of version 1 that it may write to: {error}")
    shm = Path("/dev/shm") / own.name
    try:
        limit = 480 * MIB
        (own / "memory.limit_in_bytes").write_text(str(limit))
        shm.mkdir(mode=0o700)
        done = subprocess.run(
            [sys.executable, "-c", FULL_SPEED, str(shm), str(own), str(150 * MIB)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        dropped, head = map(int, done.stdout.split())
        assert dropped + head >= 60_000
        assert dropped > 50_000
    finally:
        for path in (*shm.glob("*"),):
            path.unlink()
        shm.rmdir()
        own.rmdir()
