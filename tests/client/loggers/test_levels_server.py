"""The server that the other tests of this folder ask."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

CASE: Final = {"env": None, "steps": [], "probe": ["train"]}


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(absent: Any) -> None:
    """As when a test is interrupted between question and answer."""
    expected = absent.ask(CASE)
    absent._process.stdin.write(json.dumps([0, {**CASE, "probe": ["other"]}]) + "\n")
    assert absent.ask(CASE) == expected


def test_a_server_that_died_is_started_again(absent: Any) -> None:
    expected = absent.ask(CASE)
    absent._process.kill()
    absent._process.wait()
    assert absent.ask(CASE) == expected


def test_a_case_that_raises_is_told_with_its_cause(absent: Any) -> None:
    with pytest.raises(AssertionError, match="KeyError: 'probe'"):
        absent.ask({"env": None, "steps": []})
    absent.ask(CASE)
