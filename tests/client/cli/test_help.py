"""What the commands have in common: help that fits a terminal, spellings that fingers expect, answers to slips."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from tlogs.cli import COMMANDS, cli, main
from tlogs.cli.options import wants_colour
from tlogs.cli.suggestion import ELSEWHERE
from tlogs_collector.cli import command as collector


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command, with the words that call it."""
    yield "tlogs", cli
    yield "tlogs-collector", collector
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        yield f"tlogs {name}", command


ALL = dict(commands())


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("name", ALL)
def test_help_fits_80_columns_and_has_an_example(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    command = ALL[name]
    context = command.make_context(name, ["--help"], resilient_parsing=True, **cli.context_settings)
    lines = command.get_help(context).splitlines()
    assert [line for line in lines if len(line) > 80] == []
    [at] = [number for number, line in enumerate(lines) if re.fullmatch(r"  Examples?:", line)]
    assert lines[at + 1].startswith("    tlogs") or lines[at + 1].startswith('    eval "$(tlogs')
    assert "" not in [option.help for option in command.params if isinstance(option, click.Option)]


def test_help_is_printed_as_it_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for arguments in (["--help"], ["-h"], [], ["set-logs", "-h"]):
        assert main(arguments) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("name", ALL)
def test_options_may_be_written_with_underscores(name: str) -> None:
    """As torchrun accepts both."""
    for parameter in ALL[name].params:
        for option in (*parameter.opts, *parameter.secondary_opts) if isinstance(parameter, click.Option) else ():
            context = click.Context(ALL[name], **cli.context_settings)
            found = ALL[name].make_parser(context)._long_opt
            assert not option.startswith("--") or option in found
            assert not re.search("[_A-Z]", option.lstrip("-")) or len(option) == 2


def test_an_underscore_is_a_hyphen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help_logs", "--js_on"]) == 2
    assert "no option '--js-on'; did you mean --json?" in capsys.readouterr().err
    assert main(["recover", "--secret_file", "/nonexistent", "--collector", "127.0.0.1:1"]) == 2
    assert "/nonexistent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tial"], "tlogs: no command 'tial'; did you mean tail? (see tlogs --help)"),
        (["logs"], "tlogs: no command 'logs'; did you mean cat or tail? (see tlogs --help)"),
        (["status"], "tlogs: no command 'status'; did you mean ranks? (see tlogs --help)"),
        (["ps"], "tlogs: no command 'ps'; did you mean ranks? (see tlogs --help)"),
        (["grep", "nan"], "tlogs: no command 'grep'; did you mean cat -g REGEX? (see tlogs --help)"),
        (["set_log"], "tlogs: no command 'set_log'; did you mean set-logs? (see tlogs --help)"),
        (["comp"], "tlogs: no command 'comp'; did you mean completion? (see tlogs --help)"),
        (["qqq"], "tlogs: no command 'qqq' (see tlogs --help)"),
        (["cat", "--levle", "INFO"], "tlogs cat: no option '--levle'; did you mean --level? (see tlogs cat --help)"),
        (["--run", "x"], "tlogs: no option '--run'; it may belong behind a command (see tlogs --help)"),
        (["set-logs"], "tlogs set-logs: missing argument 'SPEC...' (see tlogs set-logs --help)"),
    ],
)  # fmt: skip
def test_a_slip_is_answered_with_what_was_meant(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"{said}\n"


def test_words_of_other_tools_lead_to_commands_and_options_that_exist() -> None:
    assert not ELSEWHERE.keys() & COMMANDS.keys()
    for words in ELSEWHERE.values():
        for call in words.removeprefix("tlogs ").split(" or "):
            name, _, option = call.partition(" ")
            command = ALL.get("tlogs" if name.startswith("--") else name) or ALL[f"tlogs {name}"]
            known = {"--version", "--help", *(opt for parameter in command.params for opt in parameter.opts)}
            assert {word for word in (name, *option.split()) if word.startswith("-")} <= known


def test_colours_are_for_terminals_unless_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (wants_colour("always"), wants_colour("never"), wants_colour("auto")) == (True, False, False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colour("auto")
    monkeypatch.setenv("NO_COLOR", "1")
    assert (wants_colour("auto"), wants_colour("always")) == (False, True)
    for color, styled in (("always", True), ("never", False), ("auto", False)):
        assert main(["explain", "+c10d", "--color", color]) == 0
        assert ("\x1b[1mLOGGER" in capsys.readouterr().out) is styled


def tlogs(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which `$tlogs` is the command; `pipefail` tells its status."""
    shell = ["bash", "-c", f"set -o pipefail; {script}"]
    environ = {"tlogs": f"{sys.executable} -m tlogs", "PATH": "/usr/bin:/bin"}
    return subprocess.run(shell, env=environ, capture_output=True, text=True, check=False, timeout=60)


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    for command in ("help-logs", "--help", "explain +all"):
        ran = tlogs(f"$tlogs {command} | true")
        assert (ran.returncode, ran.stderr) == (0, "")


def test_output_that_cannot_be_written_is_one_line() -> None:
    ran = tlogs("$tlogs help-logs > /dev/full")
    assert (ran.returncode, ran.stderr) == (1, "tlogs: [Errno 28] No space left on device\n")


def test_a_terminal_without_the_characters_gets_them_escaped() -> None:
    ran = tlogs("PYTHONIOENCODING=latin-1 PYTHONUTF8=0 $tlogs check --run 日")
    assert "Traceback" not in ran.stderr
    assert "\\u65e5" in ran.stdout


def test_a_command_that_asks_a_collector_or_reads_a_run_can_be_told_which() -> None:
    for name in COMMANDS.keys() - {"explain", "help-logs", "demo", "keygen", "completion", "agent", "drain"}:
        options = {option for parameter in ALL[f"tlogs {name}"].params for option in parameter.opts}
        assert {"--collector", "--secret-file", "--run", "--color"} <= options


def test_json_is_offered_wherever_a_machine_may_read(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS.keys() - {"demo", "keygen", "completion", "agent", "drain"}:
        assert "--json" in {option for parameter in ALL[f"tlogs {name}"].params for option in parameter.opts}
    main(["check", "--json", "--run", "mine"])
    found = json.loads(capsys.readouterr().out)
    assert found["rank"] == {"ok": True, "text": found["rank"]["text"]}
    assert found["rank"]["text"].endswith("run mine")
    assert found["collector"]["ok"] is False
