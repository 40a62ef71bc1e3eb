"""What the environment asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlogs.worker.config import KNOWN, Config, Target, is_on, unknown_names
from tlogs_shared.errors import ConfigError


@pytest.mark.parametrize(("value", "on"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)])
def test_a_switch_is_on_when_it_is_set_and_not_0(value: str | None, on: bool) -> None:
    environ = {} if value is None else {"TLOGS_DISABLE": value, "TLOGS_CAPTURE_WARNINGS": value}
    assert is_on("TLOGS_DISABLE", environ) is on
    assert Config.from_environ(environ).disabled is on


def test_where_tlogs_is_disabled_nothing_else_is_looked_at() -> None:
    environ = {"TLOGS_DISABLE": "1", "TLOGS_COLLECTOR": "nonsense", "TLOGS_STDERR": "nonsense"}
    assert Config.from_environ(environ) == Config(None, disabled=True)


def test_what_was_asked_for_is_found() -> None:
    config = Config.from_environ({"TLOGS_COLLECTOR": "node1:7", "TLOGS_CAPTURE_WARNINGS": "1", "HOME": "/none"})
    assert config == Config(Target("tcp://node1:7"), capture_warnings=True)


def test_a_path_need_not_lead_anywhere_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector may be started after its workers; where they run does not change what was meant."""
    monkeypatch.chdir(tmp_path)
    found = [Config.from_environ({}, collector=text).target for text in ("./runs", "runs/collector.json", "/x/runs")]
    assert found == [Target(f"{tmp_path}/runs"), Target(f"{tmp_path}/runs/collector.json"), Target("/x/runs")]


def test_a_secret_is_kept_as_this_process_was_given_it(tmp_path: Path) -> None:
    """The agent reads the file, afresh at each connection; a secret that cannot be one is said at once."""
    file = tmp_path / "secret"
    file.touch(mode=0o600)
    file.write_text("0123456789abcdef\n")
    environ = {"TLOGS_COLLECTOR": "n0:1", "TLOGS_SECRET_FILE": str(file), "TLOGS_SECRET": "another secret here"}
    assert Config.from_environ(environ).target == Target("tcp://n0:1", secret_file=str(file))
    assert Config.from_environ(environ, secret="s" * 16).target == Target("tcp://n0:1", secret="s" * 16)
    del environ["TLOGS_SECRET_FILE"]
    assert Config.from_environ(environ).target == Target("tcp://n0:1", secret="another secret here")
    with pytest.raises(ConfigError, match="TLOGS_SECRET: expected a secret"):
        Config.from_environ({**environ, "TLOGS_SECRET": "short"})
    with pytest.raises(ConfigError, match="secret file"):
        Config.from_environ({**environ, "TLOGS_SECRET_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"TLOGS_STDERR": "loud"}, "TLOGS_STDERR='loud': expected keep or quiet"),
        ({"TLOGS_LEASES": "under"}, "TLOGS_LEASES='under': expected over"),
        ({"TLOGS_COLLECTOR": "nowhere"}, "TLOGS_COLLECTOR 'nowhere'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_variable(environ: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Config.from_environ(environ)


def test_a_name_that_is_none_of_ours_gets_a_suggestion() -> None:
    environ = {**dict.fromkeys(KNOWN, "x"), "TLOGS_COLECTOR": "x", "TLOGS_QQQQQQQQQ": "x", "OTHER": "x"}
    assert unknown_names(environ) == [
        "unknown variable TLOGS_COLECTOR (did you mean TLOGS_COLLECTOR?)",
        "unknown variable TLOGS_QQQQQQQQQ",
    ]
