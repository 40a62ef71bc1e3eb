"""What others rely on: the names in `tlogs`, and what the README says of the commands."""

from __future__ import annotations

import inspect
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
    AccessDenied CollectorUnavailable ConfigError DirectiveError Job MessageError ProtocolError RankSet Record
    RequestRefused Result RunSummary Session StoreError TlogsError __version__ broadcast connect flush
    getArtifactLogger init read register_artifact register_log runs set_logs shutdown
"""


def test_the_public_names_are_these() -> None:
    assert sorted(tlogs.__all__) == sorted(NAMES.split()) == dir(tlogs)
    for name in tlogs.__all__:
        assert getattr(tlogs, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'shutdwon'"):
        getattr(tlogs, "shutdwon")  # noqa: B009 - what mypy would refuse


def test_no_module_hides_a_public_name() -> None:
    """`import tlogs.broadcast`, while there was such a module, put it in the place of the function."""
    script = (
        "import pkgutil, tlogs\n"
        "before = {name: getattr(tlogs, name) for name in tlogs.__all__}\n"
        "found = [module.name for module in pkgutil.walk_packages(tlogs.__path__, 'tlogs.')]\n"
        "for name in found:\n"
        "    if not name.endswith('__main__'): __import__(name)\n"
        "print(len(found) > 40, [name for name in tlogs.__all__ if getattr(tlogs, name) is not before[name]])\n"
        "print({name.split('.')[1] for name in found} & {*tlogs.__all__} or 'none')"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["True []", "none"]


def test_a_renamed_name_keeps_working_and_warns_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlogs, "_RENAMED", {"start": "init"})
    with pytest.warns(DeprecationWarning, match=r"tlogs\.start is deprecated: use tlogs\.init") as found:
        assert getattr(tlogs, "start") is tlogs.init  # noqa: B009 - what mypy would refuse
    assert found[0].filename == __file__


MIRRORED = {"getArtifactLogger", "register_artifact", "register_log"}
"""Spelled and called as torch does."""


def test_all_arguments_but_the_first_are_given_by_name() -> None:
    """So arguments can be added, and reordered, without breaking a caller."""
    functions = {name: getattr(tlogs, name) for name in tlogs.__all__ if name not in MIRRORED}
    functions |= {f"Job.{name}": found for name, found in vars(tlogs.Job).items() if not name.startswith("_")}
    functions |= {f"Session.{name}": found for name, found in vars(tlogs.Session).items() if not name.startswith("_")}
    checked = 0
    for name, function in functions.items():
        if not inspect.isfunction(function):
            continue
        positional = [
            parameter
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name != "self"
        ]
        assert len(positional) <= 1, name
        checked += 1
    assert checked > 12


def test_errors_are_what_their_callers_catch() -> None:
    for name, also in {
        "DirectiveError": ValueError,
        "ConfigError": ValueError,
        "CollectorUnavailable": ConnectionError,
        "AccessDenied": tlogs.CollectorUnavailable,
        "RequestRefused": tlogs.ConfigError,
        "MessageError": tlogs.ProtocolError,
        "StoreError": OSError,
    }.items():
        assert issubclass(getattr(tlogs, name), (TlogsError,))
        assert issubclass(getattr(tlogs, name), also)


def test_a_worker_loads_neither_torch_nor_the_commands_nor_the_reader() -> None:
    script = (
        "import sys, tlogs; tlogs.init; "
        "print([name for name in ('torch', 'click', 'tlogs.reading', 'tlogs.cli') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_session_shows_whose_it_is() -> None:
    script = "import tlogs; print(tlogs.init(rank=3, world_size=4))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={})
    assert ran.stdout == "<tlogs.Session of rank3, collector None, run None>\n"


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
    launchers = {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--nodes", "--ntasks-per-node"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - launchers <= known


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help is not None
    assert f"tlogs {name}" in command.help
