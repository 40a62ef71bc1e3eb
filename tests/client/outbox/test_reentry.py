"""Logging where it hurts: in signal handlers, forks, finalizers and warnings nothing hangs and nothing comes twice.

Each case is a script in an interpreter of its own, which is killed when it takes too long.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from tests.limits import scaled

from tlogs.outbox.dead import open_dead
from tlogs_shared.storage.record import message_of, unpack_all

pytestmark = pytest.mark.multiprocess

PREAMBLE = """
import logging, os, sys, threading, signal, time
from tlogs.worker.intake import Intake
from tlogs.outbox.outbox import Outbox

def outbox(name):
    return Outbox(f"{sys.argv[1]}/{name}", stream=os.urandom(16), meta={}, capacity=16 << 20)

log = logging.getLogger("a")
log.setLevel(logging.DEBUG)
log.addHandler(logging.NullHandler())
own = outbox("parent")
intake = Intake(own.append)
intake.install()
"""


def run(directory: Path, script: str) -> dict[str, list[str]]:
    """The messages that each outbox holds after the script, by the outbox's name."""
    subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", PREAMBLE + textwrap.dedent(script), str(directory)],
        timeout=scaled(120), check=True,
    )  # fmt: skip
    found = {}
    for path in directory.iterdir():
        dead = open_dead(path)
        assert dead is not None
        extents = list(iter(lambda: dead.cut(True), None))  # noqa: B023
        records = [record for extent in extents for record in unpack_all(bytes(extent.view))]
        found[path.name] = [message_of(record) for record in records]
        dead.delete()
    return found


def test_forks_while_other_threads_log(tmp_path: Path) -> None:
    """Each child starts afresh on its first record; what the parent's threads had in hand is the parent's."""
    found = run(
        tmp_path,
        """
        def forked():
            own.abandon()
            intake.forked()
            def first(*values):
                intake.append = outbox(f"child{os.getpid()}").append
                return intake.append(*values)
            intake.append = first
        os.register_at_fork(after_in_child=forked)

        def work(name):
            for index in range(5000): log.info("%s %d", name, index)
        threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(3)]
        for thread in threads: thread.start()
        children = []
        for n in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                for index in range(10): log.info("child %d", index)
                os._exit(0)
            children.append(pid)
        for thread in threads: thread.join()
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
        """,
    )
    parent = found.pop("parent")
    for name in ("t0", "t1", "t2"):
        assert [text for text in parent if text.startswith(name)] == [f"{name} {index}" for index in range(5000)]
    assert len(parent) == 15_000
    assert list(found.values()) == [[f"child {index}" for index in range(10)]] * 20


def test_signal_handlers_that_log(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        """
        signals = iter(range(10**9))
        def handler(*_): log.warning("signal %d", next(signals))
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
        class Slow:
            def __str__(self): return str(sum(range(200)))
        for index in range(5000):
            log.info("plain %d", index)
            if index % 50 == 0: log.info("%s", Slow())
        signal.setitimer(signal.ITIMER_REAL, 0)
        log.info("signals %d", next(signals))
        """,
    )["parent"]
    assert [text for text in found if text.startswith("plain")] == [f"plain {index}" for index in range(5000)]
    signals = int(found[-1].removeprefix("signals "))
    assert signals > 0
    assert {text for text in found if text.startswith("signal ")} == {f"signal {index}" for index in range(signals)}
    assert max(Counter(found[:-1]).values()) == 100  # Slow's; nothing else twice


def test_a_signal_handler_that_raises_leaves_no_lock_behind(tmp_path: Path) -> None:
    """As a KeyboardInterrupt does, at any place of a logging call."""
    found = run(
        tmp_path,
        """
        class Interrupt(BaseException): pass
        def handler(*_): raise Interrupt
        signal.signal(signal.SIGALRM, handler)
        taken = interrupted = 0
        for index in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + index * 1e-6)
                while True:
                    log.info("n %d", taken)
                    taken += 1
            except Interrupt:
                interrupted += 1
        done = threading.Thread(target=log.info, args=("from another thread",))
        done.start()
        done.join(60)
        assert not done.is_alive() and interrupted == 300
        log.info("taken %d", taken)
        """,
    )["parent"]
    assert found[-2] == "from another thread"
    taken = int(found[-1].removeprefix("taken "))
    # An interrupted call may have left its record or not; the program logs the same number again then.
    numbers = [int(text.removeprefix("n ")) for text in found[:-2]]
    assert numbers == sorted(numbers)
    assert set(range(taken)) <= set(numbers)


def test_finalizers_that_log(tmp_path: Path) -> None:
    """Within a logging call, in the collector of garbage, and at the end of the interpreter."""
    found = run(
        tmp_path,
        """
        import gc
        class Chatty:
            def __init__(self, name): self.name, self.me = name, self
            def __del__(self): log.info("del %s", self.name)
        gc.set_threshold(3)
        for index in range(2000):
            log.info("n %d", index, extra={"c": Chatty(index)} if index % 10 == 0 else None)
        gc.collect()
        gc.set_threshold(700)
        last = Chatty("last")
        last.me = None
        """,
    )["parent"]
    counts = Counter(found)
    assert set(counts.values()) == {1}
    assert [text for text in found if text.startswith("n ")] == [f"n {index}" for index in range(2000)]
    assert {f"del {index}" for index in range(0, 2000, 10)} | {"del last"} == {t for t in found if t[0] == "d"}


def test_warnings_and_logging_while_a_record_is_made(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        """
        import warnings
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        class Emitting(logging.Handler):
            def emit(self, record): pass
        logging.getLogger("py.warnings").addHandler(logging.NullHandler())
        log.addHandler(Emitting())  # where no handler emits a record, the program's own __repr__ is not run
        class Noisy:
            def __repr__(self):
                warnings.warn("deprecated")
                log.info("inside")
                return "noisy"
        for _ in range(3): log.info("%s", Noisy())
        log.info("x", extra={"field": Noisy()})
        """,
    )["parent"]
    inner = ["deprecated", "inside"]
    kinds = ["deprecated" if "deprecated" in text else text for text in found]
    assert kinds == [*inner, "noisy"] * 3 + ["x"]


def test_another_thread_is_not_held_up_by_a_full_outbox(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        """
        def work():
            for index in range(40_000): log.debug("x" * 1000)
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        log.error("the reserve is for this")
        assert own.dropped[10] + own.head - 2 == 120_000
        """,
    )["parent"]
    assert found[-1] == "the reserve is for this"
    assert found[-2].startswith("dropped ")
