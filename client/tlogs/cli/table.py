"""Tables and quantities for people: columns that line up, units that read at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from tlogs_shared.quantity import format_duration as duration

__all__ = ["duration", "size", "table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> str:
    """Lines with aligned columns, a line feed after each; the columns named in *right* (by blanks) align right.

    >>> print(table(["NAME", "RANKS"], [["a", "4"], ["bcd", "512"]], right="RANKS"), end="")
    NAME  RANKS
    a         4
    bcd     512
    """
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    aligned = set(right.split())
    return "".join(
        "  ".join(
            cell.rjust(width) if name in aligned else cell.ljust(width)
            for cell, width, name in zip(line, widths, head, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
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
