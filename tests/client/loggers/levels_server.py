"""Answers, case by case, what torch or tlogs makes of settings; run as a script by the tests, one fork for each case.

`levels_server.py torch` asks torch itself, `loaded` asks tlogs with torch loaded, `absent` asks tlogs where no torch
can be imported, `late` where it is not imported yet. A question is a line of JSON on standard input, a number and a
case; its answer is a line of JSON on standard output, the same number, what was found, and why nothing was, or null::

    [1, {"env": TORCH_LOGS or null, "steps": [["set_logs", {"c10d": 10}], …], "probe": [logger, …]}]
    [1, [{"error": class names or [], "warned": count, "loggers": {logger: [effective level, shown, taken]}}, …], null]

What was found has one map for TORCH_LOGS and one for each step. *shown* counts by level (DEBUG to ERROR) how often a
record stood on the standard error, *taken* whether tlogs may take it. A call that fails in torch is left out
altogether: tlogs promises that it changes nothing, and torch does not.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import sys
import traceback
from typing import Any

LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
ENV = "TORCH_LOGS"


class Torch:
    """torch itself. A package stands for its one logger, as in 2.8 and in tlogs, not for all modules in it."""

    def __init__(self) -> None:
        from torch._logging import _internal

        self.internal: Any = _internal
        self.internal._get_module_and_submodules = lambda name: [name]

    def start(self) -> None:
        if os.environ.get(ENV) == "":  # at which torch dies; tlogs takes it for an empty list
            del os.environ[ENV]
            self.internal._init_logs()
            os.environ[ENV] = ""
            return
        self.internal._init_logs()

    def set_logs(self, settings: dict[str, Any]) -> None:
        # It is tried in a fork first: that a failing call changes nothing is what tlogs promises, and torch does not.
        read, write = os.pipe()
        trial = os.fork()
        if trial == 0:
            try:
                self.internal.set_logs(**settings)
            except BaseException as error:  # noqa: BLE001 - whatever torch raises
                os.write(write, pickle.dumps(type(error)))
            os._exit(0)
        os.waitpid(trial, 0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            raised = pipe.read()
        if raised:
            raise pickle.loads(raised)
        self.internal.set_logs(**settings)

    def artifact(self, module: str, name: str) -> None:
        self.internal.getArtifactLogger(module, name)

    def register_log(self, alias: str, loggers: list[str]) -> None:
        self.internal.register_log(alias, loggers)

    def register_artifact(self, name: str, off: bool) -> None:
        self.internal.register_artifact(name, "", off_by_default=off)

    def import_torch(self) -> None:
        """It is."""


class Tlogs:
    """tlogs, in whatever it finds."""

    def start(self) -> None:
        from tlogs.loggers.controller import LEVELS

        LEVELS.start(os.environ)

    def set_logs(self, settings: dict[str, Any]) -> None:
        from tlogs.loggers.torch_api import set_logs

        set_logs(**settings)

    def artifact(self, module: str, name: str) -> None:
        from tlogs.loggers.torch_api import getArtifactLogger

        getArtifactLogger(module, name)

    def register_log(self, alias: str, loggers: list[str]) -> None:
        from tlogs.loggers.torch_api import register_log

        register_log(alias, loggers)

    def register_artifact(self, name: str, off: bool) -> None:
        from tlogs.loggers.torch_api import register_artifact

        register_artifact(name, "", off_by_default=off)

    def script_set_logs(self, settings: dict[str, Any]) -> None:
        """What a script does that knows nothing of tlogs."""
        from torch._logging import set_logs

        set_logs(**settings)

    def import_torch(self) -> None:
        import torch  # noqa: F401

    def set_level(self, logger: str, level: int) -> None:
        logging.getLogger(logger).setLevel(level)

    def overlay(self, *leases: dict[str, Any]) -> list[str]:
        from tlogs.loggers.controller import LEVELS
        from tlogs_shared.protocol.lease import Lease

        outcome = LEVELS.overlay([Lease(**{"revision": number, **lease}) for number, lease in enumerate(leases)])
        return [outcome.kind, outcome.reason]

    def break_seams(self) -> None:
        """As with a torch whose functions have other names."""
        from tlogs.loggers.controller import LEVELS

        LEVELS._base._kept.unhook()  # type: ignore[union-attr]

    def check(self) -> bool:
        from tlogs.loggers.controller import LEVELS

        return LEVELS.check()

    def report(self) -> dict[str, Any]:
        from tlogs.loggers.controller import LEVELS

        return LEVELS.report()

    def stop(self) -> None:
        from tlogs.loggers.controller import LEVELS

        LEVELS.stop()


class LoadedTlogs(Tlogs):
    """tlogs where torch was imported before: torch has done TORCH_LOGS then."""

    def start(self) -> None:
        Torch().start()
        super().start()


def observe(probe: list[str], stderr: io.StringIO, quiet_artifacts: bool) -> dict[str, Any]:
    """What comes out of each logger just now."""
    taken: set[tuple[str, int]] = set()

    def take(self: logging.Logger, record: logging.LogRecord) -> None:
        # torch drops the records of an artifact that is off only after they were made; tlogs lets none be made.
        if not (quiet_artifacts and ".__" in self.name and not self.propagate):
            taken.add((self.name, record.levelno))
        original(self, record)

    original, logging.Logger.callHandlers = logging.Logger.callHandlers, take  # type: ignore[method-assign]
    found: dict[str, Any] = {}
    for name in probe:
        logger = logging.getLogger(name)
        shown = []
        for level in LEVELS:
            stderr.seek(0)
            stderr.truncate()
            logger.log(level, "<record>")
            shown.append(stderr.getvalue().count("<record>"))
        effective = None if ".__" in name else logger.getEffectiveLevel()
        found[name] = [effective, shown, [int((name, level) in taken) for level in LEVELS]]
    logging.Logger.callHandlers = original  # type: ignore[method-assign]
    return found


def answer(case: dict[str, Any], side: Torch | Tlogs) -> list[dict[str, Any]]:
    """Run one case from beginning to end."""
    logging.lastResort = None
    logging.raiseExceptions = False
    sys.stderr = stderr = io.StringIO()
    for logger in logging.root.manager.loggerDict.values():
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            if type(handler) is logging.StreamHandler:
                handler.setStream(stderr)
    os.environ.pop(ENV, None)
    if case["env"] is not None:
        os.environ[ENV] = case["env"]
    found = []
    for name, *arguments in [["start"], *case["steps"]]:
        error: list[str] = []
        result = None
        stderr.seek(0)
        stderr.truncate()
        try:
            if name == "setenv":
                os.environ.pop(ENV, None)
                if arguments[0] is not None:
                    os.environ[ENV] = arguments[0]
            else:
                result = getattr(side, name)(*arguments)
        except Exception as raised:  # noqa: BLE001 - its class is what is asked for
            error = [kind.__name__ for kind in type(raised).__mro__]
        warned = stderr.getvalue().count("ignoring call to set_logs")
        loggers = observe(case["probe"], stderr, isinstance(side, Torch))
        found.append({"error": error, "warned": warned, "loggers": loggers})
        if result is not None:
            found[-1]["result"] = result
        if error and name == "start":
            break
    return found


def main() -> None:
    mode, *paths = sys.argv[1:]
    sys.path[:0] = paths
    os.environ.pop(ENV, None)
    if mode == "absent":
        sys.modules["torch"] = None  # type: ignore[assignment]  # importlib's way to say that there is none
    elif mode != "late":
        import torch  # noqa: F401
    side: Torch | Tlogs = Torch() if mode == "torch" else LoadedTlogs() if mode == "loaded" else Tlogs()
    if mode != "torch":
        import tlogs.loggers.torch_api  # noqa: F401
    print("ready", flush=True)
    for line in sys.stdin:
        number, case = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                print(json.dumps([number, answer(case, side), None]), flush=True)
            except BaseException:  # noqa: BLE001 - the test that asked shows it
                print(json.dumps([number, None, traceback.format_exc()]), flush=True)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps([number, None, f"the process of this case ended with {status}"]), flush=True)


if __name__ == "__main__":
    main()
