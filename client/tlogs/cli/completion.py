"""`tlogs completion`, and the answers that a shell is given while somebody types."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    shell_complete,
)

__all__ = ["VARIABLE", "command", "complete"]

VARIABLE: Final = "_TLOGS_COMPLETE"
"""Set by a shell that wants words, and here to get its script; click's own convention."""

SHELLS: Final = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print the script that makes SHELL (bash, zsh, fish) complete commands, options, runs and names.

    \b
    Examples:
      eval "$(tlogs completion bash)"       in ~/.bashrc
      eval "$(tlogs completion zsh)"        in ~/.zshrc, after compinit
      tlogs completion fish | source        in ~/.config/fish/config.fish
    """
    return complete(ctx.find_root().command, f"{shell}_source")


def complete(cli: click.Command, instruction: str) -> int:
    """Do what VARIABLE asks for: `bash_source` prints the script, `bash_complete` the words that may follow."""
    return shell_complete(cli, {}, "tlogs", VARIABLE, instruction)


class _Bash(BashComplete):
    """Bash splits what was typed at equals signs, and replaces only the part behind the last one."""

    _typed_before = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        words: list[str] = []
        args, incomplete = super().get_completion_args()
        for word in (*args, incomplete):
            if words and (word == "=" or words[-1].endswith("=")):
                words[-1] += word
            else:
                words.append(word)
        *args, incomplete = words
        self._typed_before = incomplete[: incomplete.rfind("=") + 1]
        return args, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        item.value = item.value.removeprefix(self._typed_before)
        return super().format_completion(item)


add_completion_class(_Bash)
