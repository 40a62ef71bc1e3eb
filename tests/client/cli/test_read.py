"""The reading commands as a person at a terminal meets them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.limits import scaled

from tlogs.cli import COMMANDS, LazyGroup, cli, main
from tlogs.cli.read import _Pause
from tlogs.reading.local_run import LocalRun
from tlogs_shared.end import End
from tlogs_shared.origin import Origin, StreamInfo

NewRun = Callable[..., Any]
START = "1114 22:13:20"
COMMAND = [sys.executable, "-m", "tlogs"]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's own, no collector of hers, times in UTC."""
    for name in [name for name in os.environ if name.startswith("TLOGS_")] + ["NO_COLOR"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TLOGS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def run(new_run: NewRun) -> Any:
    """Two ranks that say the same, and a warning of rank 1 that goes over two lines."""
    written = new_run()
    streams = [written.stream(rank) for rank in (0, 1)]
    for rank, stream in enumerate(streams):
        written.batch(stream, (rank, "hello"), (10 + rank, "step 1"))
    written.batch(streams[1], (20, "loss\nis nan"), levelno=30)
    return written


@pytest.fixture
def tlogs(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process: exit status, standard output, standard error."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        out, error = capfdbinary.readouterr()
        return status, out.decode(), error.decode()

    return call


Tlogs = Callable[..., tuple[int, str, str]]


def messages(out: str) -> list[str]:
    return [line.split("] ", 1)[1] for line in out.splitlines()]


def test_cat_prints_all_records_in_order_each_line_with_its_rank(run: Any, tlogs: Tlogs) -> None:
    assert tlogs("cat", "--utc") == (
        0,
        f"[rank0]:I{START}.000000 1000 train.py:7] hello\n"
        f"[rank1]:I{START}.001000 1001 train.py:7] hello\n"
        f"[rank0]:I{START}.010000 1000 train.py:7] step 1\n"
        f"[rank1]:I{START}.011000 1001 train.py:7] step 1\n"
        f"[rank1]:W{START}.020000 1001 train.py:7] loss\n"
        f"[rank1]:W{START}.020000 1001 train.py:7] is nan\n",
        "",
    )


@pytest.mark.parametrize(
    "arguments", [["-2", "--no-follow"], ["run1", "-n", "2", "-f"], ["latest", "-2", "--follow"], ["run", "-2"]]
)
def test_tail_takes_what_the_systems_tail_takes(run: Any, tlogs: Tlogs, arguments: list[str]) -> None:
    """The run is over, so following it ends at once."""
    status, out, _ = tlogs("tail", *arguments)
    assert (status, messages(out)) == (0, ["step 1", "loss", "is nan"])


@pytest.mark.parametrize("arguments", [["--json"], ["-o", "json"], ["--output", "json"]])
def test_json_is_one_record_a_line(run: Any, tlogs: Tlogs, arguments: list[str]) -> None:
    status, out, _ = tlogs("cat", *arguments)
    records = [json.loads(line) for line in out.splitlines()]
    assert (status, len(records)) == (0, 5)
    assert records[4]["message"] == "loss\nis nan"
    assert records[4]["level"] == "WARNING"
    assert records[0]["run"] == "run1"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["-r", "1"], ["hello", "step 1", "loss", "is nan"]),
        (["--ranks", "^1"], ["hello", "step 1"]),
        (["-l", "warning"], ["loss", "is nan"]),
        (["-g", "nan"], ["loss", "is nan"]),
        (["-x", "l"], ["step 1", "step 1"]),
        (["--logger", "train", "-n", "1"], ["hello"]),
        (["-1"], ["hello"]),
        (["-2", "-r0"], ["hello", "step 1"]),
        (["-g", "-1", "-3"], []),
        (["--logger", "other"], []),
        (["--hosts", "n2*"], []),
        (["--stream", "stdout"], []),
        (["-S", "2023-11-14T22:13:20.015Z"], ["loss", "is nan"]),
        (["--until", "2023-11-14T22:13:20.001Z"], ["hello"]),
        (["--since", "5m"], []),
        (["--attempt", "last", "-n", "2"], ["hello", "hello"]),
        (["--attempt", "1"], []),
        (["--fold"], ["hello", "step 1", "loss", "is nan"]),
        (["--fold", "--fold-window", "0ms"], ["hello", "hello", "step 1", "step 1", "loss", "is nan"]),
    ],
)
def test_filters_choose_what_is_printed(run: Any, tlogs: Tlogs, arguments: list[str], found: list[str]) -> None:
    status, out, error = tlogs("cat", *arguments)
    assert (status, messages(out), error) == (0, found, "")


def test_folded_lines_show_their_rank_set(run: Any, tlogs: Tlogs) -> None:
    assert tlogs("cat", "--fold", "-n", "2")[1].startswith("[rank0-1]:I")


def test_options_are_accepted_with_underscores(run: Any, tlogs: Tlogs) -> None:
    assert tlogs("cat", "--fold", "--fold_window", "2s", "--no_fold")[0] == 0


def test_tail_prints_the_last_records_and_ends_where_the_run_has_ended(run: Any, tlogs: Tlogs) -> None:
    for arguments in (["--no-follow"], ["--follow", "latest"], ["run1"]):
        assert messages(tlogs("tail", "-n", "2", *arguments)[1]) == ["step 1", "loss", "is nan"]
    assert tlogs("tail", "-n", "0", "--no-follow")[1] == ""
    assert len(messages(tlogs("tail", "-n", "all", "run1")[1])) == 6


def test_tail_ends_with_one_line_that_says_how_the_run_ended(new_run: NewRun, tlogs: Tlogs) -> None:
    run = new_run()
    ended_ns = 1_700_000_000_000_000_000 + 754 * 10**9
    end = End("failed", exception="ValueError: loss is nan", ended_ns=ended_ns)
    run.batch(run.stream(0, end=end), (0, "hello"))
    status, out, error = tlogs("tail", "run1")
    assert (status, messages(out)) == (0, ["hello"])
    line = "tlogs: run run1: FAILED after 12 min: rank 0 ValueError: loss is nan, "
    assert (error.startswith(line), error.count("\n")) == (True, 1)


def test_between_two_attempts_tail_says_so(new_run: NewRun, tlogs: Tlogs) -> None:
    run = new_run()
    run.batch(run.stream(0, 1, attempt=0), (0, "a"), (5, "b"))
    run.batch(run.stream(0, 2, attempt=1), (6, "c"))
    run.batch(run.stream(1, 3, attempt=1), (7, "d"))
    _, out, error = tlogs("tail", "run1")
    assert messages(out) == ["a", "b", "c", "d"]
    assert error.splitlines()[0] == "tlogs: attempt 1 begins"
    assert len(error.splitlines()) == 2


@pytest.mark.parametrize(
    ("gave_up", "ends", "status", "text"),
    [
        (
            True,
            [None, None],
            3,
            "its collector does not answer any more; given up; 2 ranks were still running, and they",
        ),
        (False, [None, End("finished")], 3, "its collector has ended; 1 rank was still running, and it keeps its"),
        (False, [End("finished")], 0, "FINISHED"),
    ],
)
def test_a_tail_whose_collector_went_away_says_what_became_of_the_ranks(
    run: Any,
    tlogs: Tlogs,
    monkeypatch: pytest.MonkeyPatch,
    gave_up: bool,
    ends: Sequence[End | None],
    status: int,
    text: str,
) -> None:
    class Shown(list[Any]):
        is_abandoned = True

        def __init__(self) -> None:
            self.gave_up = gave_up
            self.streams = [StreamInfo(Origin("n1", 7, rank=rank), end=end) for rank, end in enumerate(ends)]

    monkeypatch.setattr("tlogs.cli.read.follow_runs", lambda *_, **__: Shown())
    found, _, error = tlogs("tail", "run1")
    assert (found, error.startswith(f"tlogs: run run1: {text}")) == (status, True)


def test_who_waits_for_a_run_is_told_so_and_after_a_while_what_to_check(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    pause = _Pause(lambda: now[0], sleep)
    for _ in range(100):
        pause("in here", LocalRun(run.path))
    first, second = capsys.readouterr().err.splitlines()
    assert first == "tlogs: waiting for the next run in here; the last one: tlogs tail run1"
    assert "tlogs.init()" in second
    assert "TLOGS_COLLECTOR" in second


def test_exit_code_makes_a_check_of_a_reader(run: Any, tlogs: Tlogs) -> None:
    assert tlogs("cat", "--level", "ERROR", "--exit-code")[0] == 0
    assert tlogs("cat", "--level", "WARNING", "--exit-code")[0] == 1
    assert tlogs("tail", "--no-follow", "--grep", "nan", "--exit-code")[0] == 1


def test_a_run_is_named_in_front_or_as_an_option(run: Any, new_run: NewRun, tlogs: Tlogs) -> None:
    new_run("run2", created_ns=0)
    for arguments in (
        ["run1"],
        ["--run", "run1"],
        ["latest"],
        ["--run", "latest~0"],
        [run.path],
        ["run1", "--run=run1"],
    ):
        assert len(tlogs("cat", *arguments)[1].splitlines()) == 6
    status, _, error = tlogs("cat", "run1", "--run", "run2")
    assert (status, error) == (2, "tlogs: two runs are named, 'run1' and --run 'run2': give one\n")


def test_dir_says_where_runs_are(run: Any, tlogs: Tlogs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TLOGS_DIR")
    assert tlogs("cat", "--dir", run.path.parent)[0] == 0
    monkeypatch.chdir(run.path.parent.parent)
    run.path.parent.rename(tmp_path / "tlogs-runs")
    assert len(tlogs("cat")[1].splitlines()) == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cat", "nope"], "no run 'nope' in .*; there is: run1"),
        (["cat", "latest~3"], "no run latest~3 in .*; there is: run1"),
        (["cat", "--level", "loud"], "level 'loud': expected DEBUG"),
        (["cat", "--ranks", "a"], "rank set 'a': expected"),
        (["cat", "--grep", "("], r"pattern '\(': .*expected a regular expression"),
        (["cat", "--since", "yesterday"], "time 'yesterday': expected"),
        (["cat", "--attempt", "x"], "attempt 'x': expected"),
        (["cat", "--fold-window", "5"], "--fold-window '5': expected a duration"),
        (["cat", "--json", "-o", "text"], "--json and -o text contradict"),
        (["cat", "-n", "x"], "'-n'"),
        (["tail", "-n", "-1"], "-n '-1': expected"),
        (["cat", "--bogus"], "no option '--bogus'"),
        (["cats"], r"no command 'cats'; did you mean cat\?"),
        (["cat", "one", "two"], "unexpected extra argument"),
        (["split"], "missing option '--out'"),
        (["cat", "--collector", "nowhere:"], "nowhere:"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_2(run: Any, tlogs: Tlogs, arguments: list[str], said: str) -> None:
    status, out, error = tlogs(*arguments)
    assert (status, out) == (2, "")
    assert re.search(said, error)
    assert error.startswith("tlogs")
    assert error.count("\n") == 1


def test_where_there_is_nothing_the_answer_says_what_was_looked_for(
    tlogs: Tlogs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TLOGS_DIR")
    monkeypatch.chdir(tmp_path)
    status, _, error = tlogs("cat")
    assert status == 2
    assert re.fullmatch(r"tlogs: no runs in tlogs-runs, and no collector: .*; --dir says where runs are\n", error)


def test_records_that_are_not_in_the_store_are_mentioned_beside_the_output(run: Any, tlogs: Tlogs) -> None:
    run.batch(run.stream(1), (30, "after"), skip=4)
    status, out, error = tlogs("cat")
    assert (status, len(out.splitlines())) == (0, 7)
    assert error == "tlogs: 4 records of rank1 are not in the store (lost, damaged or removed)\n"


def test_runs_are_listed_live_ones_first(run: Any, new_run: NewRun, tlogs: Tlogs) -> None:
    new_run("newer", created_ns=2_000_000_000_000_000_000)
    with run.live():
        status, out, _ = tlogs("runs")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].split() == [
        "RUN", "START", "DURATION", "OUTCOME", "RANKS", "RECORDS", "DROPPED", "LOST", "SIZE", "COMMAND",
    ]  # fmt: skip
    assert [(line.split()[0], line.split()[3]) for line in lines[1:]] == [("run1", "live"), ("newer", "unknown")]
    assert lines[1].split()[-6:-2] == ["2", "5", "0", "0"]
    assert [row["name"] for row in json.loads(tlogs("runs", "--run", "new", "--json")[1])] == ["newer"]
    assert tlogs("runs", "--run", "nope")[0] == 2
    assert tlogs("runs", "--color", "always")[1].startswith("\x1b[1mRUN")
    rows = json.loads(tlogs("runs", "--json")[1])
    assert [row["name"] for row in rows] == ["newer", "run1"]
    assert (rows[1]["records"], rows[1]["outcome"]) == (5, "unknown")
    assert list(rows[1]) == [
        "name", "start", "end", "outcome", "command", "ranks", "records", "dropped", "lost", "bytes",
    ]  # fmt: skip


def test_verify_counts_again_and_finds_damage(run: Any, tlogs: Tlogs) -> None:
    assert tlogs("runs", "--verify")[0] == 0
    segment = next(run.path.glob("segment-*"))
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    status, out, _ = tlogs("runs", "--verify")
    assert status == 1
    assert out.splitlines()[1].endswith(" no")
    assert "run1: segment-00000001.tlf: " in out
    assert json.loads(tlogs("runs", "--verify", "--json")[1])[0]["verified"] is False


def test_no_runs_is_no_error(tlogs: Tlogs, tmp_path: Path) -> None:
    assert tlogs("runs") == (0, "", f"tlogs: no runs in {tmp_path}/runs\n")
    assert tlogs("runs", "--json") == (0, "[]\n", "")


def test_split_writes_a_file_for_each_rank_and_a_merged_one(run: Any, tlogs: Tlogs, tmp_path: Path) -> None:
    run.batch(run.stream(None), (30, "launched"))
    run.batch(run.stream(1, 50, helper="DataLoader0"), (40, "loaded"))
    out = tmp_path / "logs"
    status, said, _ = tlogs("split", "--out", out, "--utc")
    assert (status, said) == (0, f"7 records of run1 in 4 files in {out}\n")
    assert sorted(path.name for path in out.iterdir()) == [
        "merged.log",
        "no_rank.log",
        "rank_0000.log",
        "rank_0001.log",
    ]
    assert (out / "merged.log").read_text() == tlogs("cat", "--utc")[1]
    assert messages((out / "rank_0001.log").read_text()) == ["hello", "step 1", "loss", "is nan", "loaded"]
    status, said, _ = tlogs("split", "--out", tmp_path / "more", "--json", "-r", "0")
    names = ["merged.log", "rank_0000.log"]
    assert json.loads(said) == {"run": "run1", "records": 2, "files": names, "directory": str(tmp_path / "more")}
    status, _, error = tlogs("split", "--out", out)
    assert (status, error) == (2, f"tlogs: --out {out}: merged.log exists already; give a new directory\n")


@pytest.mark.parametrize(
    ("color", "environ", "coloured"),
    [("auto", {}, False), ("always", {}, True), ("always", {"NO_COLOR": "1"}, True), ("never", {}, False)],
)
def test_output_into_a_pipe_is_coloured_only_where_that_was_asked_for(
    run: Any, tlogs: Tlogs, monkeypatch: pytest.MonkeyPatch, color: str, environ: dict[str, str], coloured: bool
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in tlogs("cat", "--color", color)[1]) is coloured


# The group.


def test_every_command_is_there_and_help_imports_none_of_them() -> None:
    group = cli
    assert isinstance(group, LazyGroup)
    context = group.make_context("tlogs", [], resilient_parsing=True)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        assert command.help, f"{name} has no help"
        assert "tlogs " in command.help, f"the help of {name} shows no example"
    script = (
        "import sys; from tlogs.cli import main; main(['--help']); "
        "print('tlogs.cli.read' in sys.modules, 'zmq' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=scaled(60)
    ).stdout
    assert out.splitlines()[-1] == "False False"
    assert [line.split()[0] for line in out.split("Commands:\n")[1].splitlines()[:-1]] == list(COMMANDS)


def test_the_bare_command_shows_its_help(tlogs: Tlogs) -> None:
    status, out, error = tlogs()
    assert (status, error) == (0, "")
    assert "Commands:" in out


# Processes: what a terminal, a pipe and a signal do.


@pytest.mark.multiprocess
def test_whoever_reads_only_the_beginning_gets_no_complaint(new_run: NewRun) -> None:
    run = new_run()
    stream = run.stream(0)
    for first in range(0, 40_000, 2000):
        run.batch(stream, *((first + i, "x" * 100) for i in range(2000)))
    with subprocess.Popen([*COMMAND, "cat"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"[rank0]")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(scaled(60)) == 0


@pytest.mark.multiprocess
def test_tail_follows_a_live_run_until_it_is_interrupted(run: Any) -> None:
    # Started in the background by a shell, the suite ignores SIGINT, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with (
        run.live(),
        subprocess.Popen([*COMMAND, "tail", "-n", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        signal.signal(signal.SIGINT, before)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().endswith(b"] loss\n")
        assert process.stdout.readline().endswith(b"] is nan\n")
        run.batch(run.stream(0), (30, "new"))
        assert process.stdout.readline().endswith(b"] new\n")
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
        assert process.wait(scaled(60)) == 130


@pytest.mark.multiprocess
def test_tail_ends_when_the_owner_of_the_run_does(run: Any) -> None:
    with run.live():
        process = subprocess.Popen([*COMMAND, "tail", "-n", "2"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b"] step 1\n")
        run.batch(run.stream(0), (30, "new"))
    with process:
        assert messages(process.stdout.read().decode()) == ["loss", "is nan", "new"]
    assert process.returncode == 0


def on_a_terminal(*arguments: str) -> Iterator[bytes]:
    """What the command writes to a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*COMMAND, *arguments])
    deadline = time.monotonic() + scaled(60)
    try:
        while time.monotonic() < deadline and (data := os.read(terminal, 65536)):
            yield data
    except OSError:
        pass  # the other side has been closed
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


@pytest.mark.multiprocess
def test_on_a_terminal_there_are_colours_and_what_was_logged_steers_nothing(run: Any) -> None:
    run.batch(run.stream(0), (30, "clear \x1b[2J\x07 \r back"))
    out = b"".join(on_a_terminal("tail", "-n", "1", "--no-follow"))
    assert b"\x1b[36m[rank0]:" in out
    assert b"clear \\x1b[2J\\x07 \\x0d back" in out
    plain = b"".join(on_a_terminal("tail", "-n", "1", "--no-follow", "--color", "never"))
    assert b"\x1b" not in plain
