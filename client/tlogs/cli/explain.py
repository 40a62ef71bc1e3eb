"""`tlogs explain` and `tlogs help-logs`: the effect of a setting, and the names that can be set."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator
from typing import Final

import click

from tlogs.cli import candidates
from tlogs.cli.options import json_option
from tlogs.cli.spec import SpecCommand
from tlogs.cli.table import show_table
from tlogs.levels.explain import Explanation
from tlogs.levels.explain import explain as explained
from tlogs.levels.registry import ALL, Artifact, recorded
from tlogs.levels.torch_names import TORCH_VERSION
from tlogs.loggers.module_lookup import locate
from tlogs.loggers.torch_api import differences

__all__ = ["explain", "help_logs"]

MAX_WIDTH: Final = 110
"""Longer lines are hard to read, however wide the terminal is."""


@click.command(cls=SpecCommand)
@click.argument(
    "specs", nargs=-1, required=True, metavar="SPEC...", type=click.UNPROCESSED, shell_complete=candidates.specs
)
@json_option
def explain(specs: tuple[str, ...], as_json: bool) -> None:
    """Explain what TORCH_LOGS=SPEC does: the level of each logger, the artifacts that are shown, and why.

    NAME=LEVEL, as tlogs set-logs accepts it, is a SPEC too.

    \b
    Examples:
      tlogs explain +dynamo,-inductor,bytecode
      tlogs explain c10d=DEBUG graph_breaks=off
    """
    found = explained(specs, recorded(), locate)
    if as_json:
        click.echo(json.dumps(found.asdict()))
    else:
        if found.loggers:
            rows = [[line.logger, line.level, line.because] for line in found.loggers]
            show_table(["LOGGER", "LEVEL", "BECAUSE OF"], rows)
            click.echo()
        click.echo("\n".join(_in_words(found)))


def _in_words(found: Explanation) -> Iterator[str]:
    yield from (f"note: {note}" for note in found.notes)
    if found.notes:
        yield ""
    for line in found.artifacts:
        if line.shown:
            yield f"{line.artifact}: shown, because {line.because}"
    yield ""
    hidden: dict[str, list[str]] = {}
    for line in found.artifacts:
        if not line.shown:
            hidden.setdefault(line.because, []).append(line.artifact)
    for because, names in sorted(hidden.items(), key=lambda item: len(item[1])):
        yield _wrapped(f"not shown, {because}: {', '.join(names)}")


@click.command("help-logs")
@click.option("--differences", "show_differences", is_flag=True, help="Print where tlogs differs from torch instead.")
@json_option
def help_logs(show_differences: bool, as_json: bool) -> None:
    """List the components and artifacts that torch registers, each with its description.

    A program may register more, and any module can be given by its full name.

    \b
    Examples:
      tlogs help-logs
      tlogs help-logs --differences
      tlogs help-logs --json | jq .components.dynamo
    """
    if show_differences:
        click.echo(differences())
        return
    registry = recorded()
    if as_json:
        artifacts = {
            name: {"off_by_default": artifact.off_by_default, "description": artifact.description}
            for name, artifact in sorted(registry.artifacts.items())
        }
        click.echo(json.dumps({"torch": TORCH_VERSION, "components": registry.components, "artifacts": artifacts}))
        return
    click.echo(f"COMPONENTS (torch {TORCH_VERSION}) have a level: +c10d is DEBUG, c10d INFO, -c10d ERROR\n")
    for alias, loggers in sorted(registry.components.items()):
        name = f"{ALL}, torch" if alias == "torch" else alias
        click.echo(_entry(name, ", ".join(loggers)))
    by_default = [artifact for artifact in registry.artifacts.values() if not artifact.off_by_default]
    named_only = [artifact for artifact in registry.artifacts.values() if artifact.off_by_default]
    click.echo("\nARTIFACTS, shown when named, or when the component above them is at DEBUG\n")
    _list(by_default)
    click.echo("\nARTIFACTS off by default, shown only when named\n")
    _list(named_only)
    click.echo("\nAny importable module can be named as well: +my.module, my.module=INFO.")
    click.echo("To see what a setting does: tlogs explain SPEC")


def _list(artifacts: list[Artifact]) -> None:
    for artifact in sorted(artifacts, key=lambda artifact: artifact.name):
        click.echo(_entry(artifact.name, " ".join(artifact.description.split())))


def _entry(name: str, text: str) -> str:
    return _wrapped(f"  {name:<26} {text}", indent=29)


def _width() -> int:
    return min(shutil.get_terminal_size((MAX_WIDTH, 24)).columns, MAX_WIDTH)


def _wrapped(text: str, indent: int = 4) -> str:
    return textwrap.fill(
        text, width=_width(), subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
    )
