"""Tables line up, whatever stands in them."""

from __future__ import annotations

import click
import pytest

from tlogs.cli.table import show_table, table, width_of


def test_columns_line_up_with_wide_and_combining_characters() -> None:
    hosts = ["node0", "节点-01", "ﾎｽﾄ", "ホスト", "résumé", "re\u0301sume\u0301", "🔥gpu🔥", "👩\u200d🔬", ""]
    lines = table(["HOST", "RANKS", "SIZE"], [[host, "8", "1 B"] for host in hosts], right="RANKS").splitlines()
    assert {width_of(line.removesuffix("1 B")) for line in lines[1:]} == {width_of(lines[0].removesuffix("SIZE"))}
    assert all(line.endswith("    8  1 B") for line in lines[1:])


def test_a_terminal_is_spared_the_columns_in_which_all_is_as_usual(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that reads the table gets all of them."""
    head, usual = ["RUN", "DROPPED", "LOST"], {"DROPPED": "0", "LOST": "0"}
    show_table(head, [["a", "0", "0"], ["b", "3", "0"]], usual=usual)
    assert capsys.readouterr().out.splitlines()[0].split() == head
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show_table(head, [["a", "0", "0"], ["b", "3", "0"]], usual=usual)
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert [line.split() for line in lines] == [
        ["RUN", "DROPPED"],
        ["a", "0"],
        ["b", "3"],
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", "a\\nb"), ("\x1b[31mred", "\\x1b[31mred"), ("a\u202eb", "a\\u202eb"), ("tab\t", "tab\\t")],
)
def test_a_name_neither_breaks_a_table_nor_steers_the_terminal(text: str, shown: str) -> None:
    assert table(["NAME", "N"], [[text, "1"]]) == f"{'NAME'.ljust(len(shown))}  N\n{shown}  1\n"
