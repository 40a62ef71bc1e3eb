"""What cannot be used is said in one line that names it, with status 2; nothing has begun then."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.jobs.conftest import Lab

pytestmark = pytest.mark.multiprocess


def one_line(said: str, *words: str) -> None:
    """It is one line, and has these words."""
    assert said.count("\n") == 1, said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--listen", "here"], ["--listen", "here", "tcp://HOST:PORT"]),
        (["--listen", "tcp://127.0.0.1:99999"], ["--listen", "99999"]),
        (["--grace", "soon"], ["--grace", "soon"]),
        (["--max-bytes", "much"], ["--max-bytes", "much"]),
        (["--retain", "-1d"], ["--retain"]),
        (["--keep-free", "200"], ["--keep-free", "200", "percentage"]),
        (["--run", "a/b"], ["--run", "a/b"]),
        (["--dir", "/proc/nowhere"], ["--dir", "/proc/nowhere"]),
        (["--dir", "/dev/null"], ["--dir", "/dev/null"]),
        (["--secret-file", "/nonexistent"], ["/nonexistent", "tlogs keygen"]),
        (["--durability", "maybe"], ["--durability", "maybe"]),
        (["--colour"], ["--colour"]),
        (["surplus"], ["surplus"]),
    ],
)
def test_a_collector_that_cannot_begin_says_why(lab: Lab, options: list[str], words: list[str]) -> None:
    process = lab.start([sys.executable, "-m", "tlogs_collector", *options])
    one_line(process.ends(2), "tlogs-collector", *words)
    assert process.out == ""


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(lab: Lab) -> None:
    """Not asked for, the next free one is taken instead."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = lab.start([sys.executable, "-m", "tlogs_collector", "--listen", f"tcp://127.0.0.1:{port}"])
        one_line(process.ends(2), str(port), "taken", "--listen")


def test_without_a_port_the_next_free_one_is_taken(lab: Lab) -> None:
    """Two collectors that were started alike both run, each at an endpoint of its own."""
    first = lab.collector_anywhere("--quiet", name="one")
    second = lab.collector_anywhere("--quiet", name="two")
    assert first.port != second.port


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"RANK": "three"}, ["RANK", "three"]),
        ({"RANK": "-1"}, ["RANK", "-1"]),
        ({"RANK": "4", "WORLD_SIZE": "4"}, ["4"]),
        ({"TLOGS_COLLECTOR": "here"}, ["TLOGS_COLLECTOR", "here"]),
        ({"TLOGS_COLLECTOR": "127.0.0.1:1", "TLOGS_OUTBOX_BYTES": "much"}, ["TLOGS_OUTBOX_BYTES", "much"]),
        ({"TLOGS_COLLECTOR": "127.0.0.1:1", "TLOGS_SECRET": "short"}, ["TLOGS_SECRET", "16"]),
        ({"TLOGS_COLLECTOR": "127.0.0.1:1", "TLOGS_RUN": "a b"}, ["TLOGS_RUN", "a b"]),
        ({"TLOGS_STDERR": "loud"}, ["TLOGS_STDERR", "loud"]),
        ({"TORCH_LOGS": "dinamo"}, ["dinamo", "dynamo"]),
    ],
)
def test_init_raises_a_config_error_that_names_the_variable(
    lab: Lab, environ: dict[str, str], words: list[str]
) -> None:
    """A set-up that cannot be meant is an exception of init(), before anything else has happened."""
    said = lab.start([sys.executable, "-c", "import tlogs; tlogs.init()"], environ).ends(1)
    last = said.splitlines()[-1]
    assert last.startswith(("tlogs_shared.errors.", "ValueError")), said
    for word in words:
        assert word in last
    assert not list(lab.root.glob("**/*.outbox"))


def test_a_second_init_that_asks_for_something_else_is_an_error(lab: Lab) -> None:
    """The same again, or nothing in particular, is harmless."""
    script = """
assert tlogs.init(rank=3) is tlogs.init(rank=3) is tlogs.init()
try:
    tlogs.init(rank=4)
except tlogs.ConfigError as error:
    print(error)
"""
    worker = lab.worker("tlogs.shutdown()\n" + script, None)
    worker.ends()
    assert worker.out == "init(rank=4) after init(rank=3); call shutdown() between\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ranks"], ["no collector", "tlogs-collector"]),
        (["set-logs", "dynamo=DEBUG"], ["no collector", "tlogs-collector"]),
        (["set-logs", "dynamo=LOUD"], ["LOUD"]),
        (["set-logs", "dynamo=DEBUG", "--ranks", "one"], ["one"]),
        (["set-logs", "dynamo=DEBUG", "--for", "soon"], ["--for", "soon"]),
        (["tail", "--collector", "here"], ["here", "tcp://HOST:PORT"]),
        (["cat", "--dir", "/nonexistent"], ["/nonexistent"]),
        (["levels", "--collector", "/nonexistent/collector.json"], ["/nonexistent"]),
        (["frobnicate"], ["frobnicate"]),
    ],
)
def test_a_command_that_cannot_begin_says_why(lab: Lab, arguments: list[str], words: list[str]) -> None:
    one_line(lab.tlogs(*arguments, status=2), *words)


def test_a_command_with_another_secret_is_told_so(lab: Lab) -> None:
    """A wrong secret is not mistaken for a collector that is not there."""
    collector = lab.collector("--quiet")
    # With another list of live collectors it is nobody's here: on its own machine it needs no secret.
    elsewhere = {"TLOGS_COLLECTOR": collector.endpoint, "XDG_STATE_HOME": str(lab.root / "another")}
    environ = {"TLOGS_SECRET": "another secret than that", **elsewhere}
    one_line(lab.tlogs("ranks", status=2, **environ), "a different secret", "compare the secret files")
