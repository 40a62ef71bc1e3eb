"""`tlogs demo`: a real job, steered and merged, on this machine, in half a minute."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

import click

from tlogs.cli.options import directory_option
from tlogs.cli.table import show_table
from tlogs.operator.job import connect
from tlogs.reading.library import directory_of_runs
from tlogs.reading.stored import read
from tlogs_shared.errors import ConfigError
from tlogs_shared.level_names import NAMES
from tlogs_shared.protocol.notice import FILE_NAME

__all__ = ["command"]

RANKS: Final = 4
SECONDS: Final = 20
BEGIN_S: Final = 90.0
"""Importing torch four times over takes a while on a small machine."""

STEER_AFTER: Final = 6
"""Records of each rank before levels are changed, so that there is a before and an after to see."""

TORCH: Final = find_spec("torch") is not None


@click.command("demo")
@directory_option
@click.option("--seconds", type=click.FloatRange(min=10), default=SECONDS, help="How long the job trains.  [20]")
def command(directory: Path | None, seconds: float) -> int:
    """Run a job of 4 ranks and a collector, change levels while it runs, kill a worker, and show what was stored.

    With torch installed, the job trains a DistributedDataParallel model under torchrun; without, it is plain processes.

    \b
    Examples:
      tlogs demo
      tlogs demo --dir /tmp/demo --seconds 40
    """
    directory = (directory or directory_of_runs()).absolute()
    run = f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    with ExitStack() as stack:
        output = stack.enter_context(tempfile.TemporaryFile("w+"))
        collector = stack.enter_context(_collector(directory, run))
        notice = _notice_of(directory, collector)
        environ = {**os.environ, "TLOGS_COLLECTOR": str(notice), "OMP_NUM_THREADS": "1"}
        for name in ("TORCH_LOGS", "TLOGS_RUN", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
            environ.pop(name, None)
        tail = ["tail", "--collector", str(notice), "--run", "*", "-n", "all", "--fold"]
        reader = subprocess.Popen([sys.executable, "-m", "tlogs", *tail])
        stack.callback(_end, reader)
        jobs = _start_job(environ, output, seconds)
        for job in jobs:
            stack.callback(_end, job)
        specs = ["recompiles=on", "c10d=DEBUG"] if TORCH else ["train.loader=DEBUG"]
        _wait_for_records(notice, jobs, output)
        _say(f"$ tlogs set-logs {' '.join(specs)} --for 1m")
        _tlogs("set-logs", *specs, "--for", "1m", "--collector", str(notice))
        _say("$ tlogs levels")
        _tlogs("levels", "--collector", str(notice))
        _say("$ python killed.py  # one more worker, which kills itself with -9 right behind a logging call")
        killed = {**environ, "RANK": str(RANKS), "WORLD_SIZE": str(RANKS + 1)}
        subprocess.run([sys.executable, str(_example("killed.py"))], env=killed, check=False, stderr=output)
        codes = [job.wait() for job in jobs]
        collector.send_signal(signal.SIGTERM)
        reader.wait()
        collector.wait()
        if any(codes):
            output.seek(0)
            raise ConfigError(f"the job failed with status {codes}: {output.read()[-2000:]}")
    _summarise(directory, run)
    return 0


@contextmanager
def _collector(directory: Path, run: str) -> Iterator[subprocess.Popen[bytes]]:
    """A collector of our own, on a free port; it prints its first and last line itself."""
    if TORCH:
        from importlib.metadata import version

        what = f"{RANKS} ranks of DistributedDataParallel under torchrun, torch {version('torch')}"
    else:
        what = f"{RANKS} plain worker processes (no torch here)"
    _say(f"{what}; a collector beside them")
    options = ["--quiet", "--listen", "tcp://127.0.0.1:0", "--dir", str(directory), "--run", run, "--grace", "10s"]
    process = subprocess.Popen([sys.executable, "-m", "tlogs_collector", *options])
    try:
        yield process
    finally:
        _end(process)


def _notice_of(directory: Path, collector: subprocess.Popen[bytes]) -> Path:
    """The path of the collector's `collector.json`."""
    choices = (directory / f"collector-{collector.pid}.json", directory / FILE_NAME)

    def written() -> Path | None:
        for path in choices:
            if path.is_file() and f'"pid": {collector.pid}' in path.read_text():
                return path
        return None

    return _wait(written, collector, "the collector did not start")


def _start_job(environ: Mapping[str, str], output: IO[str], seconds: float) -> list[subprocess.Popen[bytes]]:
    """The job; what it prints itself is kept for the case that it fails."""
    if TORCH:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
        commands = [[*launcher, str(_example("train.py")), "--seconds", str(seconds)]]
        environs = [dict(environ)]
    else:
        commands = [[str(_example("plain.py")), "--seconds", str(seconds)]] * RANKS
        environs = [
            {**environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)} for rank in range(RANKS)
        ]
    return [
        subprocess.Popen([sys.executable, *command], env=one, stdout=output, stderr=output)
        for command, one in zip(commands, environs, strict=True)
    ]


def _wait_for_records(notice: Path, jobs: list[subprocess.Popen[bytes]], output: IO[str]) -> None:
    """Wait until each rank has logged something."""
    with connect(str(notice)) as job:

        def all_speak() -> bool | None:
            rows = job.census()["rows"]
            return True if sum(row["stored"] >= STEER_AFTER for row in rows) >= RANKS else None

        try:
            _wait(all_speak, jobs[0], "the job did not start")
        except ConfigError as error:
            output.seek(0)
            raise ConfigError(f"{error}: {output.read()[-2000:]}") from None


def _wait(look: Callable[[], object], process: subprocess.Popen[bytes], problem: str) -> Path:
    deadline = time.monotonic() + BEGIN_S
    while (found := look()) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise ConfigError(problem)
        time.sleep(0.05)
    return found  # type: ignore[return-value]


def _summarise(directory: Path, run: str) -> None:
    """Show what the store holds, read back from its segments."""
    ranks: Counter[str] = Counter()
    levels: dict[str, Counter[str]] = {}
    recovered = 0
    last_words = ""
    for record in read(run, dir=directory):
        label = f"rank{record.rank}"
        ranks[label] += 1
        levels.setdefault(label, Counter())[record.level] += 1
        recovered += record.recovered
        if record.rank == RANKS:
            last_words = record.message
    _say("what the store holds, read back from its segments:")
    names = list(NAMES.values())
    rows = [
        [label, str(count), *(str(levels[label][name]) for name in names)] for label, count in sorted(ranks.items())
    ]
    show_table(["RANK", "RECORDS", *names], rows, right=" ".join(("RECORDS", *names)))
    click.echo(
        f"last words of rank {RANKS}, killed with -9 ({recovered} records recovered from its outbox): {last_words}"
    )
    where = "" if directory == directory_of_runs().absolute() else f" --dir {directory}"
    _say("three commands to try next:")
    component = "--component c10d" if TORCH else "--logger train.loader"
    for line in (f"cat {run} {component} --fold", f"tail {run} --no-follow -n 20 --level WARNING", "runs"):
        click.echo(f"  {_own_name()} {line}{where}")


def _own_name() -> str:
    """The command as this person can type it."""
    if shutil.which("tlogs"):
        return "tlogs"
    beside = Path(sys.executable).with_name("tlogs")
    return os.path.relpath(beside) if beside.exists() else f"{sys.executable} -m tlogs"


def _example(name: str) -> Path:
    """An example job: in the package where it was installed from a wheel, else in the source tree."""
    here = Path(__file__).resolve()
    for path in (here.parents[1] / "examples" / name, here.parents[3] / "deploy" / "examples" / name):
        if path.is_file():
            return path
    raise ConfigError(f"the example {name} is not installed")


def _say(text: str) -> None:
    """A line of the demo itself, apart from the stream."""
    click.secho(f"── {text}", bold=sys.stdout.isatty())
    sys.stdout.flush()


def _tlogs(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "tlogs", *arguments], check=False)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
