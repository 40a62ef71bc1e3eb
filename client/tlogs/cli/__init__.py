"""The `tlogs` command.

A command lives in a module of its own, which is imported when the command is used: `tlogs --help` is quick, and a
command that needs no socket loads none.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from tlogs_shared.errors import TlogsError

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "set-logs": ("tlogs.cli.set_logs:set_logs", "change levels on the running job"),
    "reset": ("tlogs.cli.levels:reset", "end changes of levels"),
    "levels": ("tlogs.cli.levels:levels", "which levels are in force on which ranks"),
    "ranks": ("tlogs.cli.ranks:ranks", "a row for each rank: where, alive, stored, dropped"),
    "explain": ("tlogs.cli.explain:explain", "what a TORCH_LOGS setting would do"),
    "help-logs": ("tlogs.cli.explain:help_logs", "the names that TORCH_LOGS and set-logs know"),
    "tail": ("tlogs.cli.read:tail", "the last records of a run, then what comes"),
    "cat": ("tlogs.cli.read:cat", "all records of a run, live or stored"),
    "runs": ("tlogs.cli.runs:runs", "what is stored, live runs first"),
    "split": ("tlogs.cli.split:split", "one text file for each rank, and a merged one"),
    "demo": ("tlogs.cli.demo:command", "a real job of 4 ranks, steered and merged, in half a minute"),
    "check": ("tlogs.cli.check:command", "what a worker here would do, and where that comes from"),
    "keygen": ("tlogs.cli.keygen:command", "make a secret for a collector that other machines reach"),
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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # Option names are accepted with underscores too, as torchrun accepts both.
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "max_content_width": 100,
    },
)
@click.version_option(package_name="tlogs", prog_name="tlogs")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Read and steer the logs of multi-rank PyTorch jobs.

    \b
    tlogs tail                    what all ranks say, merged, as it comes
    tlogs cat --level WARNING     the warnings of the newest run
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0 done, 1 done in part or a check failed, 2 it could not be begun."""
    try:
        # Not `cli.main`, which has its own way with a closed pipe and with Ctrl-C.
        with cli.make_context("tlogs", list(sys.argv[1:] if arguments is None else arguments)) as ctx:
            status = cli.invoke(ctx)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        name = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else "tlogs"
        text = error.format_message().replace("\n", " ")
        print(f"{name}: {text} (see {name} --help)", file=sys.stderr)
        return 2
    except TlogsError as error:
        print(f"tlogs: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read us has seen enough. Python would complain once more when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (click.Abort, KeyboardInterrupt):
        return 130
    return status if isinstance(status, int) else 0
