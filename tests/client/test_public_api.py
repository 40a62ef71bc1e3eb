"""What others rely on: the names in `tlogs`, and what the README says of the commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import tlogs
from tlogs.cli import COMMANDS, cli
from tlogs_collector.cli import command as collector
from tlogs_shared.errors import TlogsError

README = Path(__file__).parents[2] / "README.md"

NAMES = """
    AccessDenied CollectorUnavailable ConfigError DirectiveError Job MessageError ProtocolError Record Result Session
    StoreError TlogsError broadcast connect flush getArtifactLogger init read register_artifact register_log runs
    set_logs shutdown
"""


def test_the_public_names_are_these() -> None:
    assert sorted(tlogs.__all__) == sorted(NAMES.split()) == dir(tlogs)
    for name in tlogs.__all__:
        assert getattr(tlogs, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'shutdwon'"):
        getattr(tlogs, "shutdwon")  # noqa: B009 - what mypy would refuse


def test_errors_are_what_their_callers_catch() -> None:
    for name, also in {
        "DirectiveError": ValueError,
        "ConfigError": ValueError,
        "CollectorUnavailable": ConnectionError,
        "AccessDenied": tlogs.CollectorUnavailable,
        "MessageError": tlogs.ProtocolError,
        "StoreError": OSError,
    }.items():
        assert issubclass(getattr(tlogs, name), (TlogsError,))
        assert issubclass(getattr(tlogs, name), also)


def test_a_worker_loads_neither_torch_nor_the_commands_nor_the_reader() -> None:
    script = (
        "import sys, tlogs; tlogs.init; "
        "print([name for name in ('torch', 'click', 'tlogs.reading.reader', 'tlogs.cli') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def options_of(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def test_every_command_and_option_that_the_readme_shows_exists() -> None:
    """A README that shows what is not there costs a newcomer the first ten minutes."""
    text = README.read_text()
    context = click.Context(cli)
    shown = set(re.findall(r"(?:\$ |`)tlogs ([a-z][a-z-]+)", text))
    assert {"tail", "cat", "set-logs", "ranks"} <= shown
    assert shown <= set(COMMANDS)
    known = {"--help"} | options_of(collector)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        known |= options_of(command)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--nproc-per-node"} <= known


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help is not None
    assert f"tlogs {name}" in command.help
