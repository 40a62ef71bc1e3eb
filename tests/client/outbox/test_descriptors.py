"""Descriptors of ours: high, never below 3, and not confused with what the program opens under their numbers."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tlogs.outbox.descriptors import CEILING, Descriptor, standard_streams_kept


@pytest.fixture
def opened() -> Iterator[list[int]]:
    """Descriptors that are closed after the test."""
    found: list[int] = []
    yield found
    for fd in found:
        os.close(fd)


def low(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def in_child(script: str) -> str:
    """What *script* prints on standard error, which stays open."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    return done.stderr


def test_a_descriptor_is_the_highest_free_below_the_ceiling(tmp_path: Path, opened: list[int]) -> None:
    fd = low(tmp_path / "a")
    first = Descriptor(fd)
    opened.append(first.number)
    second = Descriptor(low(tmp_path / "b"))
    opened.append(second.number)
    assert fd < second.number < first.number < CEILING
    assert (os.fstat(first.number).st_dev, os.fstat(first.number).st_ino) == first.file
    assert not os.get_inheritable(first.number)
    with pytest.raises(OSError):
        os.fstat(fd)


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("limit", "taken", "expected"),
    [
        (resource.RLIM_INFINITY, [], 1023),
        (4096, [], 1023),
        (1024, [1023, 1022], 1021),
        (64, [], 63),
        (64, range(4, 64), 3),  # nothing above it is free
    ],
)
def test_the_number_stays_below_the_limit(limit: int, taken: Sequence[int], expected: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and (limit == resource.RLIM_INFINITY or limit > hard):
        limit = hard
    script = f"""
        import os, resource, sys
        from tlogs.outbox.descriptors import Descriptor
        resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {hard}))
        os.closerange(3, 256)
        for fd in {list(taken)}:
            os.dup2(2, fd)
        print(Descriptor(os.open(os.devnull, os.O_RDWR)).number, file=sys.stderr)
    """
    assert int(in_child(script)) == expected


@pytest.mark.multiprocess
def test_nothing_comes_below_3_where_standard_streams_are_closed() -> None:
    script = """
        import os, sys
        from tlogs.outbox.descriptors import Descriptor, standard_streams_kept
        os.close(0), os.close(1)
        with standard_streams_kept():
            fd = os.open(os.devnull, os.O_RDWR)
        made = Descriptor(os.open(os.devnull, os.O_RDWR))
        print(fd, made.number > fd, *sorted(map(int, os.listdir("/dev/fd")))[:2], file=sys.stderr)
    """
    fd, is_higher, first, second = in_child(script).split()
    assert (int(fd) > 2, is_higher) == (True, "True")
    # Number 0 is that of the directory that is being listed.
    assert (first, second) == ("0", "2")


@pytest.mark.multiprocess
def test_where_no_number_is_free_a_low_one_is_given_back() -> None:
    script = """
        import os, resource, sys
        from tlogs.outbox.descriptors import Descriptor
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
        for fd in range(3, 16):
            os.dup2(2, fd)
        os.close(0)
        try:
            Descriptor(os.open(os.devnull, os.O_RDWR))
        except OSError as error:
            print(error, file=sys.stderr)
        assert os.open(os.devnull, os.O_RDWR) == 0
    """
    assert in_child(script) == "[Errno 24] no descriptor from 3 to 15 is free\n"


def test_a_number_that_the_program_has_taken_is_not_ours(tmp_path: Path, opened: list[int]) -> None:
    ours = Descriptor(low(tmp_path / "a"))
    assert ours.is_ours
    os.close(ours.number)
    assert not ours.is_ours
    ours.close()
    theirs = low(tmp_path / "b")
    os.dup2(theirs, ours.number)
    os.close(theirs)
    opened.append(ours.number)
    assert not ours.is_ours
    ours.close()
    os.fstat(ours.number)


def test_a_descriptor_is_closed_once(tmp_path: Path) -> None:
    ours = Descriptor(low(tmp_path / "a"))
    ours.close()
    ours.close()
    with pytest.raises(OSError):
        os.fstat(ours.number)


def test_a_number_can_lead_to_another_file(tmp_path: Path) -> None:
    ours = Descriptor(low(tmp_path / "a"))
    before = ours.file
    assert ours.replace(low(tmp_path / "b"))
    assert ours.is_ours
    assert ours.file != before
    os.close(ours.number)
    fd = low(tmp_path / "c")
    assert not ours.replace(fd)
    os.close(fd)


def test_open_standard_streams_are_left_alone() -> None:
    before = [os.fstat(fd) for fd in range(3)]
    with standard_streams_kept():
        assert [os.fstat(fd) for fd in range(3)] == before
