"""Processes to ask what settings do to loggers: torch itself, and tlogs with torch, without it, and before it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.limits import scaled

SERVER = Path(__file__).with_name("levels_server.py")


class Server:
    """One `levels_server.py`: cases in, answers out.

    Each question has a number, which its answer repeats: the answer to a question whose test was interrupted is
    skipped, and not taken for that of the next. A server that died is started again for the next question.
    """

    def __init__(self, mode: str, packages: Path) -> None:
        self._mode = mode
        self._command = [sys.executable, "-W", "ignore", str(SERVER), mode, str(packages)]
        self._number = 0
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._read() == "ready\n", f"levels_server.py {self._mode} did not start"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def ask(self, case: dict[str, Any]) -> list[dict[str, Any]]:
        if self._process.poll() is not None:
            self.close()
            self._start()
        assert self._process.stdin is not None
        self._number += 1
        self._process.stdin.write(json.dumps([self._number, case]) + "\n")
        self._process.stdin.flush()
        while line := self._read():
            number, answer, error = json.loads(line)
            if number == self._number:
                assert not error, f"levels_server.py {self._mode}: {error}"
                found: list[dict[str, Any]] = answer
                return found
        raise AssertionError(f"levels_server.py {self._mode} ended with {self._process.wait()}")

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(scaled(60))


def make_packages(root: Path) -> Path:
    """The modules that the cases name: homod, hopkg (with alpha and sub.beta), and hobroken, which raises."""
    for name, text in {
        "homod.py": "",
        "hopkg/__init__.py": "",
        "hopkg/alpha.py": "",
        "hopkg/sub/__init__.py": "",
        "hopkg/sub/beta.py": "",
        "hobroken/__init__.py": "raise RuntimeError('broken')",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packages(tmp_path_factory.mktemp("packages"))


def serve(mode: str, packages: Path) -> Iterator[Server]:
    if mode != "absent" and find_spec("torch") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs torch: pip install torch==2.13.0")
    server = Server(mode, packages)
    yield server
    server.close()


@pytest.fixture(scope="module")
def torch(packages: Path) -> Iterator[Server]:
    yield from serve("torch", packages)


@pytest.fixture(scope="module")
def loaded(packages: Path) -> Iterator[Server]:
    yield from serve("loaded", packages)


@pytest.fixture(scope="module")
def absent(packages: Path) -> Iterator[Server]:
    yield from serve("absent", packages)


@pytest.fixture(scope="module")
def late(packages: Path) -> Iterator[Server]:
    yield from serve("late", packages)
