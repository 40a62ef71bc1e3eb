"""The grammar of TORCH_LOGS and the arguments of set_logs(), by themselves; torch itself is asked in tests/client."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs.levels.registry import Registry, recorded
from tlogs.levels.set_logs import from_call, in_call_order
from tlogs.levels.torch_logs import Directive, from_text, parse
from tlogs_shared.errors import DirectiveError

directives = st.lists(
    st.builds(Directive, st.from_regex(r"\w[\w.]{0,8}", fullmatch=True), st.sampled_from(["+", "-", ""])), min_size=1
)


def nothing(name: str) -> bool:
    return False


@given(directives, st.sampled_from([",", ", ", ",\n\t "]))
def test_what_was_printed_is_read_back(given: list[Directive], separator: str) -> None:
    assert parse(separator.join(str(directive) for directive in given)) == given


@given(st.text())
def test_any_text_is_clauses_or_a_directive_error(text: str) -> None:
    try:
        assert all(re.fullmatch(r"[\w.]+", directive.name) for directive in parse(text))
    except DirectiveError as error:
        assert repr(text) in str(error)  # noqa: PT017 - that it is raised is one of two right outcomes


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("'dynamo'", "quotes became part of the value"),
        ("dynamo ,aot", "blanks are allowed only after a comma"),
        (" dynamo", "blanks"),
        ("dynamo,", "nothing between two commas"),
        ("dynamo,,aot", "nothing between two commas"),
        ("dynamo=10", "at '='"),
        ("dynamo:aot", "at ':'"),
    ],
)
def test_a_malformed_text_is_told_what_is_wrong_with_it(text: str, complaint: str) -> None:
    with pytest.raises(DirectiveError, match=complaint):
        parse(text)


def test_an_unknown_name_gets_a_suggestion_or_the_list() -> None:
    with pytest.raises(DirectiveError, match="did you mean 'recompiles'") as raised:
        from_text("+dynamo,recompile", recorded(), nothing)
    assert "\n" not in str(raised.value)
    with pytest.raises(DirectiveError, match="components: all, aot, async_compile") as raised:
        from_call([("xyz", 10)], recorded(), nothing)
    assert "artifacts: annotation, aot_graphs" in str(raised.value)


@pytest.mark.parametrize("text", ["help", "+help"])
def test_help_is_an_error_whose_text_is_the_help(text: str) -> None:
    with pytest.raises(DirectiveError, match="TORCH_LOGS Info") as raised:
        from_text(text, recorded(), nothing)
    shown = [name for name in recorded().artifacts if f"  {name} " in str(raised.value)]
    visible = [name for name, artifact in recorded().artifacts.items() if artifact.visible]
    assert shown == (list(recorded().artifacts) if text == "+help" else visible)


def test_the_error_of_the_import_system_keeps_its_class_and_names_the_culprit() -> None:
    def missing(name: str) -> bool:
        raise ModuleNotFoundError("No module named 'nope'", name="nope")

    with pytest.raises(ModuleNotFoundError, match=r"(?s)unknown name 'nope\.sub'.*No module named") as raised:
        from_text("nope.sub", recorded(), missing)
    assert raised.value.name == "nope"


def test_a_failing_call_leaves_the_registry_as_it_was() -> None:
    registry = recorded()
    with pytest.raises(DirectiveError):
        from_call([("homod", 10), ("nope", 10)], registry, lambda name: name == "homod")
    assert registry == recorded()


def test_a_name_that_is_left_to_somebody_else_is_passed_over() -> None:
    state, registry = from_text("+newer,guards", recorded(), nothing, lambda name: name == "newer")
    assert (state.levels, set(state.on)) == ({}, {"guards"})
    assert registry == recorded()


def test_a_module_below_a_component_becomes_a_child_and_any_other_a_component() -> None:
    _, registry = from_text("+torch._dynamo.guards,my.module,my.module.part", recorded(), lambda name: True)
    assert registry.children == {"torch._dynamo.guards", "my.module.part"}
    assert registry.components["my.module"] == ("my.module",)


def test_keywords_come_in_torchs_order() -> None:
    assert list(in_call_order({"x.y": 10, "ddp": 10, "guards": True, "all": 10, "dynamo": 10})) == [
        *("all", "dynamo", "ddp", "guards", "x.y")
    ]


def test_a_registry_without_names_knows_only_modules() -> None:
    state, registry = from_text("+json", Registry(), lambda name: True)
    assert state.levels == {"json": 10}
    assert registry.names() == ["all", "json"]
