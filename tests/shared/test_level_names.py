"""The table of levels: what each is called, and how each is read."""

from __future__ import annotations

import logging

import pytest

from tlogs_shared.errors import ConfigError
from tlogs_shared.level_names import LETTERS, NAMES, level_name, parse_level, setting_text


@pytest.mark.parametrize(
    ("number", "name", "letter", "synonyms"),
    [
        (logging.DEBUG, "DEBUG", "V", ["D"]),
        (logging.INFO, "INFO", "I", []),
        (logging.WARNING, "WARNING", "W", ["WARN"]),
        (logging.ERROR, "ERROR", "E", []),
        (logging.CRITICAL, "CRITICAL", "C", ["FATAL"]),
    ],
)
def test_each_level_has_a_name_a_letter_and_synonyms(number: int, name: str, letter: str, synonyms: list[str]) -> None:
    assert (NAMES[number], level_name(number), LETTERS[number]) == (name, name, letter)
    for text in (name, letter, *synonyms, str(number)):
        assert {parse_level(text), parse_level(text.lower()), parse_level(text.title())} == {number}


def test_there_are_five_levels_with_a_name_and_a_letter() -> None:
    assert list(NAMES) == list(LETTERS) == [10, 20, 30, 40, 50]


@pytest.mark.parametrize(("text", "number"), [("NOTSET", 0), ("0", 0), ("35", 35), (35, 35), ("999999999", 999999999)])
def test_any_other_level_is_a_number(text: str | int, number: int) -> None:
    assert parse_level(text) == number


@pytest.mark.parametrize("text", ["", "loud", "-1", "1.5", "٣", "10 ", "1234567890"])
def test_an_unknown_level_is_answered_with_the_names(text: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown level .*: expected DEBUG, INFO, WARNING, ERROR, CRITICAL, or a"):
        parse_level(text)


def test_a_mistyped_level_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"unknown level 'debgu' \(did you mean DEBUG\?\)"):
        parse_level("debgu")


def test_a_program_may_rename_levels_and_name_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs colour names by `addLevelName(30, "\\x1b[33mWARNING")`: that is not what an operator asks for."""
    monkeypatch.setattr(logging, "_levelToName", {30: "\x1b[33mWARNING", 5: "TRACE"})
    assert [level_name(30), level_name(5), level_name(35)] == ["WARNING", "TRACE", "Level 35"]


@pytest.mark.parametrize(("value", "text"), [(True, "on"), (False, "off"), (10, "DEBUG"), (15, "Level 15")])
def test_a_setting_is_shown_as_it_is_typed(value: int | bool, text: str) -> None:
    assert setting_text(value) == text
