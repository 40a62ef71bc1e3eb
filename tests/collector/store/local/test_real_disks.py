"""The store on disks that really are full, bounded or read-only."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlogs.reading.local_run import LocalRun
from tlogs.reading.runs import summarize
from tlogs_collector.store.local.local_store import LocalStore
from tlogs_shared.errors import StoreError
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.batch import Header, Kind, seal

A = b"a" * 16
RUN = "run"


def mount(directory: Path, options: str) -> None:
    """Mount a tmpfs, or skip the test where this user may not."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting a file system needs root on Linux")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], capture_output=True)
    if done.returncode:
        pytest.skip(f"mounting is refused here: {done.stderr.decode().strip()}")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount(directory, "size=1m")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def begin(store: LocalStore) -> int:
    stored = store.open_run(RUN, {"name": RUN})
    if A not in stored.streams:
        store.put_stream(RUN, A, StreamInfo(Origin("node1", 7)))
    return stored.streams[A].watermark


def put(store: LocalStore, first: int, level: int = 20) -> int:
    header, payload = seal(Header(stream=A, first=first, count=1, level=level), os.urandom(10_000))
    store.append(RUN, header, payload)
    return header.end


def fill(store: LocalStore, first: int) -> int:
    """Append until the store refuses."""
    while True:
        try:
            first = put(store, first)
        except StoreError as error:
            if error.errno not in (errno.ENOSPC, errno.EFBIG):
                raise
            return first


def numbers(path: Path) -> list[int]:
    with LocalRun(path) as archive:
        assert archive.verify().is_sound, archive.verify().notes
        return [header.first for header, _ in archive.frames() if header.kind is Kind.BATCH]


@pytest.mark.system
def test_a_full_file_system_is_waited_out(small: Path) -> None:
    """What had been taken is there; when somebody makes room it goes on, with nothing lost or twice."""
    ballast = small / "ballast"
    ballast.write_bytes(b"x" * 500_000)
    store = LocalStore(small, segment_bytes=100_000)
    end = fill(store, begin(store))
    assert not store.room()
    for _ in range(5):
        assert fill(store, end) == end
    store.sync()
    assert numbers(small / RUN) == list(range(end))
    ballast.unlink()
    more = fill(store, end)
    assert more > end + 20
    store.close()
    assert numbers(small / RUN) == list(range(more))


@pytest.mark.system
def test_a_run_is_continued_on_a_full_file_system(small: Path) -> None:
    store = LocalStore(small, segment_bytes=100_000)
    end = fill(store, begin(store))
    store.close()
    again = LocalStore(small, segment_bytes=100_000, max_bytes=200_000)
    assert begin(again) == end
    assert fill(again, end) == end
    again.close()


@pytest.mark.system
def test_the_part_that_stays_free_is_kept_on_a_small_file_system(small: Path) -> None:
    store = LocalStore(small, segment_bytes=50_000, keep_free=0.3)
    end = begin(store)
    for _ in range(300):
        end = put(store, end, level=10)
        store.sync()
        while store.retain():
            pass
    left = os.statvfs(small)
    assert left.f_bavail / left.f_blocks > 0.25
    stored = store.open_run(RUN, {})
    assert stored.streams[A].records + stored.removed == end
    assert stored.removed > 200
    store.close()


@pytest.mark.multiprocess
def test_a_bound_on_the_size_of_files_is_told_and_leaves_whole_frames(tmp_path: Path) -> None:
    script = f"""
import importlib.util, resource, sys
from pathlib import Path
from tlogs_collector.store.local.local_store import LocalStore
spec = importlib.util.spec_from_file_location("real_disks", {__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
resource.setrlimit(resource.RLIMIT_FSIZE, (105_000, resource.RLIM_INFINITY))
store = LocalStore(sys.argv[1])
end = module.fill(store, module.begin(store))
assert module.fill(store, end) == end
store.sync()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
end = module.put(store, end)
store.close()
print(end)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path / RUN) == list(range(int(done.stdout)))


def test_a_directory_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    directory = tmp_path / "sealed"
    directory.mkdir()
    if os.geteuid() == 0:
        mount(directory, "size=1m,ro")
    else:
        directory.chmod(0o500)
    try:
        for path in (directory, directory / "below"):
            with pytest.raises(StoreError) as caught:
                LocalStore(path)
            assert caught.value.errno in (errno.EROFS, errno.EACCES)
            assert str(path) in str(caught.value)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.system
def test_a_run_on_a_read_only_file_system_is_read(small: Path) -> None:
    store = LocalStore(small, segment_bytes=100_000)
    end = begin(store)
    for _ in range(20):
        end = put(store, end)
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    assert numbers(small / RUN) == list(range(20))
    with LocalRun(small / RUN) as archive:
        assert not archive.is_live()
        assert summarize(archive).records == 20


@pytest.mark.system
def test_a_file_system_that_was_read_only_for_a_while_is_taken_up_again(small: Path) -> None:
    """As ext4 does after an I/O error."""
    store = LocalStore(small, segment_bytes=30_000)
    end = begin(store)
    for _ in range(2):
        end = put(store, end)
    store.sync()
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(StoreError, match="Read-only"):
        LocalStore(small)
    subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
    again = LocalStore(small)
    assert begin(again) == end
    again.close()


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"Not a directory|File exists"):
        LocalStore(tmp_path / "file" / "runs")
    with pytest.raises(StoreError, match="File exists"):
        LocalStore(tmp_path / "file")
