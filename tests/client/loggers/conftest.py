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

SERVER = Path(__file__).with_name("levels_server.py")


class Server:
    """One `levels_server.py`: cases in, answers out."""

    def __init__(self, mode: str, packages: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SERVER), mode, str(packages)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "ready\n", f"levels_server.py {mode} did not start"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def ask(self, case: dict[str, Any]) -> list[dict[str, Any]]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        answer: list[dict[str, Any]] = json.loads(self._read())
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=30)


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
