"""The arguments of set_logs(), checked as torch checks them."""

from __future__ import annotations

from typing import Any

import pytest

from tlogs.levels.registry import recorded
from tlogs.levels.set_logs import arguments, from_call
from tlogs_shared.errors import DirectiveError


def nothing(name: str) -> bool:
    return False


def test_settings_become_levels_and_artifacts() -> None:
    items = arguments(ddp=10, dynamo=None, guards=True, bytecode=False, modules={"my.module": 20, "other": None})
    assert items == [("ddp", 10), ("guards", True), ("my.module", 20), ("other", None)]
    state, registry = from_call([*items, ("recompiles", False)], recorded(), lambda name: name == "my.module")
    assert state.levels == {**dict.fromkeys(recorded().components["ddp"], 10), "my.module": 20}
    assert set(state.on) == {"guards"}
    assert registry.components["my.module"] == ("my.module",)


@pytest.mark.parametrize("modules", [5, ["my.module"], "my.module"])
def test_modules_that_are_no_map_are_refused(modules: Any) -> None:
    with pytest.raises(AttributeError, match="modules must map names to levels"):
        arguments(modules)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("guards", 10, "Expected bool to enable artifact guards, received 10"),
        ("c10d", 15, "Unrecognized log level for log c10d: 15, valid level values are: 50, 40"),
        ("nope", 10, "components: all, aot"),
    ],
)
def test_a_setting_that_torch_refuses_is_refused_in_its_words(name: str, value: Any, complaint: str) -> None:
    with pytest.raises(DirectiveError, match=complaint):
        from_call([(name, value)], recorded(), nothing)


def test_a_module_that_breaks_while_it_is_imported_is_named_beside_its_error() -> None:
    def broken(name: str) -> bool:
        raise ImportError("broken on purpose", name="hobroken")

    with pytest.raises(ImportError, match=r"(?s)'hobroken\.sub'.*broken on purpose") as raised:
        from_call([("hobroken.sub", 10)], recorded(), broken)
    assert raised.value.name == "hobroken"
