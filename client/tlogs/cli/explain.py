"""`tlogs explain` and `tlogs help-logs`: what a setting would do, and the names there are."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

import click

from tlogs.cli.options import json_option
from tlogs.cli.spec import SpecCommand
from tlogs.cli.table import table
from tlogs.levels.explain import Explanation
from tlogs.levels.explain import explain as explained
from tlogs.levels.registry import ALL, Artifact, recorded
from tlogs.levels.torch_names import TORCH_VERSION
from tlogs.loggers.module_lookup import locate

__all__ = ["explain", "help_logs"]


@click.command(cls=SpecCommand, short_help="what a TORCH_LOGS setting would do")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...", type=click.UNPROCESSED)
@json_option
def explain(specs: tuple[str, ...], as_json: bool) -> None:
    """Say what TORCH_LOGS=SPEC would do: which loggers get which level, which artifacts come out, and why.

    A SPEC with an equals sign in it is what `tlogs set-logs` takes.

    \b
    tlogs explain +dynamo,-inductor,bytecode
    tlogs explain c10d=DEBUG graph_breaks=off
    """
    found = explained(specs, recorded(), locate)
    if as_json:
        click.echo(json.dumps(found.asdict()))
    else:
        click.echo("\n".join(_in_words(found)))


def _in_words(found: Explanation) -> Iterator[str]:
    if found.loggers:
        rows = [[line.logger, line.level, line.because] for line in found.loggers]
        yield table(["LOGGER", "LEVEL", "BECAUSE OF"], rows)
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


@click.command("help-logs", short_help="the names that TORCH_LOGS and set-logs know")
@json_option
def help_logs(as_json: bool) -> None:
    """List the components and artifacts that torch registers, with what they are.

    A program may register more, and a module can always be named by its full name.

    \b
    tlogs help-logs
    """
    registry = recorded()
    if as_json:
        artifacts = {
            name: {"off_by_default": artifact.off_by_default, "description": artifact.description}
            for name, artifact in sorted(registry.artifacts.items())
        }
        click.echo(json.dumps({"torch": TORCH_VERSION, "components": registry.components, "artifacts": artifacts}))
        return
    click.echo(
        f"COMPONENTS have a level (torch {TORCH_VERSION}): +c10d is DEBUG, c10d INFO, -c10d ERROR; c10d=WARNING\n"
    )
    for alias, loggers in sorted(registry.components.items()):
        name = f"{ALL}, torch" if alias == "torch" else alias
        click.echo(_entry(name, ", ".join(loggers)))
    by_default = [artifact for artifact in registry.artifacts.values() if not artifact.off_by_default]
    named_only = [artifact for artifact in registry.artifacts.values() if artifact.off_by_default]
    click.echo("\nARTIFACTS that come out where they are named, or where the component above them is at DEBUG\n")
    _list(by_default)
    click.echo("\nARTIFACTS that are off by default: they come out only where they are named\n")
    _list(named_only)
    click.echo("\nAny importable module can be named too: +my.module, my.module=INFO.")
    click.echo("`tlogs explain SPEC` says what a setting does.")


def _list(artifacts: list[Artifact]) -> None:
    for artifact in sorted(artifacts, key=lambda artifact: artifact.name):
        click.echo(_entry(artifact.name, " ".join(artifact.description.split())))


def _entry(name: str, text: str) -> str:
    return _wrapped(f"  {name:<28}{text}", indent=30)


def _wrapped(text: str, indent: int = 4) -> str:
    return textwrap.fill(
        text, width=110, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
    )
