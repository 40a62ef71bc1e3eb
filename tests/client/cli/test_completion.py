"""What a shell offers when somebody presses Tab."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete, get_completion_class

from tlogs.cli import candidates, cli, main
from tlogs.operator.job import Job
from tlogs_shared.errors import CollectorUnavailable
from tlogs_shared.host import boot_id
from tlogs_shared.protocol.notice import FILE_NAME, Notice


def offered(*words: str) -> list[str]:
    """What click offers for the last of *words*."""
    *arguments, incomplete = words
    return [item.value for item in ShellComplete(cli, {}, "tlogs", "_X").get_completions(arguments, incomplete)]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run and no collector but those that a test makes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("TLOGS_DIR", "TLOGS_COLLECTOR"):
        monkeypatch.delenv(name, raising=False)


def announce(directory: Path, endpoint: str) -> None:
    """A live collector says that it works on *directory*."""
    notice = Notice(endpoint, "x" * 32, os.getpid(), "n1", boot_id(), str(directory), "0")
    (directory / FILE_NAME).write_text(notice.to_json())
    live = directory.parent / "state" / "tlogs" / "live"
    live.mkdir(parents=True)
    (live / "one.json").symlink_to(directory / FILE_NAME)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["ta"], ["tail"]),
        (["set-logs", "c10"], ["c10d"]),
        (["set-logs", "recomp"], ["recompiles", "recompiles_verbose"]),
        (["set-logs", "+c10d,-dynamo"], ["+c10d,-dynamo"]),
        (["set-logs", "-dynamo"], ["-dynamo"]),
        (["set-logs", "c10d=D"], ["c10d=DEBUG"]),
        (["set-logs", "guards=o"], ["guards=on", "guards=off"]),
        (["explain", "--", "-dynamo"], ["-dynamo"]),
        (["cat", "--component", "dynamo"], ["dynamo"]),
        (["cat", "--artifact", "graph_b"], ["graph_breaks"]),
        (["cat", "--logger", "torch.fx.experimental.symb"], ["torch.fx.experimental.symbolic_shapes"]),
        (["tail", "-l", "W"], ["WARNING"]),
        (["tail", "--stream", "std"], ["stdout", "stderr"]),
        (["cat", "--color", "al"], ["always"]),
        (["cat", "--no-f"], ["--no-fold"]),
        (["completion", "f"], ["fish"]),
    ],
)
def test_names_that_are_known_are_completed(words: list[str], found: list[str]) -> None:
    assert offered(*words) == found


def test_runs_are_those_of_the_directory_and_of_live_collectors(
    new_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert offered("cat", "") == ["latest"]
    runs = new_run("20260101-a").path.parent
    new_run("20260202-b")
    assert offered("cat", "--dir", str(runs), "2026") == ["20260202-b", "20260101-a"]
    assert offered("cat", "--run", "2") == []
    announce(runs, "tcp://127.0.0.1:1")
    assert offered("cat", "--run", "2") == ["20260202-b", "20260101-a"]
    assert offered("set-logs", "--run", "20260") == ["20260202-b", "20260101-a"]
    assert offered("ranks", "--collector", "/") == [str(runs)]
    monkeypatch.setenv("TLOGS_DIR", str(tmp_path / "elsewhere"))
    assert offered("cat", "--run", "2") == []


def test_ranks_and_revisions_are_those_of_the_running_job(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answering(Job):
        def __init__(self) -> None:
            pass

        def close(self) -> None:
            pass

        def census(self, *, every_attempt: bool = False) -> Any:
            return {"rows": [{"rank": rank} for rank in (0, 1, 2, 10)]}

        def levels(self) -> Any:
            return {"leases": [{"revision": 3}, {"revision": 14}]}

    asked: list[Any] = []

    def connect(collector: str | None, **options: Any) -> Job:
        asked.append((collector, options))
        return Answering()

    monkeypatch.setattr("tlogs.operator.job.connect", connect)
    assert offered("set-logs", "--collector", "n1:5655", "--run", "r", "-r", "") == [
        "all",
        "0-2,10",
        "0",
        "1",
        "2",
        "10",
    ]
    assert asked == [("n1:5655", {"run": "r", "secret_file": None, "timeout": candidates.PATIENCE_S})]
    assert offered("cat", "--ranks", "0,1") == ["0,1", "0,10"]
    assert offered("reset", "1") == ["14"]


def test_a_source_that_fails_offers_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert offered("cat", "-r", "") == []
    assert offered("set-logs", "--collector", "not an endpoint", "-r", "") == []
    monkeypatch.setenv("TLOGS_DIR", "/proc/1/root")
    assert offered("cat", "") in (["latest"], [])


def test_a_collector_that_does_not_answer_is_asked_for_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the connection, as a stopped process does, and says nothing."""
    waits: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        directory = tmp_path / "runs"
        directory.mkdir()
        announce(directory, f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        from tlogs.access import connection

        real = connection.Operator.__init__

        def init(self: Any, address: Any, *, timeout: float) -> None:
            waits.append(timeout)
            real(self, address, timeout=timeout)

        monkeypatch.setattr(connection.Operator, "__init__", init)
        assert offered("cat", "-r", "") == []
        with pytest.raises(CollectorUnavailable):
            connection.Operator(candidates_address(), timeout=0.01)
    assert waits[0] == candidates.PATIENCE_S <= 0.1


def candidates_address() -> Any:
    """The only live collector."""
    from tlogs.access.discovery import find_live

    return find_live(os.environ)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_calls_us_back(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capfd.readouterr().out
    assert f"_TLOGS_COMPLETE={shell}_complete" in script
    assert get_completion_class(shell) is not None


def test_a_shell_that_is_not_known_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["tlogs", "ta"], "tail"),
        (["tlogs", "set-logs", "c10d", "=", "D"], "DEBUG"),
        (["tlogs", "set-logs", "+c10d,gra", "=", "o"], "on off"),
        (["tlogs", "set-logs", "guards", "="], "on off"),
        (["tlogs", "cat", "--level", "=", "W"], "WARNING"),
        (["tlogs", "set-logs", "+c10d,-dynamo"], "+c10d,-dynamo"),
        (["tlogs", "cat", "--ru"], "--run"),
    ],
)
def test_bash_completes(words: list[str], found: str, tmp_path: Path) -> None:
    """With the script that the shell is given, and words as bash splits them: at equals signs."""
    command = tmp_path / "tlogs"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tlogs "$@"\n')
    command.chmod(0o755)
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""
        eval "$(tlogs completion bash)"
        COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMPREPLY=()
        _tlogs_completion tlogs 2>/dev/null
        echo "${{COMPREPLY[@]}}"
    """
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=True, timeout=60)
    assert (ran.stdout.strip(), ran.stderr) == (found, "")
