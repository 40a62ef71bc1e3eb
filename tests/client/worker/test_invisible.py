"""tlogs is invisible: whatever a script does to logging, its console is the same byte for byte with and without.

And every record that passes its logger's level and filters arrives once, even where no handler shows it. Each case is
a script that runs in a fresh interpreter, once with tlogs and once without; `arrives` in it collects what should.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.limits import scaled

from tlogs.outbox.dead import open_dead
from tlogs_shared.storage.record import message_of, unpack_all

pytestmark = pytest.mark.multiprocess

# Run by the interpreter before the script, so that no frame of ours is below the script's own.
SITE = """
import os
path = os.environ.pop("OUTBOX")
if path:
    import atexit
    from tlogs.worker.crash import CrashHooks
    from tlogs.worker.intake import Intake
    from tlogs.outbox.outbox import Outbox
    outbox = Outbox(path, stream=bytes(16), meta={}, capacity=4 << 20)
    intake = Intake(outbox.append)
    intake.install()
    hooks = CrashHooks(intake, side_file=path + ".fault")
    hooks.install()
else:
    import atexit, logging, threading, contextlib  # what tlogs imports of the standard library
"""

CASES = {
    "basicConfig": """
        import logging
        log = logging.getLogger("a.b")
        log.warning("before")
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(funcName)s %(message)s")
        logging.basicConfig(level=logging.DEBUG)  # without effect, as always
        log.info("after %d", 1)
        log.debug("below the level")
        logging.basicConfig(level=logging.DEBUG, format="forced %(message)s", force=True)
        log.debug("forced")
        logging.info("root")
        # arrives: before | after 1 | forced | root
    """,
    "basicConfig by a first call": """
        import logging
        logging.warning("first")
        logging.getLogger("a").warning("second")
        # arrives: first | second
    """,
    "dictConfig": """
        import logging, logging.config
        old, child = logging.getLogger("old"), logging.getLogger("old.child")
        config = {"version": 1, "formatters": {"f": {"format": "%(name)s|%(message)s"}},
                  "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f", "stream": "ext://sys.stdout"}},
                  "root": {"level": "INFO", "handlers": ["h"]}, "loggers": {"named": {"level": "DEBUG"}}}
        for keep in (True, False):
            logging.config.dictConfig({**config, "disable_existing_loggers": not keep})
            old.warning("old %s", keep)
            child.warning("child %s", keep)
            logging.getLogger("named").debug("named %s", keep)
            logging.getLogger(f"new{keep}").info("new")
        # arrives: old True | child True | named True | new | named False | new
    """,
    "fileConfig": """
        import io, logging, logging.config
        old = logging.getLogger("old")
        text = '''
        [loggers]
        keys=root
        [handlers]
        keys=h
        [formatters]
        keys=f
        [logger_root]
        level=INFO
        handlers=h
        [handler_h]
        class=StreamHandler
        args=(sys.stderr,)
        formatter=f
        [formatter_f]
        format=%(levelname)s:%(message)s
        '''
        for keep in (True, False):
            logging.config.fileConfig(io.StringIO(text), disable_existing_loggers=not keep)
            old.warning("old %s", keep)
            logging.getLogger(f"new{keep}").info("new")
        # arrives: old True | new | new
    """,
    "handlers cleared": """
        import logging
        logging.basicConfig()
        logging.warning("shown")
        logging.getLogger().handlers.clear()
        logging.getLogger("a").warning("lastResort")
        logging.lastResort = None
        logging.getLogger("a").warning("nobody")
        logging.getLogger("b").warning("nobody again")
        # arrives: shown | lastResort | nobody | nobody again
    """,
    "disable": """
        import logging
        logging.disable(logging.WARNING)
        logging.getLogger("a").warning("no")
        logging.getLogger("a").error("yes")
        logging.disable(logging.NOTSET)
        logging.getLogger("a").warning("again")
        # arrives: yes | again
    """,
    "lastResort": """
        import logging
        logging.getLogger("a").warning("w %s", "x")
        logging.getLogger("a").info("i")
        try: 1 / 0
        except ZeroDivisionError: logging.getLogger("a").exception("e")
        # arrives: w x | e
    """,
    "stderr replaced": """
        import io, logging, sys
        logging.getLogger("a").warning("on the real one")
        handler = logging.StreamHandler()
        logging.getLogger("b").addHandler(handler)
        real, sys.stderr = sys.stderr, io.StringIO()
        logging.getLogger("a").warning("lastResort on the new one")
        logging.getLogger("b").warning("handler on the old one")
        text, sys.stderr = sys.stderr.getvalue(), real
        print(repr(text))
        # arrives: on the real one | lastResort on the new one | handler on the old one
    """,
    "stderr closed": """
        import logging, sys
        logging.basicConfig()
        sys.stderr.close()
        try: logging.warning("into nowhere")
        except ValueError as error: print(error)
        # arrives: into nowhere
    """,
    "logging error": """
        import logging
        logging.basicConfig(format="%(message)s")
        def inner(): logging.getLogger("a").warning("%d apples", "many")
        def outer(): inner()
        outer()
        class Broken:
            def __str__(self): raise RuntimeError("no text")
            __repr__ = __str__
        try: logging.getLogger("a").warning("%s", Broken())
        except RuntimeError as error: print("raised", error)
        class Bad(logging.Handler):
            def emit(self, record):
                try: raise OSError("disk")
                except OSError: self.handleError(record)
        logging.getLogger("b").addHandler(Bad())
        logging.getLogger("b").warning("bad handler")
        # arrives: %d apples ['many'] (the arguments do not fit the template) | re:.*RuntimeError.* | bad handler
    """,
    "a handler that raises": """
        import logging, traceback
        class Raises(logging.Handler):
            def emit(self, record): raise ValueError("from the handler")
        log = logging.getLogger("a")
        log.addHandler(Raises())
        try: log.warning("w")
        except ValueError: traceback.print_exc()
        log.warning("uncaught")
        # arrives: w | uncaught | uncaught ValueError: from the handler
    """,
    "filters": """
        import logging
        logging.basicConfig(format="%(message)s %(user)s")
        log = logging.getLogger("a")
        def change(record):
            record.user = "me"
            record.msg = "changed: " + record.msg
            return record.levelno != logging.ERROR
        log.addFilter(change)
        log.warning("%s", "x")
        log.error("rejected")
        class Only(logging.Filter): pass
        log.filters.clear()
        log.addFilter(Only("b"))
        log.error("not b")
        log.removeFilter(log.filters[0])
        logging.getLogger().handlers[0].addFilter(lambda record: setattr(record, "user", "handler's") or False)
        log.error("not shown")
        # arrives: changed: x | not shown
    """,
    "a filter that raises": """
        import logging, traceback
        class Object:
            def filter(self, record): raise ValueError("from an object")
        def function(record): raise ValueError("from a function")
        for refuse in (Object(), function):
            log = logging.getLogger(str(refuse))
            log.addFilter(refuse)
            try: log.warning("w")
            except ValueError: traceback.print_exc()
        log.warning("uncaught")
        # arrives: uncaught ValueError: from a function
    """,
    "a filter that looks at its caller": """
        import logging, sys, warnings
        logging.basicConfig(format="%(filename)s:%(lineno)d %(funcName)s %(message)s")
        def look(record):
            frames = [frame := sys._getframe(1)]
            while frame := frame.f_back: frames.append(frame)
            for frame in frames:
                print(frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno, frame.f_globals["__name__"])
            for level in range(1, 6):
                logging.getLogger("b").warning("stacklevel %d", level, stacklevel=level)
                warnings.warn(f"stacklevel {level}", stacklevel=level)
            return True
        def caller(): logging.getLogger("a").warning("looked at")
        logging.getLogger("a").addFilter(look)
        caller()
        # arrives: stacklevel 1 | stacklevel 2 | stacklevel 3 | stacklevel 4 | stacklevel 5 | looked at
    """,
    "Filterer.filter replaced": """
        import logging
        before = logging.Filterer.filter
        def theirs(self, record):
            print("asked:", record.getMessage())
            return record.levelno != logging.ERROR and before(self, record)
        logging.Filterer.filter = theirs
        log = logging.getLogger("a")
        log.addFilter(lambda record: "no" not in record.msg)
        for message in ("yes", "no"):
            log.warning(message)
            log.error(message)
        logging.Filterer.filter = before
        log.error("again")
        # arrives: yes | again
    """,
    "loggers with a filter or a handle of their own": """
        import logging
        logging.basicConfig(format="%(message)s")
        class Choosy(logging.Logger):
            def filter(self, record): return super().filter(record) and "no" not in record.msg
        class Choosier(Choosy):
            def filter(self, record): return super().filter(record) and "perhaps" not in record.msg
        class Asks(logging.Logger):
            def handle(self, record):
                if self.filter(record): self.callHandlers(record)
        class Direct(logging.Logger):
            def handle(self, record):
                if "no" not in record.msg: self.callHandlers(record)
        class Passes(logging.Logger):
            def handle(self, record): super().handle(record)
        class Child(Direct): pass
        for kind in (Choosy, Choosier, Asks, Direct, Passes, Child):
            logging.setLoggerClass(kind)
            log = logging.getLogger(kind.__name__)
            for text in ("no", "perhaps", "yes"): log.warning(kind.__name__ + " " + text)
        # arrives: Choosy perhaps | Choosy yes | Choosier yes | Asks no | Asks perhaps | Asks yes | Direct perhaps | \
    Direct yes | Passes no | Passes perhaps | Passes yes | Child perhaps | Child yes
    """,
    "logging loaded anew": """
        import importlib, logging
        old = logging.getLogger("old")
        importlib.reload(logging)
        new = logging.getLogger("new")
        assert type(new) is not type(old)
        old.warning("old")
        new.warning("new")
        class Mine(logging.Logger):
            def filter(self, record): return super().filter(record) and "no" not in record.msg
        Mine("mine").warning("no")
        Mine("mine").warning("mine")
        # arrives: old | new | mine
    """,
    "arguments that nobody would have formatted": """
        import logging, threading
        log = logging.getLogger("a")
        log.setLevel(logging.DEBUG)
        logging.basicConfig(level=logging.WARNING, format="%(message).50s")
        logging.getLogger().handlers[0].setLevel(logging.WARNING)
        lock = threading.Lock()
        class Locked:
            def __repr__(self):
                with lock: return "locked"
        class Leaves:
            def __repr__(self): raise SystemExit(3)
            __str__ = __repr__
        class Long:
            def __repr__(self): return "x" * 3_000_000
        with lock:
            log.debug("%s", Locked())
            log.debug("%s %r", [Locked()], {"a": Locked()}, extra={"more": Locked()})
        log.debug("%s", Leaves())
        log.debug("%5.1f %r", 1.0, Long())
        log.warning("%s", Long())
        try: log.warning("%s", Leaves())
        except SystemExit as error: print("raised", error)
        log.debug("end")
        # arrives: re:<__main__.Locked object at 0x.*> | re:\\[<__main__.Locked.*>\\] \\{'a': <__main__.Locked.*>\\} | \
    re:<__main__.Leaves object at .*> | re:  1.0 <__main__.Long object at .*> | re:x{9999}.* | re:.*SystemExit.* | end
    """,
    "time mocked": """
        import logging, time
        from unittest import mock
        logging.basicConfig(format="%(message)s")
        def fail(*_): raise AssertionError("asked for the time")
        names = ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep", "time_ns", "localtime")
        with mock.patch.multiple(time, **dict.fromkeys(names, fail)), mock.patch("time.time", side_effect=[1.0, 2.0]):
            if logging.LogRecord.__init__.__code__.co_names.count("time_ns"): time.time_ns = lambda: 10**9
            for n in range(2): logging.getLogger("a").warning("w %d", n)
        # arrives: w 0 | w 1
    """,
    "adapters and factories": """
        import logging
        logging.basicConfig(format="%(message)s %(step)s %(host)s")
        factory = logging.getLogRecordFactory()
        def make(*args, **kwargs):
            record = factory(*args, **kwargs)
            record.host = "n1"
            return record
        logging.setLogRecordFactory(make)
        class Adapter(logging.LoggerAdapter):
            def process(self, msg, kwargs): return f"[{self.extra['step']}] {msg}", {**kwargs, "extra": self.extra}
        Adapter(logging.getLogger("a"), {"step": 3}).warning("loss %.1f", 0.5)
        # arrives: [3] loss 0.5
    """,
    "queue": """
        import logging, logging.handlers, queue
        shown = logging.StreamHandler()
        shown.setFormatter(logging.Formatter("%(threadName)s %(name)s %(message)s"))
        q = queue.Queue()
        listener = logging.handlers.QueueListener(q, shown)
        listener.start()
        logging.getLogger().addHandler(logging.handlers.QueueHandler(q))
        logging.getLogger("a").warning("through the queue %s", [1])
        try: 1 / 0
        except ZeroDivisionError: logging.getLogger("a").exception("with an exception")
        listener.stop()
        # arrives: through the queue [1] | with an exception
    """,
    "handlers that change the record": """
        import logging
        class Colour(logging.StreamHandler):
            def emit(self, record):
                record.levelname = f"<{record.levelname}>"
                record.msg, record.args, record.exc_text = record.getMessage() + "!", (), "short"
                super().emit(record)
        logging.basicConfig(handlers=[Colour(), logging.StreamHandler()], format="%(levelname)s %(message)s")
        logging.getLogger("a").warning("x %d", 5)
        # arrives: x 5
    """,
    "a handler that prints itself": """
        import logging, sys
        class Rich(logging.Handler):
            def emit(self, record):
                try:
                    message = self.format(record)
                    path = record.pathname.rsplit("/", 1)[-1]
                    sys.stdout.write(f"{record.levelname:8} {message:40} {path}:{record.lineno}\\n")
                except Exception: self.handleError(record)
        logging.basicConfig(level="NOTSET", format="%(message)s", datefmt="[%X]", handlers=[Rich()])
        log = logging.getLogger("rich")
        log.info("Hello, World!")
        log.debug("deep")
        try: print(1 / 0)
        except Exception: log.exception("unable print!")
        # arrives: Hello, World! | deep | unable print!
    """,
    "parents and children": """
        import logging
        for name in ("", "p", "p.c"):
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter(f"{name or 'root'}: %(message)s"))
            logging.getLogger(name).addHandler(handler)
        logging.getLogger("p.c").warning("three times")
        logging.getLogger("p").propagate = False
        logging.getLogger("p.c").warning("twice")
        logging.getLogger("p").setLevel(logging.ERROR)
        logging.getLogger("p.c").warning("not at all")
        logging.getLogger("p").disabled = True
        logging.getLogger("p").error("disabled")
        # arrives: three times | twice
    """,
    "absl": """
        import logging, sys
        class ABSLLogger(logging.getLoggerClass()):
            # As absl.logging.ABSLLogger: it does not ask whether it is disabled, and looks for the caller by itself.
            def findCaller(self, stack_info=False, stacklevel=1): return "absl.py", 7, "f", None
            def critical(self, msg, *args, **kwargs): self.log(logging.CRITICAL, msg, *args, **kwargs)
            def log(self, level, msg, *args, **kwargs): super().log(level, msg, *args, **kwargs)
            def handle(self, record):
                if self.filter(record): self.callHandlers(record)
        class ABSLHandler(logging.Handler):
            def emit(self, record):
                sys.stderr.write(f"{record.levelname[0]} {record.filename}:{record.lineno}] {self.format(record)}\\n")
        logging.setLoggerClass(ABSLLogger)
        log = logging.getLogger("absl")
        logging.setLoggerClass(logging.Logger)
        log.addHandler(ABSLHandler())
        log.propagate = False
        log.warning("w %d", 1)
        log.disabled = True
        log.handle(log.makeRecord("absl", 50, "absl.py", 7, "not disabled for absl", (), None))
        # arrives: w 1 | not disabled for absl
    """,
    "subclasses": """
        import logging
        logging.basicConfig(format="%(message)s")
        class Mine(logging.Logger):
            def makeRecord(self, *args, **kwargs):
                record = super().makeRecord(*args, **kwargs)
                record.msg = "mine: " + record.msg
                return record
            def notice(self, msg, *args): self._log(25, msg, args)
        logging.addLevelName(25, "NOTICE")
        logging.setLoggerClass(Mine)
        logging.getLogger("a").notice("n %s", 1)
        logging.root = logging.getLogger("a")
        # arrives: mine: n 1
    """,
    "stack_info and stacklevel": """
        import logging
        logging.basicConfig(format="%(funcName)s:%(lineno)d %(message)s")
        def helper(): logging.warning("w", stack_info=True, stacklevel=2)
        def caller(): helper()
        caller()
        # arrives: w
    """,
    "warnings": """
        import logging, warnings
        warnings.warn("on the console")
        logging.captureWarnings(True)
        logging.basicConfig(format="%(name)s %(message)s")
        warnings.warn("as a record")
        logging.captureWarnings(False)
        warnings.simplefilter("always")
        warnings.warn("on the console again")
        # arrives: re:(?s).*case.py:5: UserWarning: as a record.*
    """,
    "the end": """
        import atexit, logging
        logging.basicConfig(format="%(message)s")
        class Late:
            def __del__(self): logging.getLogger("a").warning("in __del__")
        late = Late()
        atexit.register(lambda: logging.getLogger("a").warning("at exit"))
        logging.shutdown()
        logging.getLogger("a").warning("after shutdown")
        def f(): raise ValueError("boom")
        f()
        # arrives: after shutdown | uncaught ValueError: boom | at exit | in __del__
    """,
    "threads": """
        import logging, threading, concurrent.futures
        logging.basicConfig(format="%(threadName)s %(message)s")
        def f():
            logging.warning("in a thread")
            raise ValueError("boom")
        thread = threading.Thread(target=f, name="worker")
        thread.start()
        thread.join()
        with concurrent.futures.ThreadPoolExecutor(1, "pool") as pool:
            pool.submit(logging.warning, "in a pool").result()
        # arrives: in a thread | uncaught ValueError: boom in thread worker | in a pool
    """,
}

TORCH_CASES = {
    "set_logs": """
        import logging
        import torch
        logging.basicConfig(format="%(message)s")
        log = logging.getLogger("torch.distributed.distributed_c10d")
        log.info("too low")
        torch._logging.set_logs(c10d=logging.INFO, guards=True)
        log.info("now %d", 1)
        guards = torch._logging.getArtifactLogger("torch._dynamo.guards", "guards")
        guards.debug("guard")
        schedule = torch._logging.getArtifactLogger("torch._inductor.scheduler", "schedule")
        schedule.debug("off by default")
        torch._logging.set_logs(all=logging.DEBUG)
        schedule.debug("still off")
        log.debug("low")
        guards.debug("with its parent")
        torch._logging.set_logs()  # else torch itself has much to say at the end
        # arrives: now 1 | guard | low | with its parent
    """,
    "lazy": """
        import logging
        import torch
        from torch._logging import LazyString
        torch._logging.set_logs(dynamo=logging.DEBUG)
        log = logging.getLogger("torch._dynamo.convert_frame")
        log.debug("%s and %s", LazyString(lambda: "lazy"), torch.ones(2))
        try: 1 / 0
        except ZeroDivisionError: log.exception("several\\nlines")
        torch._logging.set_logs()
        # arrives: lazy and tensor([1., 1.]) | several\\nlines
    """,
}


def run(script: Path, outbox: str, *command: str) -> tuple[str, str, int]:
    """Standard output, standard error and exit status, without what differs from run to run."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TLOGS", "TORCH", "COV", "PYTEST"))
    }
    environ = {**kept, "PYTHONPATH": str(script.parent), "OUTBOX": outbox, "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, *command, script.name],
        capture_output=True, text=True, timeout=scaled(150), env=environ, cwd=script.parent, check=False,
    )  # fmt: skip
    return _steady(done.stdout), _steady(done.stderr), done.returncode


def _steady(text: str) -> str:
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    text = re.sub(r"([VIWEC])\d{4} \d\d:\d\d:\d\d\.\d+ \d+ ", r"\1DATE TIME PID ", text)
    return re.sub(r"in \d+\.\d+s", "in TIME", text)


def check(directory: Path, script: str, *command: str) -> None:
    (directory / "sitecustomize.py").write_text(SITE)
    case = directory / "case.py"
    case.write_text(textwrap.dedent(script).lstrip("\n"))
    outbox = directory / "outbox"
    without = run(case, "", *command)
    with_tlogs = run(case, str(outbox), *command)
    assert with_tlogs == without
    [arrives] = re.findall(r"(?m)# arrives: (.*)$", script)
    expected = re.split(r" \| +", arrives.replace("\\n", "\n"))
    dead = open_dead(outbox)
    assert dead is not None
    extents = list(iter(lambda: dead.cut(True), None))
    found = [message_of(record) for extent in extents for record in unpack_all(bytes(extent.view))]
    dead.delete()
    assert len(found) == len(expected), found
    for text, wanted in zip(found, expected, strict=True):
        if wanted.startswith("re:"):
            assert re.fullmatch(wanted[3:], text)
        else:
            assert text == wanted


@pytest.mark.parametrize("name", CASES)
def test_the_console_is_the_same_and_every_record_arrives_once(tmp_path: Path, name: str) -> None:
    check(tmp_path, CASES[name])


@pytest.mark.torch
@pytest.mark.parametrize("name", TORCH_CASES)
def test_torchs_console_is_the_same_and_every_record_arrives_once(tmp_path: Path, name: str) -> None:
    check(tmp_path, TORCH_CASES[name])


@pytest.mark.parametrize("library", ["absl.logging", "rich.logging"])
def test_real_libraries_do_not_notice(tmp_path: Path, library: str) -> None:
    pytest.importorskip(library)
    script = {
        "absl.logging": """
            import logging
            from absl import logging as absl_logging
            absl_logging.set_verbosity(absl_logging.INFO)
            absl_logging.info("i %d", 1)
            absl_logging.warning("w")
            logging.getLogger("a").warning("standard")
            # arrives: i 1 | w | standard
        """,
        "rich.logging": """
            import logging
            from rich.logging import RichHandler
            handler = RichHandler(show_time=False, rich_tracebacks=True)
            logging.basicConfig(level="INFO", format="%(message)s", handlers=[handler])
            logging.getLogger("a").info("hello %s", [1])
            try: 1 / 0
            except ZeroDivisionError: logging.getLogger("a").exception("failed")
            # arrives: hello [1] | failed
        """,
    }[library]
    check(tmp_path, script)


def test_pytests_caplog_sees_what_it_would_see(tmp_path: Path) -> None:
    script = """
        import logging
        log = logging.getLogger("a")
        def test_passes(caplog):
            with caplog.at_level(logging.DEBUG):
                log.debug("d %d", 1)
            assert caplog.record_tuples == [("a", 10, "d 1")]
        def test_fails(caplog):
            log.warning("w")
            assert caplog.messages == []
        # arrives: d 1 | w
    """
    check(tmp_path, script, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist")
