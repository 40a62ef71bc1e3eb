"""The intake: each record that passes its logger is taken once, as what the program meant."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tlogs.worker.intake import Intake
from tlogs_shared.storage.record import Fields, message_of


class Taken(NamedTuple):
    """What an append was called with."""

    levelno: int
    logger: str
    template: str
    args: Any
    message: str | None
    path: str
    line: int
    func: str
    thread: str
    extra: dict[str, Any] | None

    @property
    def text(self) -> str:
        """The message."""
        return message_of(Fields(0, *self))


@pytest.fixture
def taken() -> Iterator[list[Taken]]:
    """Everything that is taken during the test."""
    found: list[Taken] = []
    made = Intake(into(found))
    made.install()
    try:
        yield found
    finally:
        made.uninstall()
        assert made.refused == 0


@pytest.fixture
def log() -> logging.Logger:
    """A logger whose records no handler shows."""
    return lonely("test_intake")


def lonely(name: str) -> logging.Logger:
    """A logger that nobody else knows, so that pytest's own handlers do not get at it."""
    logger = logging.Logger(name, logging.DEBUG)  # noqa: LOG001 - see above
    logger.addHandler(logging.NullHandler())
    return logger


def handled(name: str) -> logging.Logger:
    """As `lonely`, with a handler that would format."""
    logger = lonely(name)
    handler = logging.Handler()
    handler.emit = lambda record: None  # type: ignore[method-assign]
    logger.addHandler(handler)
    return logger


def into(found: list[Any]) -> Callable[..., bool]:
    """An append that puts what it is called with into a list."""

    def append(*values: Any) -> bool:
        found.append(Taken(*values))
        return True

    return append


def test_a_record_is_taken_with_all_its_fields(taken: list[Taken], log: logging.Logger) -> None:
    for _ in range(2):  # the second time on the short way, where everything is known
        log.info("step %d %s", 5, "x")
        line = sys._getframe().f_lineno - 1
    path = os.path.relpath(__file__, next((root for root in sys.path if root and __file__.startswith(root)), "/"))
    for record in taken:
        assert record[:5] == (20, log.name, "step %d %s", (5, "x"), None)
        assert record.path in (path, os.path.realpath(__file__))
        assert record[6:] == (line, "test_a_record_is_taken_with_all_its_fields", "MainThread", None)
    assert len(taken) == 2


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("arguments", "args", "message"),
    [
        (("plain %",), None, None),
        (("%d %s %f %r %s", 1, "a", 1.5, True, None), (1, "a", 1.5, True, None), None),
        (("%(a)s %(b)d", {"a": "x", "b": 2}), {"a": "x", "b": 2}, None),
        (("%s", [1, 2]), None, "[1, 2]"),
        (("%s %s", (1, 2), 3), None, "(1, 2) 3"),
        (("%s", {"a": object}), None, "{'a': <class 'object'>}"),
        (("%s", {1: 2}), None, "{1: 2}"),
        (("%s", math.inf), (math.inf,), None),
        (("%d", 2**70), (2**70,), None),
        (("%s", logging.INFO.__class__), None, "<class 'int'>"),
    ],
)
def test_arguments_travel_or_are_settled(
    taken: list[Taken], log: logging.Logger, arguments: Any, args: Any, message: str | None, times: int
) -> None:
    for _ in range(times):
        log.info(*arguments)
    for record in taken:
        assert (record.template, record.args, record.message) == (arguments[0], args, message)
        assert record.text == logging.LogRecord("", 0, "", 0, arguments[0], arguments[1:], None).getMessage()
    assert len(taken) == times


def test_a_message_need_not_be_a_text(taken: list[Taken], log: logging.Logger) -> None:
    log.info(ValueError("boom"))
    log.info(7)
    log.debug({"func_name": "all_reduce", "error": ValueError("x"), "world_size": 4})
    assert [record.text for record in taken[:2]] == ["boom", "7"]
    assert taken[2].template.startswith("{'func_name': 'all_reduce'")
    assert taken[2].extra == {"fields": {"func_name": "all_reduce", "error": "ValueError('x')", "world_size": 4}}


def test_arguments_that_do_not_fit_or_cannot_be_formatted_are_shown(taken: list[Taken]) -> None:
    log = handled("test_intake")

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    log.info("%d", "a")
    log.info("%s", Broken())
    log.info(Broken())
    assert taken[0].text == "%d ('a',) (the arguments do not fit the template)"
    assert "RuntimeError when it was formatted" in taken[1].text
    assert len(taken) == 3


def test_an_exception_travels_as_logging_prints_it(taken: list[Taken], log: logging.Logger) -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("it %s", "failed", stack_info=True)
    record = taken[0]
    assert record.extra is not None
    assert record.extra["exc"].startswith("Traceback (most recent call last):\n")
    assert record.extra["exc"].endswith("ValueError: boom")
    assert record.extra["stack"].startswith("Stack (most recent call last):\n")
    assert (record.template, record.args) == ("it %s", ("failed",))


def test_taking_an_exception_leaves_the_record_as_it_was(log: logging.Logger, taken: list[Taken]) -> None:
    seen: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(dict(record.__dict__))  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("x %s", [1])
    assert seen[0]["exc_text"] is None
    assert "message" not in seen[0]
    assert seen[0]["args"] == ([1],)


def test_fields_of_the_user_travel_as_primitives_or_as_texts(taken: list[Taken], log: logging.Logger) -> None:
    log.info("x", extra={"step": 5, "loss": 0.5, "name_": "a", "none": None, "shape": (1, 2), "big": 2**70})
    assert taken[0].extra == {
        "fields": {"step": 5, "loss": 0.5, "name_": "a", "none": None, "shape": "(1, 2)", "big": str(2**70)}
    }


def test_what_formatters_leave_behind_is_no_field_of_the_user(taken: list[Taken], log: logging.Logger) -> None:
    record = log.makeRecord(log.name, 20, __file__, 1, "x", (), None)
    logging.Formatter("%(asctime)s %(message)s").format(record)
    log.handle(record)
    assert taken[0].extra is None


def test_a_level_with_a_name_of_its_own_keeps_it(taken: list[Taken], log: logging.Logger) -> None:
    logging.addLevelName(25, "NOTICE")
    try:
        log.log(25, "x")
        log.log(26, "y")
    finally:
        logging._levelToName.pop(25)
        logging._nameToLevel.pop("NOTICE")
    assert [(record.levelno, record.extra) for record in taken] == [(25, {"levelname": "NOTICE"}), (26, None)]


@pytest.mark.parametrize("name", ["tlogs", "tlogs.forwarder", "zmq", "zmq.auth", "torch.__trace"])
def test_loggers_of_the_transport_are_not_taken(taken: list[Taken], name: str) -> None:
    lonely(name).warning("x")
    assert taken == []


def test_names_that_only_begin_alike_are_taken(taken: list[Taken]) -> None:
    for name in ("tlogsx", "zmqtt", "torch.__tracer"):
        lonely(name).warning("x")
    assert len(taken) == 3


def test_a_record_made_by_hand_gets_fields_of_the_right_types(taken: list[Taken], log: logging.Logger) -> None:
    for _ in range(2):
        log.handle(logging.makeLogRecord({"name": log.name, "msg": "x", "levelno": 20, "lineno": None}))
        log.handle(logging.makeLogRecord({"name": log.name, "msg": "x", "levelno": 0, "threadName": None}))
    for record in taken:
        assert [type(value) for value in record] == [
            *(int, str, str, type(None), type(None), str, int, str, str),
            type(record.extra),
        ]
    assert len(taken) == 4


def test_what_a_filter_rejects_is_not_taken(taken: list[Taken], log: logging.Logger) -> None:
    log.addFilter(lambda record: record.levelno > 20)
    log.info("no")
    log.warning("yes")
    assert [record.template for record in taken] == ["yes"]


def test_what_a_filter_changes_is_taken_as_changed(taken: list[Taken], log: logging.Logger) -> None:
    def change(record: logging.LogRecord) -> bool:
        record.msg, record.step = "changed", 7
        return True

    log.addFilter(change)
    log.info("original")
    assert (taken[0].template, taken[0].extra) == ("changed", {"fields": {"step": 7}})


@pytest.mark.skipif(sys.version_info < (3, 12), reason="filters answer yes or no before 3.12")
def test_a_record_that_a_filter_puts_in_the_place_of_the_first_is_taken(
    taken: list[Taken], log: logging.Logger
) -> None:
    def replace(record: logging.LogRecord) -> Any:
        return logging.makeLogRecord({**record.__dict__, "msg": "other"})

    log.addFilter(replace)
    log.info("original")
    assert [record.template for record in taken] == ["other"]


def test_a_disabled_logger_is_not_taken(taken: list[Taken], log: logging.Logger) -> None:
    log.disabled = True
    log.error("x")
    log.disabled = False
    assert taken == []


def test_an_artifact_is_taken_only_where_torch_would_deliver_it(taken: list[Taken]) -> None:
    logger: Any = logging.getLogger("test_intake.module.__schedule")
    logger.artifact_name = "schedule"
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.debug("off")
    logger.propagate = True
    logger.debug("on")
    logger.propagate = False
    handler = logging.NullHandler()
    logger.addHandler(handler)
    logger.debug("handled")
    logger.removeHandler(handler)
    assert [(record.template, record.extra) for record in taken] == [
        ("on", {"artifact": "schedule"}),
        ("handled", {"artifact": "schedule"}),
    ]


def test_a_trace_id_is_asked_for_torch_only(log: logging.Logger) -> None:
    found: list[Any] = []
    intake = Intake(into(found), trace_id=lambda: "0/1")
    for name in ("torch._dynamo.guards", "mine"):
        intake.take(logging.LogRecord(name, logging.INFO, __file__, 1, "x", (), None))
    assert [record.extra for record in found] == [{"trace_id": "0/1"}, None]


def test_a_text_that_logs_itself_does_not_recurse_for_ever(taken: list[Taken]) -> None:
    log = handled("test_intake")

    class Chatty:
        def __repr__(self) -> str:
            log.debug("made a text of %s", self)
            return "chatty"

    log.info("%s", Chatty())
    assert 1 < len(taken) < 10
    assert taken[-1].text == "chatty"


def test_an_error_inside_never_reaches_the_caller(log: logging.Logger) -> None:
    def refuse(*_: object) -> bool:
        raise RuntimeError("broken")

    intake = Intake(refuse)
    intake.install()
    try:
        log.info("x")
        log.info("x")
    finally:
        intake.uninstall()
    assert intake.refused == 2


def test_where_a_record_cannot_be_taken_another_says_so() -> None:
    def fail() -> str:
        raise RuntimeError("broken")

    found: list[Taken] = []
    intake = Intake(into(found), trace_id=fail)
    intake.install()
    try:
        lonely("torch.test_intake").info("x")
    finally:
        intake.uninstall()
    text = "a record of torch.test_intake could not be taken: RuntimeError('broken')"
    assert [(record.levelno, record.logger, record.text) for record in found] == [(logging.WARNING, "tlogs", text)]
    assert intake.refused == 1


def test_uninstalling_leaves_logging_as_it_was(log: logging.Logger) -> None:
    found: list[Any] = []
    before = logging.Logger.filter
    intake = Intake(into(found))
    intake.install()
    intake.install()
    log.info("x")
    intake.uninstall()
    log.info("y")
    assert len(found) == 1
    assert logging.Logger.filter is before


def test_two_tools_on_one_seam_both_see_each_record_once(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    seen: list[Any] = []
    monkeypatch.setattr(logging.Logger, "filter", logging.Logger.filter)
    intake = Intake(into(found))
    intake.install()
    ours = logging.Logger.filter

    def theirs(self: logging.Logger, record: logging.LogRecord) -> Any:
        seen.append(record)
        return ours(self, record)

    monkeypatch.setattr(logging.Logger, "filter", theirs)
    log.info("x")
    intake.uninstall()
    log.info("y")
    intake.install()
    log.info("z")
    assert (len(found), len(seen)) == (2, 3)
    intake.uninstall()


def test_records_of_all_threads_are_taken_with_their_names(taken: list[Taken], log: logging.Logger) -> None:
    threads = [threading.Thread(target=log.info, args=("x",), name=f"worker{index}") for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record.thread for record in taken) == [f"worker{index}" for index in range(4)]


def test_a_filter_of_the_base_class_that_was_replaced_before_has_its_say(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = logging.Filterer.filter
    monkeypatch.setattr(
        logging.Filterer, "filter", lambda self, record: "no" not in record.msg and before(self, record)
    )
    found: list[Taken] = []
    intake = Intake(into(found))
    intake.install()
    try:
        for text in ("yes", "no"):
            log.info(text)
        monkeypatch.undo()
        log.info("no more")
    finally:
        intake.uninstall()
    assert [record.template for record in found] == ["yes", "no more"]


@pytest.mark.parametrize(("stores", "count"), [(True, 0), (False, 1)])
def test_a_record_of_another_process_is_taken_where_that_does_not_store_it(
    log: logging.Logger, stores: bool, count: int
) -> None:
    found: list[Taken] = []
    asked: list[int] = []

    def ask(pid: int) -> bool:
        asked.append(pid)
        return stores

    intake = Intake(into(found), stores=ask)
    intake.install()
    try:
        for process in (os.getpid() + 1, os.getpid(), None):
            log.handle(logging.makeLogRecord({"name": log.name, "msg": "x", "levelno": 20, "process": process}))
    finally:
        intake.uninstall()
    assert (len(found), asked) == (count + 2, [os.getpid() + 1])


def test_a_class_of_loggers_whose_records_cannot_be_taken_is_named(
    taken: list[Taken], caplog: pytest.LogCaptureFixture
) -> None:
    class Prints(logging.Logger):
        def handle(self, record: logging.LogRecord) -> None:
            print(record.msg)

    text = f"tlogs: {Prints.__module__}.{Prints.__qualname__}.handle() asks no filter: records of such loggers are not"
    assert [record.getMessage() for record in caplog.records] == [f"{text} collected"]
    Prints("a").warning("x")
    assert taken == []


def test_append_may_be_replaced(log: logging.Logger) -> None:
    first: list[Any] = []
    second: list[Any] = []
    intake = Intake(into(first))
    intake.install()
    log.info("x")
    intake.append = into(second)
    log.info("y")
    intake.uninstall()
    assert (len(first), len(second)) == (1, 1)


def test_a_record_of_names_that_the_program_registered_says_so() -> None:
    """A reader knows torch's names by the logger; those of the program have to travel."""
    found: list[Taken] = []
    labels = {"mine.core": ("core", None), "torch._dynamo": ("dynamo", None)}
    made = Intake(into(found), label=lambda name: labels.get(name, (None, None)))
    made.install()
    try:
        for name in ("mine.core", "torch._dynamo", "other"):
            for _ in range(2):
                lonely(name).warning("x")
    finally:
        made.uninstall()
    assert [record.extra for record in found] == [{"component": "core"}] * 2 + [None] * 4


@pytest.mark.parametrize("args", [tuple(range(5000)), ({str(n): n for n in range(5000)},)])
def test_a_message_of_thousands_of_arguments_is_settled_here(
    taken: list[Taken], log: logging.Logger, args: tuple[Any, ...]
) -> None:
    """A reader refuses arrays that are longer than any record needs."""
    template = "%s " * 5000 if len(args) > 1 else "%(17)s"
    for _ in range(2):
        log.info(template, *args)
    for record in taken:
        assert record.args is None
        assert record.message == template % (args if len(args) > 1 else args[0])
    assert len(taken) == 2


def test_a_path_object_in_sys_path_costs_no_record(
    taken: list[Taken], log: logging.Logger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Python passes over what is no text there, and so do we."""
    monkeypatch.setattr(sys, "path", [tmp_path, *sys.path])
    log.info("one")
    assert [record.text for record in taken] == ["one"]


def test_a_relative_path_whose_directory_was_removed_is_taken_as_it_stands(
    taken: list[Taken], log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    log.handle(logging.LogRecord(log.name, logging.INFO, "<removed>", 1, "one", (), None))
    assert [record.path for record in taken] == ["<removed>"]
