"""What came of a torture: the oracle's finding, and whether tlogs itself says the same."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from calls import LOGGER
from oracle import Finding, examine
from scene import RUN, Scene

__all__ = ["judge"]

PATIENCE_S: Final = 600.0
"""A command that reads all of a long run takes its time."""

_CLOSING: Final = re.compile(r"tlogs-collector: run (\S+): \d+ ranks?, (\d+) records?, (\d+) dropped, (\d+) lost")


def judge(scene: Scene, faults: Mapping[str, int]) -> Finding:
    """Compare the segments with the ledgers, and what the collector and the commands say with the segments."""
    others = {logging.INFO: 2 * faults.get("levels changed", 0), logging.CRITICAL: 1}
    found = examine(scene.store / RUN, [worker.logged() for worker in scene.everyone()], others)
    for worker in scene.everyone():
        worker.look()
        stream = found.streams.get(worker.stream)
        stored = 0 if stream is None else stream.next
        if worker.acknowledged > stored:
            found.problem(f"worker {worker.serial}: {worker.acknowledged} acknowledged, {stored} stored")
    _compare_closing_line(scene, found)
    _compare_recount(scene, found)
    _compare_reader(scene, found)
    return found


def _compare_closing_line(scene: Scene, found: Finding) -> None:
    lines = _CLOSING.findall(scene.said.read_text(errors="replace"))
    if not lines:
        found.problem("the collector left no closing line")
        return
    _, records, dropped, lost = lines[-1]
    if (int(records), int(dropped), int(lost)) != (found.records, found.dropped, 0):
        found.problem(
            f"the closing line says {records} records, {dropped} dropped, {lost} lost; "
            f"counted are {found.records}, {found.dropped}, 0"
        )


def _tlogs(scene: Scene, *arguments: str) -> str:
    command = [sys.executable, "-m", "tlogs", *arguments, "--dir", str(scene.store)]
    return subprocess.run(command, env=scene.environ, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S).stdout


def _compare_recount(scene: Scene, found: Finding) -> None:
    rows: list[dict[str, Any]] = json.loads(_tlogs(scene, "runs", "--verify", "--json") or "[]")
    said = [{name: row.get(name) for name in ("records", "dropped", "lost", "verified")} for row in rows]
    expected = {"records": found.records, "dropped": found.dropped, "lost": 0, "verified": True}
    if said != [expected]:
        found.problem(f"tlogs runs --verify says {said}, expected {expected}: {[row.get('faults') for row in rows]}")


def _compare_reader(scene: Scene, found: Finding) -> None:
    rows = [json.loads(line) for line in _tlogs(scene, "cat", RUN, "--level", "ERROR", "--json").splitlines()]
    if Counter(row["message"] for row in rows if row["logger"] == LOGGER) != Counter(found.errors):
        found.problem("tlogs cat --level ERROR does not print what is in the segments")
    keys = [(row["ts"], row["rank"], row["seq"]) for row in rows]
    if keys != sorted(keys):
        found.problem("tlogs cat prints records out of order")
