"""The benchmarks run, so that they do not rot. How fast they are is not asserted: that is for a quiet machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.limits import scaled

HERE = Path(__file__).parent

pytestmark = pytest.mark.multiprocess


def run(name: str, *options: str, state: Path) -> str:
    """What a script prints; it must leave nothing in the temporary directory that it is given."""
    state.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, HERE / f"{name}.py", *options],
        capture_output=True,
        text=True,
        timeout=scaled(150),
        env={"PATH": "/usr/bin:/bin", "HOME": str(state), "TMPDIR": str(state)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("ingest", ["tlogs-collector, until synced", "Python's socket receiver"]),
        ("broadcast", ["    10"]),
        ("host", ["     2", "     4"]),
        ("idle", ["nobody follows", "an operator follows"]),
        ("size", ["text", "plain msgpack", "stored, full batches"]),
    ],
)
def test_a_quick_run_prints_its_table_and_leaves_nothing_behind(name: str, rows: list[str], tmp_path: Path) -> None:
    """Each row that a reader looks for is there, with figures behind it."""
    lines = run(name, "--quick", state=tmp_path / "state").splitlines()
    assert lines[0].startswith(f"{name}: ")
    for row in rows:
        (found,) = [line for line in lines if line.startswith(row)]
        assert any(character.isdigit() for character in found.removeprefix(row))
    assert list((tmp_path / "state").iterdir()) == []


def test_calls_and_reading_are_measured_on_a_small_scale(tmp_path: Path) -> None:
    """Their scripts take the size of the measurement as options."""
    assert "NullHandler" in run("call", "--rounds", "1", state=tmp_path / "call")
    assert "compressed" in run("agent", "--records", "2000", state=tmp_path / "agent")
    assert "cat, text" in run("read", "--records", "2000", state=tmp_path / "read")


def test_the_machine_is_named(tmp_path: Path) -> None:
    """Without it the figures say nothing."""
    assert f"Python {sys.version_info.major}." in run("machine", state=tmp_path / "state")
