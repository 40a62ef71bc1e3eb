"""`tlogs explain` and `tlogs help-logs` at the terminal."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tlogs.cli.explain import explain, help_logs
from tlogs_shared.errors import DirectiveError


def run(*arguments: str) -> str:
    ran = CliRunner().invoke(explain, list(arguments), catch_exceptions=False)
    assert ran.exit_code == 0
    return ran.output


def test_explain_names_loggers_and_artifacts_with_their_reason() -> None:
    found = run("+dynamo,bytecode", "-inductor")
    assert "torch._inductor                        ERROR  -inductor" in found
    assert "graph_breaks: shown, because dynamo is at DEBUG" in found
    assert "bytecode: shown, because it is named" in found
    assert "not shown, off by default: shown only where it is named: annotation" in found


@pytest.mark.parametrize("spec", ["-dynamo", "-homod", "-json,-dynamo", "-d.e"])
def test_a_spec_may_begin_with_a_minus_sign(spec: str) -> None:
    found = json.loads(run(spec, "--json"))
    assert {line["level"] for line in found["loggers"].values()} == {"ERROR"}


def test_a_slip_of_the_finger_is_one_line_with_a_suggestion() -> None:
    with pytest.raises(DirectiveError, match="did you mean 'dynamo'") as raised:
        run("dinamo")
    assert "\n" not in str(raised.value)


def test_help_logs_marks_what_is_off_by_default() -> None:
    found = CliRunner().invoke(help_logs, []).output
    components, on, off = found.split("\nARTIFACTS")
    assert "  c10d  " in components
    assert "  guards  " in on
    assert "  bytecode  " in off
    as_json = json.loads(CliRunner().invoke(help_logs, ["--json"]).output)
    assert as_json["artifacts"]["bytecode"]["off_by_default"] is True


def test_the_differences_from_torch_are_printed_from_the_docstring_of_the_module_and_fit_a_terminal() -> None:
    found = CliRunner().invoke(help_logs, ["--differences"]).output
    cases = [line for line in found.splitlines() if line and not line.startswith(" ")]
    assert "A set_logs() call that fails" in cases
    assert found.count("    torch   ") == found.count("    tlogs   ") == 12
    assert max(map(len, found.splitlines())) <= 80


def test_the_list_of_names_fits_a_terminal() -> None:
    assert max(map(len, CliRunner().invoke(help_logs, []).output.splitlines())) <= 80
