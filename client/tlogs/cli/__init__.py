"""The `tlogs` command.

A command lives in a module of its own, which is imported when the command is used: `tlogs --help` is quick, and a
command that needs no socket loads none.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

import click
from click.shell_completion import CompletionItem

from tlogs.cli.completion import VARIABLE, complete
from tlogs.cli.suggestion import no_command, usage
from tlogs_shared.errors import TlogsError

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "tail": ("tlogs.cli.read:tail", "print the last records of a run, then what comes"),
    "cat": ("tlogs.cli.read:cat", "print all records of a run, live or stored"),
    "ranks": ("tlogs.cli.ranks:ranks", "show each rank: host, state, records stored, dropped"),
    "set-logs": ("tlogs.cli.set_logs:set_logs", "change log levels on the running job"),
    "reset": ("tlogs.cli.levels:reset", "undo changes of log levels"),
    "levels": ("tlogs.cli.levels:levels", "show log levels and their changes, by rank"),
    "explain": ("tlogs.cli.explain:explain", "explain what a TORCH_LOGS setting does"),
    "help-logs": ("tlogs.cli.explain:help_logs", "list the names that TORCH_LOGS and set-logs accept"),
    "runs": ("tlogs.cli.runs:runs", "list the runs, live ones first"),
    "split": ("tlogs.cli.split:split", "write one text file per rank, and a merged one"),
    "demo": ("tlogs.cli.demo:command", "run, steer and merge a job of 4 ranks, in half a minute"),
    "recover": ("tlogs.cli.recover:command", "deliver the records that dead workers left behind"),
    "drain": ("tlogs.cli.drain:command", "wait until all that was logged on this host is stored"),
    "agent": ("tlogs.cli.agent:command", "run an agent in the foreground, for a service or a sidecar"),
    "check": ("tlogs.cli.check:command", "show what a worker on this host would use, and why"),
    "keygen": ("tlogs.cli.keygen:command", "create the secret of a collector on the network"),
    "completion": ("tlogs.cli.completion:command", "print the completion script of bash, zsh or fish"),
}
"""Each command with where it lives and what it does, in the order in which a person meets them."""


class LazyGroup(click.Group):
    """The group of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in their order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion for an unknown command."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchOption:
            raise
        except click.UsageError as error:
            raise click.UsageError(no_command(args[0], COMMANDS), ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without importing them all."""
        found = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # Option names are accepted with underscores too, as torchrun accepts both.
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "max_content_width": 80,
    },
)
@click.version_option(package_name="tlogs", prog_name="tlogs")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Read and steer the logs of multi-rank PyTorch jobs.

    \b
    Examples:
      tlogs tail                       all ranks, merged, as it comes
      tlogs cat -l WARNING             the warnings of the newest run
      tlogs set-logs c10d=DEBUG -r 0   more of c10d from rank 0, now

    \b
    Completion of commands, options, runs and names, in ~/.bashrc:
      eval "$(tlogs completion bash)"
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0 done, 1 done in part or a check failed, 2 it could not be begun."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a character that the terminal cannot show is not an error
    try:
        if instruction := os.environ.get(VARIABLE):
            status = complete(cli, instruction)
        else:
            status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except click.ClickException as error:
        name = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else _called()
        text = usage(error) if isinstance(error, click.UsageError) else error.format_message()
        print(f"{name}: {text} (see {name} --help)", file=sys.stderr)
        return 2
    except TlogsError as error:
        print(f"tlogs: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        _drop_output()  # whoever read us has seen enough
        return 0
    except OSError as error:
        print(f"tlogs: {error}", file=sys.stderr)
        _drop_output()
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 130
    return status


def _called() -> str:
    """The command that was called, as far as it can be seen in the arguments."""
    return f"tlogs {sys.argv[1]}" if sys.argv[1:] and sys.argv[1] in COMMANDS else "tlogs"


def _run(arguments: list[str]) -> int:
    try:
        # Not `cli.main`, which has its own way with a closed pipe and with Ctrl-C.
        with cli.make_context("tlogs", arguments) as ctx:
            status = cli.invoke(ctx)
    except click.exceptions.Exit as done:
        return done.exit_code
    return status if isinstance(status, int) else 0


def _drop_output() -> None:
    """Let go of standard output: Python would complain once more when it flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
