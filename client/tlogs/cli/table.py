"""Tables and quantities for people: columns that line up, units that read at a glance."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import click

from tlogs_shared.quantity import format_duration as duration

__all__ = ["duration", "fit", "show_table", "size", "table", "width_of"]

ZERO_WIDTH_JOINER: Final = "\u200d"
"""Part of many emoji; other characters of its kind turn the direction of writing around, and are shown instead."""


def show_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: str = "",
    usual: Mapping[str, str] = MappingProxyType({}),
    narrow: Sequence[tuple[str, int]] = (),
    spare: Sequence[str] = (),
) -> None:
    """Print a table; its head is bold where colours are wanted.

    A terminal is narrow: there a column is left out whose cells all are what *usual* has for it, and the columns of
    *narrow* are cut, one after the other and to no less than the width beside it, until a line fits. Where that is not
    enough the columns *spare* are left out, one after the other.
    """
    if sys.stdout.isatty():
        columns = [at for at, name in enumerate(head) if any(row[at] != usual.get(name) for row in rows)]
        head, rows = [head[at] for at in columns], [[row[at] for at in columns] for row in rows]
        head, rows = fit(head, rows, shutil.get_terminal_size().columns, narrow, spare)
    first, rest = table(head, rows, right).split("\n", 1)
    click.echo(f"{click.style(first, bold=True)}\n{rest}", nl=False)


def fit(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    narrow: Sequence[tuple[str, int]],
    spare: Sequence[str] = (),
) -> tuple[list[str], list[list[str]]]:
    """Head and rows whose lines have at most *width* columns, as far as that goes.

    >>> fit(["A", "TEXT"], [["1", "step 5 of 100"], ["2", "done"]], 11, [("TEXT", 6)])
    (['A', 'TEXT'], [['1', 'step 5 …'], ['2', 'done']])
    >>> fit(["A", "B", "TEXT"], [["1", "2", "step 5 of 100"]], 11, [("TEXT", 6)], ["B"])
    (['A', 'TEXT'], [['1', 'step 5 …']])
    """
    found = [[_printable(cell) for cell in row] for row in rows]
    for count in range(len(spare) + 1):
        kept = [at for at, name in enumerate(head) if name not in spare[:count]]
        names, cells = [head[at] for at in kept], [[row[at] for at in kept] for row in found]
        if _narrow(names, cells, width, narrow):
            break
    return names, cells


def _narrow(head: Sequence[str], rows: list[list[str]], width: int, narrow: Sequence[tuple[str, int]]) -> bool:
    """Cut cells of the columns *narrow* in place; return True if a line then fits into *width*."""
    widths = [max(width_of(row[at]) for row in [list(head), *rows]) for at in range(len(head))]
    for name, least in narrow:
        excess = sum(widths) + 2 * (len(widths) - 1) - width
        if excess <= 0 or name not in head:
            continue
        at = head.index(name)
        widths[at] = max(widths[at] - excess, min(widths[at], least), width_of(name))
        for row in rows:
            row[at] = _cut(row[at], widths[at])
    return sum(widths) + 2 * (len(widths) - 1) <= width


def _cut(cell: str, width: int) -> str:
    if width_of(cell) <= width:
        return cell
    while width_of(cell) >= width:
        cell = cell[:-1]
    return f"{cell}…"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> str:
    """Lines with aligned columns, a line feed after each; the columns named in *right* (by blanks) align right.

    >>> print(table(["NAME", "RANKS"], [["a", "4"], ["bcd", "512"]], right="RANKS"), end="")
    NAME  RANKS
    a         4
    bcd     512
    """
    lines = [list(head), *([_printable(cell) for cell in row] for row in rows)]
    widths = [max(width_of(line[column]) for line in lines) for column in range(len(head))]
    aligned = set(right.split())
    return "".join(
        "  ".join(
            _pad(cell, width, to_the_right=name in aligned)
            for cell, width, name in zip(line, widths, head, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def _pad(cell: str, width: int, *, to_the_right: bool) -> str:
    blanks = " " * (width - width_of(cell))
    return blanks + cell if to_the_right else cell + blanks


def width_of(text: str) -> int:
    """The columns that *text* takes in a terminal: ideographs and emoji take two, combining marks none.

    >>> width_of("node0"), width_of("节点0"), width_of("re\\u0301sume\\u0301"), width_of("🔥")
    (5, 5, 6, 2)
    """
    if text.isascii():
        return len(text)
    return sum(_width_of_character(character) for character in text)


def _width_of_character(character: str) -> int:
    # Mn and Me combine with the character before them; Cf are joiners and marks of direction.
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _printable(cell: str) -> str:
    """A host's or a logger's name must neither break the table nor steer the terminal."""
    if cell.isprintable():
        return cell
    return "".join(
        character if character.isprintable() or character == ZERO_WIDTH_JOINER else ascii(character)[1:-1]
        for character in cell
    )


def size(count: int) -> str:
    """Bytes with a unit.

    >>> size(512), size(20_480), size(3_500_000), size(7_000_000_000)
    ('512 B', '20.5 kB', '3.5 MB', '7.0 GB')
    """
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 999.95 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.0f} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"
