"""Last words: what nobody caught is a record, and the console is what it would have been."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.limits import scaled

from tlogs.outbox.dead import open_dead
from tlogs_shared.storage.record import Fields, message_of, unpack_all

pytestmark = pytest.mark.multiprocess

PREAMBLE = """
import sys
path = sys.argv[1]
if path != "without":
    from tlogs.worker.crash import CrashHooks
    from tlogs.worker.intake import Intake
    from tlogs.outbox.outbox import Outbox
    outbox = Outbox(path, stream=bytes(16), meta={}, capacity=1 << 20)
    intake = Intake(outbox.append)
    intake.install()
    hooks = CrashHooks(intake, side_file=path + ".fault")
    hooks.install()
    import atexit
    atexit.register(hooks.uninstall)
del path
"""


def run(script: str, path: Path | str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TLOGS", "COV"))}
    code = PREAMBLE + textwrap.dedent(script)
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), env=environ, check=False)


def both(script: str, path: Path) -> tuple[subprocess.CompletedProcess[str], list[Fields]]:
    """Run with and without: the same must come out; and what was recorded."""
    without, with_tlogs = run(script, "without"), run(script, path)
    assert _plain(with_tlogs.stderr) == _plain(without.stderr)
    assert (with_tlogs.stdout, with_tlogs.returncode) == (without.stdout, without.returncode)
    return with_tlogs, recorded(path)


def _plain(text: str) -> str:
    """A text without addresses, and without faulthandler's list of extension modules, of which tlogs brings two."""
    return re.sub(r"\n\nExtension modules: .*", "", re.sub(r"0x[0-9a-f]+", "0x", text))


def recorded(path: Path) -> list[Fields]:
    dead = open_dead(path)
    assert dead is not None
    extents = list(iter(lambda: dead.cut(True), None))
    found = [record for extent in extents for record in unpack_all(bytes(extent.view))]
    assert dead.head == len(found)
    dead.close()
    return found


def exc(record: Fields) -> str:
    assert record.extra is not None
    return str(record.extra["exc"])


def test_an_uncaught_exception_is_the_last_record(tmp_path: Path) -> None:
    result, records = both(
        """
        import logging
        logging.getLogger("a").warning("before")
        def f(): raise ValueError("boom")
        f()
        """,
        tmp_path / "a",
    )
    assert result.returncode == 1
    assert [message_of(record) for record in records] == ["before", "uncaught ValueError: boom"]
    last = records[-1]
    assert (last.levelno, last.logger, last.func) == (50, "tlogs.crash", "f")
    assert exc(last).splitlines()[0] == "Traceback (most recent call last):"
    assert exc(last).splitlines()[-1] == "ValueError: boom"


@pytest.mark.parametrize(
    ("script", "messages"),
    [
        ("raise KeyboardInterrupt", ["uncaught KeyboardInterrupt"]),
        ("sys.exit('bye')", []),
        ("import os; os._exit(3)", []),
        (
            """
            import threading
            def f(): raise ValueError("boom")
            def g(): sys.exit(3)
            for one in (f, g):
                thread = threading.Thread(target=one, name="worker")
                thread.start()
                thread.join()
            """,
            ["uncaught ValueError: boom in thread worker"],
        ),
        (
            """
            class A:
                def __del__(self): raise ValueError("boom")
                def __repr__(self): return "A()"
            A()
            """,
            [r"uncaught ValueError: boom (Exception ignored in: <function A.__del__ at 0x>)"],
        ),
        (
            "sys.excepthook = lambda *args: print('my own hook', file=sys.stderr)\nraise ValueError('boom')",
            ["uncaught ValueError: boom"],
        ),
        (
            """
            before = sys.excepthook
            def hook(*args):
                print("first", file=sys.stderr)
                before(*args)
            sys.excepthook = hook
            raise ValueError('boom')
            """,
            ["uncaught ValueError: boom"],
        ),
        (
            """
            try: raise ValueError("boom")
            except ValueError: sys.excepthook(*sys.exc_info())
            """,
            [],
        ),
        (
            """
            def f():
                try: g()
                except ValueError as error: sys.last_exc = sys.last_value = error  # as debuggers and test runners do
            def g(): raise ValueError("boom")
            f()
            """,
            [],
        ),
        (
            """
            import threading
            thread = threading.Thread(target=lambda: None)
            end = threading.Event()
            def wait(): end.wait()
            threading.Thread(target=wait).start()
            threading._register_atexit(end.set)
            raise ValueError("before threads are joined")
            """,
            ["uncaught ValueError: before threads are joined"],
        ),
        (
            """
            class Broken(Exception):
                def __str__(self): raise SystemExit(3)
            import threading
            def f(): raise Broken
            thread = threading.Thread(target=f, name="worker")
            thread.start()
            thread.join()
            """,
            ["uncaught Broken: <Broken: SystemExit in its text> in thread worker"],
        ),
        (
            """
            class Broken(Exception):
                def __str__(self): raise RuntimeError("no text")
            raise Broken
            """,
            ["uncaught Broken: <Broken: RuntimeError in its text>"],
        ),
    ],
    ids=[
        "ctrl-c",
        "exit",
        "_exit",
        "thread",
        "unraisable",
        "replaced",
        "chained",
        "called",
        "remembered",
        "threads",
        "text that exits",
        "no text",
    ],
)
def test_what_nobody_caught_is_recorded_once(tmp_path: Path, script: str, messages: list[str]) -> None:
    _, records = both(script, tmp_path / "a")
    assert [_plain(message_of(record)) for record in records] == messages
    assert all(record.levelno == 50 for record in records)


@pytest.mark.parametrize(
    ("script", "number", "first"),
    [
        ("import ctypes\ndef f(): ctypes.string_at(0)\nf()", signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
        ("import os; os.abort()", signal.SIGABRT, "Fatal Python error: Aborted"),
    ],
)
def test_a_fault_is_recovered_with_its_stacks(tmp_path: Path, script: str, number: int, first: str) -> None:
    result, records = both(f"import logging\nlogging.getLogger('a').warning('before')\n{script}", tmp_path / "a")
    assert result.returncode == -number
    assert [message_of(record) for record in records] == ["before", first]
    assert records[1].levelno == 50
    assert 'File "<string>"' in exc(records[1])
    assert records[1].ts >= records[0].ts


def test_a_fault_that_is_stored_is_not_given_again(tmp_path: Path) -> None:
    run("import os; os.abort()", tmp_path / "a")
    dead = open_dead(tmp_path / "a")
    assert dead is not None
    extents = list(iter(lambda: dead.cut(True), None))
    assert [(extent.first, extent.count) for extent in extents] == [(0, 1)]
    dead.rewind(1)
    assert dead.cut(True) is None
    dead.delete()
    assert list(tmp_path.iterdir()) == []


def test_the_side_file_goes_with_a_clean_end(tmp_path: Path) -> None:
    run("pass", tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_faulthandler_of_the_user_wins(tmp_path: Path) -> None:
    script = "import faulthandler, os\nfaulthandler.enable()\nos.abort()"
    result, records = both(script, tmp_path / "a")
    assert "Fatal Python error: Aborted" in result.stderr
    assert records == []


def test_a_fault_in_a_child_is_not_taken_for_its_parents(tmp_path: Path) -> None:
    script = """
        import os
        pid = os.fork()
        if pid == 0:
            os.abort()
        os.waitpid(pid, 0)
        os._exit(0)
    """
    _, records = both(script, tmp_path / "a")
    assert records == []


def test_a_child_can_have_a_side_file_of_its_own(tmp_path: Path) -> None:
    script = """
        import os
        pid = os.fork()
        if pid == 0:
            hooks.follow(sys.argv[1] + "-child.fault")
            os.abort()
        os.waitpid(pid, 0)
        os._exit(0)
    """
    run(script, tmp_path / "a")
    assert "Aborted" in (tmp_path / "a-child.fault").read_text()
    assert (tmp_path / "a.fault").read_text() == ""


def test_the_hook_stays_the_original_for_those_who_ask(tmp_path: Path) -> None:
    """As exceptiongroup does on 3.10: its hook shows the whole group, and is installed over the original only."""
    script = """
        if sys.excepthook is sys.__excepthook__:
            sys.excepthook = lambda kind, error, traceback: print("the whole", error, file=sys.stderr)
        raise ValueError("boom")
    """
    result, records = both(script, tmp_path / "a")
    assert result.stderr == "the whole boom\n"
    assert [message_of(record) for record in records] == ["uncaught ValueError: boom"]


def test_a_hook_that_was_there_before_and_ends_the_process_comes_after_the_record(tmp_path: Path) -> None:
    script = """
        import os
        hooks.uninstall()
        def abort(*args): os._exit(7)
        sys.excepthook = abort
        hooks.install()
        try: raise KeyError("handled")
        except KeyError as error: pass
        raise ValueError("boom")
    """
    path = tmp_path / "a"
    assert run(script, path).returncode == 7
    assert [message_of(record) for record in recorded(path)] == ["uncaught ValueError: boom"]


def test_hooks_are_restored_and_only_our_own(tmp_path: Path) -> None:
    script = """
        import threading
        hooks.uninstall()
        assert sys.excepthook is sys.__excepthook__ and threading.excepthook is threading.__excepthook__
        hooks.install()
        mine = sys.excepthook = lambda *args: None
        hooks.uninstall()
        assert sys.excepthook is mine
        print("ok")
    """
    assert run(script, tmp_path / "a").stdout == "ok\n"


def test_a_descriptor_that_the_program_has_taken_is_not_written_to(tmp_path: Path) -> None:
    """A daemon closes all descriptors and opens its own; a fork must not put anything else under their numbers."""
    script = """
        import os
        os.closerange(3, 4096)
        theirs = os.open(sys.argv[1] + "-theirs", os.O_RDWR | os.O_CREAT)
        for fd in range(theirs + 1, 1024):
            os.dup2(theirs, fd)
        pid = os.fork()
        if pid == 0:
            same = all(os.path.sameopenfile(theirs, fd) for fd in range(theirs, 1024))
            os._exit(0 if same else 1)
        print(os.waitpid(pid, 0)[1])
    """
    done = run(script, tmp_path / "a")
    assert (done.stdout, done.stderr) == ("0\n", "")
