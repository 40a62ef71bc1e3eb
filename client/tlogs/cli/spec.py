"""Commands whose arguments may begin with a minus sign: `tlogs explain -dynamo`."""

from __future__ import annotations

import re
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from tlogs.cli import candidates

__all__ = ["SpecCommand"]

_SPEC: Final = re.compile(r"(?!-r[\d^])-\w[\w.,+=\s-]+")
"""A clause such as -dynamo, and not -r0-3. An option of one letter is shorter, others begin with two minus signs."""

_SHIELD: Final = "\0"
"""No argument of a process can contain it."""


class SpecCommand(click.Command):
    """A command with an argument `specs`, in which `-dynamo` is a clause and not the options -d, -y, -n…"""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, with the clauses shielded from it."""
        rest = super().parse_args(ctx, [_SHIELD + arg if _SPEC.fullmatch(arg) else arg for arg in args])
        specs: Any = ctx.params.get("specs") or ()
        ctx.params["specs"] = tuple(spec.removeprefix(_SHIELD) for spec in specs)
        return rest

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete `-dyn` as a clause too; click takes it for an option."""
        found = super().shell_complete(ctx, incomplete)
        if re.match(r"-\w", incomplete):
            found += [CompletionItem(spec) for spec in candidates.specs(ctx, self.params[0], incomplete)]
        return found
