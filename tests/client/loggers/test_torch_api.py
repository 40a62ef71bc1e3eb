"""The signature of set_logs(): torch's, and what `torch_names` has recorded."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from tlogs.levels.torch_names import KEYWORDS, SINCE
from tlogs.loggers.torch_api import set_logs

PRINT_SIGNATURE = """
import inspect, json, torch._logging
print(json.dumps([[p.name, p.default] for p in inspect.signature(torch._logging.set_logs).parameters.values()]))
"""


def test_the_keywords_are_those_recorded_a_level_for_a_component_and_a_switch_for_an_artifact() -> None:
    signature = inspect.signature(set_logs).parameters
    assert set(signature) == {*KEYWORDS, "modules"}
    assert {parameter.kind for parameter in signature.values()} == {inspect.Parameter.KEYWORD_ONLY}
    for name, is_artifact in KEYWORDS.items():
        found = signature[name].annotation, signature[name].default
        assert found == (("bool", False) if is_artifact else ("int | None", None))


@pytest.mark.torch
def test_the_signature_is_that_of_the_torch_that_is_installed() -> None:
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", PRINT_SIGNATURE], capture_output=True, text=True)
    theirs = [(name, default) for name, default in json.loads(ran.stdout)]
    later = {name for name, since in SINCE.items() if numbers(since) > numbers(version("torch"))}
    ours = [(name, parameter.default) for name, parameter in inspect.signature(set_logs).parameters.items()]
    assert [(name, default) for name, default in ours if name not in later] == theirs


def numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]
