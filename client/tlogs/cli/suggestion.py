"""Suggestions for commands and options that do not exist."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

import click

__all__ = ["ELSEWHERE", "no_command", "usage"]

ELSEWHERE: Final = {
    "autocomplete": "completion",
    "collector": "tlogs-collector",
    "completions": "completion",
    "daemon": "tlogs-collector",
    "diagnose": "check",
    "doctor": "check",
    "dump": "cat",
    "filter": "cat -g REGEX",
    "find": "cat -g REGEX",
    "follow": "tail",
    "genkey": "keygen",
    "get-levels": "levels",
    "get-logs": "levels",
    "grep": "cat -g REGEX",
    "head": "cat -n 10",
    "help": "tlogs --help",
    "history": "runs",
    "info": "ranks",
    "jobs": "runs",
    "json": "cat --json",
    "less": "cat",
    "level": "levels or set-logs",
    "list": "runs",
    "log": "cat or tail",
    "log-level": "set-logs",
    "logs": "cat or tail",
    "ls": "runs",
    "merge": "cat",
    "names": "help-logs",
    "nodes": "ranks",
    "ping": "check",
    "ps": "ranks",
    "reset-logs": "reset",
    "rg": "cat -g REGEX",
    "search": "cat -g REGEX",
    "secret": "keygen",
    "serve": "tlogs-collector",
    "server": "tlogs-collector",
    "set": "set-logs",
    "set-level": "set-logs",
    "set-levels": "set-logs",
    "show": "cat",
    "start": "tlogs-collector",
    "status": "ranks",
    "stream": "tail",
    "torch-logs": "help-logs",
    "undo": "reset",
    "unset": "reset",
    "verify": "runs --verify",
    "version": "tlogs --version",
    "view": "cat",
    "watch": "tail",
    "who": "ranks",
    "workers": "ranks",
}
"""Words of other tools (docker, kubectl, journalctl, ps, git …), each with its counterpart here."""


def no_command(name: str, commands: Collection[str]) -> str:
    """The answer to `tlogs NAME`.

    >>> no_command("tial", ["tail", "cat"]), no_command("logs", ["tail", "cat"])
    ("no command 'tial'; did you mean tail?", "no command 'logs'; did you mean cat or tail?")
    """
    known = ELSEWHERE.get(name)
    found = [known] if known else get_close_matches(name, commands, n=1) or _beginning(name, commands)
    return f"no command {name!r}" + (f"; did you mean {' or '.join(found)}?" if found else "")


def _beginning(name: str, commands: Collection[str]) -> list[str]:
    return [command for command in commands if command.startswith(name)][:2]


def usage(error: click.UsageError) -> str:
    """A mistake on the command line, in one line, with a suggestion."""
    if isinstance(error, click.NoSuchOption):
        return _no_option(error)
    text = " ".join(error.format_message().split()).rstrip(".").replace(". Choose from:", "; choose from")
    return text[:1].lower() + text[1:]


def _no_option(error: click.NoSuchOption) -> str:
    text = f"no option {error.option_name!r}"
    if error.ctx is None:
        return text
    if isinstance(error.ctx.command, click.Group):
        return f"{text}; it may belong behind a command"
    known = [
        option for parameter in error.ctx.command.params for option in (*parameter.opts, *parameter.secondary_opts)
    ]
    long = [option for option in known if option.startswith("--")]
    found = get_close_matches(error.option_name, long, n=1) or _beginning(error.option_name, long)
    return text + (f"; did you mean {' or '.join(found)}?" if found else "")
