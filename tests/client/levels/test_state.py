"""Level states: what lies over what, and the order in which a difference loses no record."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs.levels.registry import Registry, lineage, recorded
from tlogs.levels.state import OFF, LevelState, Target, base_targets, lease_targets, level_number, ordered, overlay
from tlogs_shared.errors import DirectiveError

NAMES = ["a", "a.b", "a.b.c", "a.b.c.d", "a.e", "f"]
states = st.fixed_dictionaries({name: st.sampled_from([0, 10, 20, 30, 40]) for name in NAMES})


def effective(levels: dict[str, int], logger: str) -> int:
    """What logging finds: the first level that is set, from the logger upwards."""
    return next((levels[name] for name in lineage(logger) if levels[name]), logging.WARNING)


@given(states, states)
def test_on_the_way_no_level_is_above_both_its_old_and_its_new_value(old: dict[str, int], new: dict[str, int]) -> None:
    now = dict(old)
    for name, level in ordered({name: level for name, level in new.items() if level != old[name]}):
        now[name] = level
        for logger in NAMES:
            assert effective(now, logger) <= max(effective(old, logger), effective(new, logger))
    assert now == new


def registry() -> Registry:
    found = recorded()
    for artifact in ("guards", "bytecode"):
        found.artifact_loggers[f"torch._dynamo.x.__{artifact}"] = artifact
    return found


GUARDS, BYTECODE = "torch._dynamo.x.__guards", "torch._dynamo.x.__bytecode"


def test_without_leases_only_artifacts_that_are_off_have_something_over_them() -> None:
    assert lease_targets(registry(), LevelState(), []) == {BYTECODE: Target(OFF, propagate=False)}


def test_a_base_is_what_torch_makes_of_it() -> None:
    found = base_targets(registry(), LevelState({"torch.autograd": 10}, frozenset({"bytecode"})))
    assert found["torch"] == Target(30, propagate=False)
    assert found["torch.autograd"] == Target(10, propagate=False)
    assert found["torch.onnx"] == Target(0, propagate=False)
    assert found[BYTECODE] == Target(10, propagate=True)
    assert found[GUARDS] == Target(0, propagate=True)


def test_a_lease_turns_artifacts_on_and_off() -> None:
    state = LevelState(on=frozenset({"guards"}))
    found = lease_targets(registry(), state, [({"guards": False, "bytecode": True}, False)])
    assert found == {GUARDS: Target(OFF, propagate=False), BYTECODE: Target(10, propagate=True)}


def test_a_lease_that_replaces_returns_what_it_does_not_name() -> None:
    state = LevelState({"torch._dynamo": 10}, frozenset({"bytecode"}))
    found = lease_targets(registry(), state, [({"aot": 10}, False), ({"c10d": 10}, True)])
    assert found["torch._dynamo"].level == 0
    assert found["torch._functorch.aot_autograd"].level == 0
    assert found["torch.distributed.distributed_c10d"].level == 10
    assert found[BYTECODE].level == OFF


def test_the_later_of_two_settings_for_one_logger_holds() -> None:
    assert overlay(LevelState(), {"dynamo": 10, "export": 40}, recorded()).levels["torch._dynamo"] == 40
    assert overlay(LevelState(), {"export": 40, "dynamo": 10}, recorded()).levels["torch._dynamo"] == 10


def test_a_level_is_a_number_or_a_name_that_logging_knows() -> None:
    assert (level_number(True), level_number("DEBUG"), level_number(7)) == (1, 10, 7)
    with pytest.raises(DirectiveError, match="Unknown level: 'bogus'; expected DEBUG, INFO"):
        level_number("bogus")
    with pytest.raises(TypeError, match="Level not an integer"):
        level_number(10.0)
