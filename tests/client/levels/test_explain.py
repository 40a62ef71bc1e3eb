"""What a setting would do, in words."""

from __future__ import annotations

import json

import pytest

from tlogs.levels.explain import Explanation, explain
from tlogs.levels.registry import emitters, recorded
from tlogs_shared.errors import DirectiveError


def explained(*specs: str) -> Explanation:
    return explain(specs, recorded(), lambda name: name in ("json", "my.module"))


def why(found: Explanation, artifact: str) -> tuple[bool, str]:
    (line,) = [line for line in found.artifacts if line.artifact == artifact]
    return line.shown, line.because


@pytest.mark.parametrize(
    ("spec", "artifact", "shown", "because"),
    [
        ("+dynamo", "graph_breaks", True, "dynamo is at DEBUG"),
        ("dynamo", "graph_breaks", False, "dynamo is at INFO"),
        ("-dynamo,graph_breaks", "graph_breaks", True, "it is named"),
        ("+all", "graph_breaks", True, "all is at DEBUG"),
        ("+all,-dynamo", "graph_breaks", False, "dynamo is at ERROR"),
        ("+dynamo", "bytecode", False, "off by default"),
        ("-bytecode", "bytecode", True, "it is named"),
        ("+aot", "aot_graphs", True, "aot is at DEBUG"),
        ("c10d=DEBUG,graph_breaks=off", "graph_breaks", False, "turned off"),
        ("dynamo=DEBUG,guards=off", "recompiles", True, "dynamo is at DEBUG"),
        ("", "guards", False, "dynamo is at WARNING"),
    ],
)
def test_each_artifact_is_shown_or_not_for_a_reason(spec: str, artifact: str, shown: bool, because: str) -> None:
    found, reason = why(explained(spec), artifact)
    assert found is shown
    assert because in reason


def test_each_logger_has_the_level_of_the_last_clause_that_names_it() -> None:
    found = explained("+dynamo", "dynamic,json", "-dynamo")
    lines = {line.logger: (line.level, line.because) for line in found.loggers}
    assert lines["torch._dynamo"] == ("ERROR", "-dynamo")
    assert lines["torch.fx.experimental.sym_node"] == ("ERROR", "-dynamo")
    assert lines["json"] == ("INFO", "json")


def test_a_module_that_is_not_found_here_is_a_note_and_a_slip_of_the_finger_is_refused() -> None:
    assert "no.where" in explained("+no.where").notes[0]
    assert explained("+my.module").notes == []
    assert [line.level for line in explained("my.module=DEBUG").loggers if line.logger == "my.module"] == ["DEBUG"]
    with pytest.raises(DirectiveError, match="did you mean 'dynamo'"):
        explained("dinamo")
    with pytest.raises(DirectiveError, match="did you mean 'dynamo'"):
        explained("dinamo=DEBUG")


def test_a_minus_before_an_artifact_is_explained() -> None:
    assert "turns guards on" in explained("-guards").notes[0]


def test_an_explanation_is_made_of_primitives() -> None:
    found = json.loads(json.dumps(explained("+dynamo").asdict()))
    assert found["loggers"]["torch._dynamo"] == {"level": "DEBUG", "because": "+dynamo"}
    assert found["artifacts"]["bytecode"]["shown"] is False


def test_emitters_are_known_for_nearly_all_artifacts() -> None:
    silent = {"custom_format_test_artifact", "onnx_diagnostics", "incremental", "overlap_scheduling"}
    assert recorded().artifacts.keys() - emitters().keys() <= silent
