"""Where outboxes are kept: a place that cannot be used is passed over, and everybody looks through all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tlogs.outbox import memory, places
from tlogs.outbox.outbox import Outbox
from tlogs_shared import host
from tlogs_shared.errors import StoreError

NAME = f"tlogs-{os.getuid()}"
MANY = 1 << 40


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Shared memory and the temporary directory of this test."""
    found = tmp_path / "shm", tmp_path / "tmp"
    for path in found:
        path.mkdir()
    for module in (host, places):
        monkeypatch.setattr(module, "SHARED_MEMORY", found[0])
    monkeypatch.setattr(memory, "_limits", lambda: iter([]))
    return found


def environ(roots: tuple[Path, Path], **more: object) -> dict[str, str]:
    return {"TMPDIR": str(roots[1]), **{key: str(value) for key, value in more.items()}}


def test_the_order_is_the_setting_then_memory_then_temporary_files(roots: tuple[Path, Path], tmp_path: Path) -> None:
    asked = tmp_path / "own" / "place"
    found = list(places.places(environ(roots, TLOGS_OUTBOX_DIR=asked)))
    assert found == [asked, roots[0] / NAME, roots[1] / NAME]
    assert [path.stat().st_mode & 0o777 for path in found] == [0o700] * 3


def test_a_place_of_ours_that_others_may_read_is_made_private(roots: tuple[Path, Path]) -> None:
    (roots[0] / NAME).mkdir()
    (roots[0] / NAME).chmod(0o755)
    assert next(places.places(environ(roots))).stat().st_mode & 0o777 == 0o700


def as_link(path: Path) -> None:
    path.parent.joinpath("elsewhere").mkdir()
    path.symlink_to("elsewhere")


def as_writable(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize("take", [as_link, as_writable, Path.touch])
def test_a_name_that_somebody_has_taken_is_left_for_another(
    roots: tuple[Path, Path], take: Callable[[Path], None]
) -> None:
    take(roots[0] / NAME)
    place = next(places.places(environ(roots)))
    assert place.parent == roots[0]
    assert place.name.startswith(f"{NAME}-")
    assert len(place.name) == len(NAME) + 9
    assert next(places.places(environ(roots))) == place  # the next worker's too
    assert place in host.outbox_places({})
    assert roots[0] / NAME not in host.outbox_places({})


def test_a_setting_that_cannot_be_used_is_said_and_passed_over(roots: tuple[Path, Path], tmp_path: Path) -> None:
    complaints: list[str] = []
    (tmp_path / "file").touch()
    as_writable(tmp_path / "open")
    for asked in (tmp_path / "file", tmp_path / "open", Path("/proc/no")):
        assert next(places.places(environ(roots, TLOGS_OUTBOX_DIR=asked), complaints.append)) == roots[0] / NAME
    assert [text.split(": ", 1)[1] for text in complaints][1] == "others may write to it: chmod go-w"
    assert len(complaints) == 3


def test_a_full_place_is_passed_over_for_the_next(roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = Outbox.__init__

    def init(self: Outbox, path: Path, **more: object) -> None:
        if roots[0] in path.parents:
            raise StoreError(28, "No space left on device", str(path))
        real(self, path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Outbox, "__init__", init)
    outbox = places.make(environ(roots), "a.outbox", stream=bytes(16), meta={}, capacity=1 << 20)
    assert outbox.path == str(roots[1] / NAME / "a.outbox")
    outbox.close(delete=True)


def test_memory_without_a_gibibyte_free_is_no_place(roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "FREE_BYTES", MANY)
    assert list(places.places(environ(roots))) == [roots[1] / NAME]


def test_a_file_system_that_two_hosts_see_differently_is_no_place(
    roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    complaints: list[str] = []
    kinds = {tmp_path / "home": "nfs4"}
    for module in (host, places):
        monkeypatch.setattr(module, "file_system", lambda path: kinds.get(path, "ext4"))
    found = places.places(environ(roots, TLOGS_OUTBOX_DIR=tmp_path / "home"), complaints.append)
    assert next(found) == roots[0] / NAME
    assert "nfs4" in complaints[0]


def test_everybody_looks_through_all_places_whatever_the_environment(roots: tuple[Path, Path], tmp_path: Path) -> None:
    asked = tmp_path / "own"
    made = set(places.places(environ(roots, TLOGS_OUTBOX_DIR=asked)))
    assert made <= set(host.outbox_places(environ(roots, TLOGS_OUTBOX_DIR=asked)))
    assert roots[0] / NAME in host.outbox_places({})


def test_the_name_of_an_outbox_says_whose_it_is() -> None:
    name = host.outbox_name("node-7", 77, b"0123456789abcdef")
    assert name.startswith("node-7-77.")
    assert host.outbox_owner(name) == 77
    assert host.outbox_owner("node-7-77.1-30313233.outbox") == 0
    assert host.outbox_owner("node-7-77-30313233.outbox") == 77  # of 0.1
