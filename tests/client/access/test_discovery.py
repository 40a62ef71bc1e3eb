"""How a collector is found, and its secret: by argument, environment, or the list of live ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tlogs.access.discovery import find_address, find_live, live_notices
from tlogs_shared.errors import CollectorUnavailable, ConfigError
from tlogs_shared.host import boot_id, live_directory
from tlogs_shared.protocol.notice import FILE_NAME, Notice

SECRET = "the collector's own"
GIVEN = "a secret that was given"

NOTICE = Notice("tcp://127.0.0.1:5655", SECRET, os.getpid(), "n1", boot_id(), "", "0.1")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def announce(tmp_path: Path, environ: dict[str, str]) -> Callable[..., Path]:
    """Writes a collector's directory, and links it among the live ones, as a daemon does."""

    def write(name: str, notice: Notice = NOTICE, *, linked: bool = True) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        (directory / FILE_NAME).write_text(replace(notice, directory=str(directory)).to_json())
        if linked:
            live = live_directory(environ)
            live.mkdir(parents=True, exist_ok=True)
            (live / name).symlink_to(directory / FILE_NAME)
        return directory

    return write


def test_without_a_name_no_collector_is_meant(environ: dict[str, str]) -> None:
    """A training script forwards nothing unless it was told where to."""
    assert find_address(None, environ) is None
    assert find_address(None, {**environ, "TLOGS_COLLECTOR": ""}) is None


def test_an_argument_beats_the_environment(environ: dict[str, str]) -> None:
    environ["TLOGS_COLLECTOR"] = "node1:1"
    for given, endpoint, source in [
        ("node2:2", "tcp://node2:2", "collector"),
        (None, "tcp://node1:1", "TLOGS_COLLECTOR"),
    ]:
        found = find_address(given, environ)
        assert found is not None
        assert (str(found.endpoint), found.source, found.secret) == (endpoint, source, None)


@pytest.mark.parametrize("how", ["directory", "file", "endpoint", "host:port"])
def test_a_collector_of_ones_own_is_found_with_its_secret_and_store(
    how: str, environ: dict[str, str], announce: Callable[..., Path]
) -> None:
    directory = announce("runs")
    given = {
        "directory": str(directory),
        "file": str(directory / FILE_NAME),
        "endpoint": NOTICE.endpoint,
        "host:port": "127.0.0.1:5655",
    }[how]
    found = find_address(given, environ)
    assert found is not None
    assert (str(found.endpoint), found.secret, found.directory) == (NOTICE.endpoint, SECRET.encode(), directory)
    assert found.secret_source == "the collector's own file"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("nowhere", "expected tcp://HOST:PORT"),
        ("/no/such/place", "No such file or directory; is a collector running"),
        ("missing.json", "missing.json"),
    ],
)
def test_what_names_no_collector_says_so(given: str, text: str, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=text):
        find_address(given, environ)


@pytest.mark.parametrize("content", [b"{}", b"\xff\xfe"])
def test_a_file_that_no_collector_wrote_is_told(content: bytes, tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(ConfigError, match=FILE_NAME):
        find_address(str(tmp_path), environ)


@pytest.mark.parametrize(
    ("argument", "option", "file_variable", "variable", "source"),
    [
        (True, True, True, True, "argument"),
        (False, True, True, True, "--secret-file"),
        (False, False, True, True, "TLOGS_SECRET_FILE"),
        (False, False, False, True, "TLOGS_SECRET"),
        (False, False, False, False, "the collector's own file"),
    ],
)
def test_the_secret_is_looked_for_in_the_order_of_the_contract(
    argument: bool,
    option: bool,
    file_variable: bool,
    variable: bool,
    source: str,
    tmp_path: Path,
    environ: dict[str, str],
    announce: Callable[..., Path],
) -> None:
    announce("runs")
    file = tmp_path / "secret"
    file.write_text(GIVEN)
    file.chmod(0o600)
    if file_variable:
        environ["TLOGS_SECRET_FILE"] = str(file)
    if variable:
        environ["TLOGS_SECRET"] = GIVEN
    found = find_address(
        NOTICE.endpoint, environ, secret=GIVEN if argument else None, secret_file=str(file) if option else None
    )
    assert found is not None
    assert found.secret_source == source
    assert found.secret == (SECRET if source == "the collector's own file" else GIVEN).encode()


def test_the_only_live_collector_is_meant(environ: dict[str, str], announce: Callable[..., Path]) -> None:
    with pytest.raises(CollectorUnavailable, match="no collector: start one with"):
        find_live(environ)
    directory = announce("one")
    found = find_live(environ)
    assert (found.source, found.directory, found.pid) == ("live", directory, os.getpid())
    assert found.how == "found: the only collector running here"
    given = find_address("127.0.0.1:1", {})
    named = find_address(None, {"TLOGS_COLLECTOR": "127.0.0.1:1"})
    assert given is not None
    assert named is not None
    assert (given.how, named.how) == ("given as argument", "from TLOGS_COLLECTOR")
    announce("two", replace(NOTICE, endpoint="tcp://127.0.0.1:5656"))
    with pytest.raises(CollectorUnavailable, match=r"several .*5655 .*one.*5656 .*two.*choose one with --collector"):
        find_live(environ)


def test_entries_of_collectors_that_are_no_more_are_passed_over(
    environ: dict[str, str], announce: Callable[..., Path]
) -> None:
    announce("dead", replace(NOTICE, pid=2**22 + 5))
    announce("removed")
    (live_directory(environ) / "broken").write_text("{")
    (Path(environ["XDG_STATE_HOME"]).parent / "removed" / FILE_NAME).unlink()
    assert live_notices(environ) == []


def test_a_store_on_another_machine_is_not_read_as_if_it_were_here(
    environ: dict[str, str], announce: Callable[..., Path]
) -> None:
    directory = announce("shared", replace(NOTICE, boot_id="another machine"), linked=False)
    found = find_address(str(directory), environ)
    assert found is not None
    assert found.directory is None
