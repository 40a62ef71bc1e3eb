"""The same settings through torch and through tlogs: levels, and what comes out, for every logger, after every step.

torch is asked in a process of its own (`levels_server.py`), one fork for each case; so is tlogs, with torch loaded
and without. Where torch is not installed its recorded answers stand in (`tests/data/torch_answers.json`, made by
`tests/data/record_torch_answers.py`).
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlogs.levels.registry import Registry, recorded
from tlogs.levels.torch_names import SINCE

pytestmark = pytest.mark.timeout(600)  # hundreds of forks; 180 s were not enough at a load of 18

ANSWERS = Path(__file__).parents[2] / "data" / "torch_answers.json"

RECORDED_WITH = "2.13.0"
"""The torch whose answers were recorded; a newer one is asked only about the names that this one has."""


def old_names() -> Registry:
    """The names that every recorded version of torch has."""
    registry = recorded()
    for name in SINCE:
        registry.components.pop(name, None)
        registry.artifacts.pop(name, None)
    return registry


REGISTRY = old_names()
MODULES = ["homod", "hopkg", "hopkg.alpha", "hopkg.sub.beta", "json", "torch._dynamo", "torch.autograd"]
NO_MODULES = ["nope", "nope.sub", "homod.sub", "hopkg.nope", "Dynamo", "help", "hobroken.sub", ".homod", "__main__"]
HOMES = ["torch._dynamo.guards", "torch._inductor.scheduler", "torch.distributed.x", "mymod", "homod", "hopkg.alpha"]
PLAIN = ["torch._dynamo.convert_frame", "torch.distributed.x", "torch.fx", "mymod", "other.thing", *HOMES, *MODULES[:5]]
ARTIFACTS = ["guards", "graph_breaks", "bytecode", "recompiles_verbose", "verbose_guards"]

Case = dict[str, Any]
Answer = list[dict[str, Any]]


class Server(Protocol):
    """See conftest.py."""

    def ask(self, case: Case) -> Answer: ...


def differences(case: Case, theirs: Answer, ours: Answer) -> list[str]:
    """Where tlogs says something else than torch; shown twice by torch is shown once by tlogs."""
    found = []
    if len(theirs) != len(ours):
        return [f"TORCH_LOGS: torch raised {theirs[0]['error'][:1]}, tlogs {ours[0]['error'][:1]}"]
    for step, their, our in zip([["start"], *case["steps"]], theirs, ours, strict=False):
        if (their["error"] or ["-"])[0] not in (our["error"] or ["-"]):
            found.append(f"{step}: torch raised {their['error'][:1]}, tlogs {our['error'][:1]}")
        if their["warned"] != our["warned"]:
            found.append(f"{step}: torch warned {their['warned']} times, tlogs {our['warned']}")
        if step == ["start"] and their["error"]:  # `import torch` fails, and the program ends
            continue
        for logger, (level, shown, taken) in their["loggers"].items():
            expected = [level, [min(count, 1) for count in shown], taken]
            level, shown, taken = our["loggers"][logger]
            if [level, [min(count, 1) for count in shown], taken] != expected:
                found.append(f"{step}: {logger}: torch {expected}, tlogs {our['loggers'][logger]}")
    return found


def probes(steps: list[list[Any]]) -> list[str]:
    """The loggers to look at: every registered one, those that a case names, and the artifacts that it has made."""
    artifacts = [f"{step[1]}.__{step[2]}" for step in steps if step[0] == "artifact"]
    return sorted({*REGISTRY.loggers(), *PLAIN, *artifacts})


names = st.sampled_from(REGISTRY.names() + MODULES + ARTIFACTS * 3)
tokens = st.builds(str.__add__, st.sampled_from(["+", "-", ""]), names)
texts = st.builds(
    lambda parts, separator: separator.join(parts),
    st.lists(tokens, min_size=1, max_size=5),
    st.sampled_from([",", ",", ", ", ",\n\t"]),
)
odd_texts = st.one_of(
    st.builds(lambda text, bad: f"{text},{bad}", texts, st.sampled_from(NO_MODULES)),
    st.builds(lambda text, at, bad: text[:at] + bad + text[at:], texts, st.integers(0, 9), st.sampled_from("+-, .=:'")),
    st.text(st.sampled_from("+-, .\n'dynamoall"), max_size=9),
)
levels = st.sampled_from([10, 20, 30, 40, 50, 0, None, 10, 20, False, True, 15, 10.0, "DEBUG", "bogus", [10]])
good_levels = st.sampled_from([10, 20, 30, 40, 50, 0, None])
switches = st.sampled_from([True, True, True, False, None, 1, 0, "on"])
components = st.sampled_from(["all", "dynamo", "aot", "dynamic", "distributed", "c10d", "ddp", "fsdp", "export"])
in_modules = st.dictionaries(
    st.sampled_from([*REGISTRY.components, *MODULES, *MODULES, *REGISTRY.loggers()]), good_levels, max_size=3
) | st.dictionaries(st.sampled_from([*REGISTRY.names(), *MODULES, *NO_MODULES, "", "+c10d"]), levels, max_size=3)
keywords = st.builds(
    lambda components, artifacts, modules, other: {**components, **artifacts, **modules, **other},
    st.dictionaries(components, good_levels, max_size=4) | st.dictionaries(components, levels, max_size=2),
    st.dictionaries(st.sampled_from(ARTIFACTS[:4]), st.just(True), max_size=3)
    | st.dictionaries(st.sampled_from(ARTIFACTS), switches, max_size=2),
    st.fixed_dictionaries({}, optional={"modules": in_modules | st.sampled_from([None, [], 0, "x", [1]])}),
    st.just({}) | st.sampled_from([{"pp": 10}, {"nope": 10}, {"torch": 10}]),
)
aliases = st.sampled_from(["mine", "c10d", "guards"])
loggers = st.lists(st.sampled_from(["other.thing", "homod", "torch.fx", "torch._dynamo.convert_frame"]), min_size=1)
step = st.one_of(
    st.builds(lambda keywords: ["set_logs", keywords], keywords),
    st.builds(lambda keywords: ["set_logs", keywords], keywords),
    st.builds(lambda home, name: ["artifact", home, name], st.sampled_from(HOMES), st.sampled_from(ARTIFACTS)),
    st.builds(lambda alias, loggers: ["register_log", alias, loggers], aliases, loggers),
    st.builds(lambda off: ["register_artifact", "fresh", off], st.booleans()),
    st.builds(lambda home: ["artifact", home, "fresh"], st.sampled_from(HOMES)),
    st.builds(lambda text: ["setenv", text], st.none() | texts),
)
some = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(case: Case, torch: Server, *others: Server) -> None:
    theirs = torch.ask(case)
    for other in others:
        assert differences(case, theirs, other.ask(case)) == []


@pytest.mark.torch
@some
@given(text=st.one_of(texts, texts, odd_texts), first=st.lists(step.filter(lambda s: s[0] == "artifact"), max_size=2))
def test_torch_logs_means_the_same_as_to_torch(
    torch: Server, loaded: Server, absent: Server, text: str, first: list[list[Any]]
) -> None:
    case = {"env": text, "steps": first, "probe": probes(first)}
    check(case, torch, loaded, absent)


@pytest.mark.torch
@some
@given(text=st.none() | st.none() | texts, steps=st.lists(step, min_size=1, max_size=6))
def test_any_sequence_of_calls_means_the_same_as_to_torch(
    torch: Server, loaded: Server, absent: Server, text: str | None, steps: list[list[Any]]
) -> None:
    case = {"env": text, "steps": steps, "probe": probes(steps)}
    check(case, torch, loaded, absent)


def answers_of_torch() -> list[tuple[Case, Answer]]:
    """What was recorded; `record_torch_answers.compact` says what was left out."""
    found = json.loads(ANSWERS.read_text())
    usual = found[0][1][0]["loggers"]
    for case, answer in found:
        case["probe"] = probes(case["steps"])
        seen = {name: usual.get(name) for name in case["probe"]}
        for step in answer:
            seen = {**seen, **step["loggers"]}
            step["loggers"] = dict(seen)
    return [(case, answer) for case, answer in found]


RECORDED = answers_of_torch()
TITLES = [f"{case['env']!r}-{[step[1] for step in case['steps'] if step[0] == 'set_logs']}" for case, _ in RECORDED]


@pytest.mark.parametrize(("case", "theirs"), RECORDED, ids=TITLES)
def test_without_torch_settings_mean_what_torch_was_seen_to_make_of_them(
    absent: Server, case: Case, theirs: Answer
) -> None:
    assert differences(case, theirs, absent.ask(case)) == []


@pytest.mark.torch
@pytest.mark.parametrize(("case", "theirs"), RECORDED, ids=TITLES)
def test_with_torch_settings_mean_what_torch_was_seen_to_make_of_them(
    torch: Server, loaded: Server, case: Case, theirs: Answer
) -> None:
    """And torch itself still says what was recorded, where it is the version that was recorded."""
    assert differences(case, theirs, loaded.ask(case)) == []
    if version("torch").partition("+")[0] == RECORDED_WITH:
        assert torch.ask(case) == theirs
