"""This process's levels without torch: its answers to leases, its handlers, and that it leaves no trace.

What settings mean is asked of torch in `levels/`; here is what torch has no answer to.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tlogs.levels.registry import Artifact, recorded
from tlogs.loggers.controller import Levels
from tlogs.loggers.outcome import Outcome
from tlogs_shared.errors import ConfigError, DirectiveError
from tlogs_shared.protocol.lease import Lease

C10D = "torch.distributed.distributed_c10d"


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Levels]:
    """Levels that see no torch, also where another test of this process has imported it."""
    monkeypatch.setattr("tlogs.loggers.base.find_torch", lambda: None)
    monkeypatch.delenv("TORCH_LOGS", raising=False)
    monkeypatch.delenv("TORCH_LOGS_OUT", raising=False)
    found = Levels()
    yield found
    found.stop()


def level_of(name: str) -> int:
    return logging.getLogger(name).getEffectiveLevel()


def lease(revision: int = 1, force: bool = False, **settings: int | bool) -> Lease:
    return Lease(revision, settings, force=force)


def everything() -> dict[str, Any]:
    """Level, `propagate` and handlers of each logger that could be touched."""
    return {
        name: (logger.level, logger.propagate, list(logger.handlers), logger.disabled)
        for name in recorded().loggers()
        for logger in [logging.getLogger(name)]
    }


def test_stop_leaves_every_logger_as_it_was(levels: Levels) -> None:
    before, last_resort, finders = everything(), logging.lastResort, list(sys.meta_path)
    levels.start({"TORCH_LOGS": "+dynamo,guards", "TLOGS_STDERR": "quiet"})
    artifact = levels.artifact_logger("torch._stopped", "bytecode")
    levels.overlay([lease(c10d=10, force=True)])
    assert everything() != before
    levels.stop()
    assert everything() == before
    assert (artifact.level, artifact.propagate) == (logging.NOTSET, False)  # as torch leaves one that is off
    assert (logging.lastResort, list(sys.meta_path)) == (last_resort, finders)


def test_levels_start_again_after_they_were_stopped(levels: Levels) -> None:
    for text, expected in (("+c10d", 10), ("-c10d", 40)):
        levels.start({"TORCH_LOGS": text})
        assert level_of(C10D) == expected
        levels.stop()


@pytest.mark.parametrize(
    ("settings", "kind", "reason"),
    [
        ({"c10d": 10}, "applied", ""),
        ({"all": 20, "guards": True, "tlogs.loggers.controller": 10}, "applied", ""),
        ({"dinamo": 10}, "failed", "unknown name 'dinamo' (did you mean 'dynamo'?)"),
        ({"c10d": 10, "no.where": 10}, "failed", "unknown name 'no.where'"),
        ({"c10d": True}, "failed", "'c10d' is not an artifact here and has a level: say c10d=DEBUG"),
    ],
)
def test_an_outcome_says_what_became_of_a_lease(
    levels: Levels, settings: dict[str, int | bool], kind: Any, reason: str
) -> None:
    levels.start({})
    assert levels.overlay([Lease(1, settings)]) == Outcome(kind, reason)


def test_what_is_known_of_a_lease_is_laid_also_where_a_name_is_not(levels: Levels) -> None:
    levels.start({})
    levels.overlay([Lease(1, {"c10d": 10, "no.where": 10})])
    assert level_of(C10D) == 10
    assert "no.where" not in logging.root.manager.loggerDict


def test_the_newest_lease_is_the_one_that_is_judged(levels: Levels) -> None:
    levels.start({})
    assert levels.overlay([lease(1, dinamo=10), lease(2, c10d=10)]).kind == "applied"
    assert levels.overlay([lease(3, c10d=10), lease(2, c10d=40, dynamo=40)]).reason.startswith(f"{C10D} is at ERROR")
    hidden = levels.overlay([lease(3, c10d=10), Lease(2, {"dynamo": 40}, replace=True)])
    assert hidden == Outcome("failed", "hidden by the lease of revision 2, which replaces all before it")


def test_a_disabled_logger_is_not_applied_until_it_is_forced(levels: Levels) -> None:
    levels.start({})
    logger = logging.getLogger(C10D)
    logger.disabled = True
    try:
        outcome = levels.overlay([lease(c10d=10)])
        assert outcome.kind == "failed"
        assert f"{C10D} is disabled" in outcome.reason
        assert "--force" in outcome.reason
        assert levels.overlay([lease(c10d=10, force=True)]) == Outcome("applied")
        assert logger.isEnabledFor(10)
        levels.overlay([])
        assert logger.disabled
    finally:
        logger.disabled = False


def test_logging_disable_is_named_as_the_cause(levels: Levels) -> None:
    levels.start({})
    logging.disable(logging.INFO)
    try:
        outcome = levels.overlay([lease(c10d=20)])
        assert outcome.kind == "failed"
        assert outcome.reason.startswith("logging.disable(INFO) in this program silences INFO")
        assert levels.overlay([lease(c10d=30)]) == Outcome("applied")
    finally:
        logging.disable(logging.NOTSET)


def test_torch_logs_goes_before_a_lease_unless_the_environment_says_otherwise(levels: Levels) -> None:
    levels.start({"TORCH_LOGS": "+dynamo", "TLOGS_LEASES": "over"})
    assert levels.overlay([lease(c10d=10)]) == Outcome("applied")
    assert (level_of(C10D), level_of("torch._dynamo")) == (10, 10)


def test_set_logs_warns_in_torchs_words_where_torch_logs_is_set(
    levels: Levels, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    levels.start({})
    monkeypatch.setenv("TORCH_LOGS", "garbage!")
    levels.set_logs(guards=1, modules="x")
    assert (
        "Using TORCH_LOGS environment variable for log settings, ignoring call to set_logs" in capsys.readouterr().err
    )
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'dynamoo'\. Did you mean 'dynamo'"):
        levels.set_logs(dynamoo=10)


def test_an_artifact_that_is_off_is_not_even_built(levels: Levels) -> None:
    levels.start({"TORCH_LOGS": "+all"})
    logger = levels.artifact_logger("torch._x", "bytecode")
    assert not logger.isEnabledFor(logging.CRITICAL)
    levels.overlay([lease(bytecode=True, force=True)])
    assert logger.isEnabledFor(logging.DEBUG)
    assert levels.artifact_logger("torch._x", "bytecode").isEnabledFor(logging.DEBUG)


def test_an_artifact_that_is_off_goes_on_being_built_for_a_handler_of_the_program(levels: Levels) -> None:
    levels.start({"TORCH_LOGS": "+all"})
    logger, handler = logging.getLogger("torch._y.__bytecode"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        assert levels.artifact_logger("torch._y", "bytecode").isEnabledFor(logging.DEBUG)
        levels.overlay([lease(bytecode=False, force=True)])
        assert not logger.isEnabledFor(logging.DEBUG)
    finally:
        logger.removeHandler(handler)


def test_an_unknown_artifact_is_refused_with_a_suggestion(levels: Levels) -> None:
    with pytest.raises(DirectiveError, match="unknown artifact 'guard' \\(did you mean 'guards'"):
        levels.artifact_logger("torch._x", "guard")


def test_names_of_the_program_are_known_and_labelled(levels: Levels) -> None:
    levels.start({})
    assert levels.label("my.module.__fresh") == (None, None)
    levels.register_log("mine", ("my.module",))
    levels.register_artifact(Artifact("fresh", off_by_default=True))
    levels.artifact_logger("my.module", "fresh")
    assert levels.label("my.module.__fresh") == ("mine", "fresh")
    assert levels.known("mine")
    assert levels.known("fresh")
    assert not levels.known("yours")
    levels.set_logs(modules={"mine": 10, "fresh": True})
    assert levels.report()["components"]["mine"] == {"configured": "DEBUG", "effective": "DEBUG"}
    assert levels.report()["artifacts"] == ["fresh"]


def test_a_report_says_what_is_configured_and_what_holds(levels: Levels) -> None:
    levels.start({})
    assert levels.report()["seams"] == "hooked"
    levels.set_logs(distributed=10)
    levels.overlay([lease(guards=True, fsdp=40)])
    found = levels.report()
    assert found["components"]["distributed"] == {"configured": "DEBUG", "effective": "DEBUG"}
    assert found["components"]["c10d"] == {"configured": None, "effective": "DEBUG"}
    assert found["components"]["fsdp"] == {"configured": "ERROR", "effective": "ERROR"}
    assert found["artifacts"] == ["guards"]


def test_a_bad_torch_logs_changes_nothing(levels: Levels) -> None:
    before = everything()
    with pytest.raises(DirectiveError, match="did you mean 'dynamo'"):
        levels.start({"TORCH_LOGS": "+c10d,dinamo"})
    with pytest.raises(ConfigError, match="TORCH_LOGS_FORMAT='hello'"):
        levels.start({"TORCH_LOGS": "+c10d", "TORCH_LOGS_FORMAT": "hello"})
    with pytest.raises(FileNotFoundError, match=r"TORCH_LOGS_OUT.*its directory must exist"):
        levels.start({"TORCH_LOGS": "+c10d", "TORCH_LOGS_OUT": "/no/where/x"})
    assert everything() == before


def test_torch_logs_out_and_format_are_honoured(
    levels: Levels, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out.txt"
    levels.start({"TORCH_LOGS": "c10d", "TORCH_LOGS_OUT": str(out), "TORCH_LOGS_FORMAT": "%(levelname)s=%(message)s"})
    logging.getLogger(C10D).info("first")
    assert (capsys.readouterr().err, out.read_text()) == ("INFO=first\n", "INFO=first\n")


def test_set_logs_picks_up_the_file_and_the_standard_error_of_now(
    levels: Levels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    levels.start({})
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    for name in ("a.txt", "b.txt"):
        monkeypatch.setenv("TORCH_LOGS_OUT", str(tmp_path / name))
        levels.set_logs(c10d=10)
        logging.getLogger(C10D).debug("to %s", name)
    monkeypatch.setenv("TORCH_LOGS_OUT", "/no/where/x")
    with pytest.raises(FileNotFoundError):
        levels.set_logs(c10d=40)
    logging.getLogger(C10D).debug("to b.txt again")
    assert [len((tmp_path / name).read_text().splitlines()) for name in ("a.txt", "b.txt")] == [1, 2]
    assert len(later.getvalue().splitlines()) == 3


def test_quiet_leaves_only_the_programs_own_handlers(levels: Levels, capsys: pytest.CaptureFixture[str]) -> None:
    levels.start({"TLOGS_STDERR": "quiet"})
    logging.getLogger(C10D).warning("nobody sees this")
    mine = logging.StreamHandler()
    logger = logging.getLogger("torch.onnx")
    logger.addHandler(mine)
    try:
        logger.warning("mine")
    finally:
        logger.removeHandler(mine)
    assert capsys.readouterr().err == "mine\n"


def test_two_threads_that_lay_leases_leave_one_of_both_outcomes(levels: Levels) -> None:
    levels.start({})

    def work(level: int) -> None:
        for _ in range(50):
            levels.overlay([lease(c10d=level, dynamo=level)])

    threads = [threading.Thread(target=work, args=(level,)) for level in (10, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert level_of(C10D) == level_of("torch._dynamo")
    levels.overlay([])
    assert (level_of(C10D), level_of("torch._dynamo")) == (30, 30)
