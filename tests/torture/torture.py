"""`make torture`: everything that can go wrong, all the time, and then the arithmetic of nothing lost.

Theory of operation
-------------------
Workers log as fast as they are told to; each keeps a ledger of its own of the calls that have returned. Meanwhile, at
moments and in an order that the seed decides, collector, agents and workers are killed, stopped and ended, agents are
started several at once, the network is cut, stopped and slowed down, the disk is full, and levels change. Then the
faults stop. Everything must arrive within a deadline, and `oracle` compares the segments with the ledgers. The exit
status is 1 if anything is lost, doubled, out of order, not what was logged, or not counted.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from oracle import Finding
from scene import ROOMY, Scene
from verdict import judge

FAULT_EVERY_S: Final = 0.25
"""The mean; the times are random. The collector's deaths come on top."""

DRAIN_S: Final = 120.0
"""Once the faults are over, everything is acknowledged within this time."""

END_S: Final = 120.0
POLL_S: Final = 0.02


class Torture:
    """One torture: the faults, and what was seen meanwhile."""

    def __init__(self, scene: Scene, chance: random.Random) -> None:
        self._scene = scene
        self._random = chance
        self._said_s = 0.0
        self.faults: Counter[str] = Counter()
        self.problems: list[str] = []
        self.backlogs: list[int] = []
        self.calls_per_s = 0.0
        self.settled_s = 0.0

    def run(self, seconds: float) -> None:
        """Torture for so long, then let everything settle."""
        scene, kinds = self._scene, self._scene.faults()
        weights = [weight for *_, weight in kinds]
        scene.start_collector()
        for rank in range(scene.ranks):
            scene.start_worker(rank)
        self._until(lambda: all(worker.ledger.is_ready for worker in scene.workers), END_S, "the workers did not begin")
        began_s, began_calls = time.monotonic(), self._calls()
        next_fault = began_s
        while (now := time.monotonic()) < began_s + seconds:
            self._keep_going()
            if now >= scene.kill_s:
                self._do("collector killed", scene.kill_collector)
            if now >= next_fault:
                self._do(*self._random.choices(kinds, weights)[0][:2])
                next_fault = now + self._random.expovariate(1 / FAULT_EVERY_S)
            time.sleep(POLL_S)
        self.calls_per_s = (self._calls() - began_calls) / (time.monotonic() - began_s)
        self._settle()

    def _do(self, name: str, fault: Callable[[], bool]) -> None:
        # Of those that log just now. Where records were dropped the numbers count gap records too: such a backlog is
        # not known exactly.
        for worker in self._scene.workers:
            worker.look()
        speaking = [one for one in self._scene.workers if one.ledger.total() and not one.is_stopped]
        exact = [worker.backlog for worker in speaking if not worker.dropped]
        if fault():
            self.faults[name] += 1
            if exact:
                self.backlogs.append(sum(exact))

    def _settle(self) -> None:
        """No more faults: what was logged must arrive, and the workers and at last the collector end."""
        scene = self._scene
        scene.go_on(all_of_it=True)
        reached = {worker.serial: worker.ledger.total() for worker in scene.workers}
        began_s = time.monotonic()
        self._until(
            lambda: all(one.acknowledged + one.dropped >= reached[one.serial] for one in scene.workers),
            DRAIN_S,
            "what was logged before the faults stopped was not acknowledged",
        )
        for worker in scene.workers:
            worker.tell("leave")
            worker.ended_itself = True
        self._until(lambda: all(one.process.poll() is not None for one in scene.everyone()), END_S, "workers live on")
        self._until(lambda: not scene.outboxes_left(), END_S, "outboxes of dead workers were not brought in")
        self.settled_s = time.monotonic() - began_s
        self._until(lambda: scene.collector is not None, END_S, "the collector does not stay")
        if scene.collector is not None:
            scene.collector.send_signal(signal.SIGTERM)
            try:
                scene.collector.wait(END_S)
            except subprocess.TimeoutExpired:
                self.problems.append(f"the collector did not end within {END_S:g} s")

    def _until(self, holds: Callable[[], bool], deadline_s: float, what: str) -> None:
        """Go on until something holds; after the deadline it is a problem."""
        deadline = time.monotonic() + deadline_s
        while not holds():
            if time.monotonic() >= deadline:
                self.problems.append(f"{what}, after {deadline_s:g} s")
                return
            self._keep_going()
            time.sleep(POLL_S)

    def _keep_going(self) -> None:
        scene = self._scene
        scene.go_on()
        for worker in list(scene.workers):
            worker.look()
            if worker.process.poll() is not None and not worker.ended_itself:
                self.problems.append(f"worker {worker.serial} ended by itself with status {worker.process.returncode}")
                scene.replace(worker)
        if scene.collector is not None and (status := scene.collector.poll()) is not None:
            if scene.disk.was_full:  # it may refuse to start then, and says so
                self.faults["collector not started on a full disk"] += 1
            else:
                self.problems.append(f"the collector ended by itself with status {status}")
            scene.collector = None
            scene.later(0.2, scene.start_collector)
        now = time.monotonic()
        if now - self._said_s >= 1.0:
            self._said_s = now
            self._say()

    def _calls(self) -> int:
        return sum(worker.ledger.total() for worker in self._scene.everyone())

    def _say(self) -> None:
        everyone = self._scene.everyone()
        for worker in everyone:
            worker.look()
        print(
            f"logged {self._calls():,}  acknowledged {sum(worker.acknowledged for worker in everyone):,}  "
            f"dropped {sum(worker.dropped for worker in everyone):,}  faults {self.faults.total()} "
            f"(collector killed {self.faults['collector killed']})",
            end="\033[K\r" if sys.stdout.isatty() else "\n",
            flush=True,
        )


def report(options: argparse.Namespace, scene: Scene, torture: Torture, found: Finding) -> None:
    """Print what came of it."""
    faults = ", ".join(f"{name} {count}" for name, count in torture.faults.most_common())
    others = found.records - found.calls
    acknowledged = sum(worker.acknowledged for worker in scene.everyone())
    rows: list[tuple[str, float, str]] = [
        ("faults", torture.faults.total(), f"({faults})"),
        ("logged per second", torture.calls_per_s, f"by {scene.ranks} ranks, with everything that went wrong"),
        ("smallest backlog", min(torture.backlogs, default=0), "records not acknowledged at the moment of a fault"),
        ("median backlog", statistics.median(torture.backlogs or [0]), ""),
        ("worker processes", len(scene.everyone()), ""),
        ("records logged", found.logged, "calls that returned, as the workers' own ledgers have it"),
        ("acknowledged", acknowledged, "to workers that lived, as their outboxes have it"),
        ("recovered", found.recovered, "from outboxes of dead workers"),
        ("stored", found.records, f"{found.calls:,} of those calls; {others:,} gap records and other words of our own"),
        ("dropped, counted", found.dropped, ""),
        *((f"  with {size}", sum(one.dropped for one in scene.everyone() if one.outbox == size), "")
          for size in sorted({one.outbox for one in scene.everyone()})),
        ("lost", found.lost, ""),
        ("duplicated", found.duplicated, ""),
    ]  # fmt: skip
    print(f"\n\nseed {options.seed}, {options.seconds:g} s; all had arrived {torture.settled_s:.1f} s after the faults")
    if not scene.disk.is_mounted:
        print("(the disk was never full: mounting a file system is refused here)")
    for name, number, remark in rows:
        print(f"{name:<18} {number:>12,.0f}   {remark}".rstrip())
    for text in found.problems:
        print(f"VIOLATED: {text}")
    if found.problem_count > len(found.problems):
        print(f"VIOLATED: and {found.problem_count - len(found.problems)} times more")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Torture a collector and its workers; 1 if anything is lost.")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long there are faults  [120]")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="repeat the faults of a run")
    parser.add_argument("--rate", type=float, default=80_000.0, help="records a second, together  [80000]")
    parser.add_argument("--ranks", type=int, default=4, help="workers at a time  [4]")
    parser.add_argument(
        "--outboxes",
        choices=["roomy", "tight", "mixed"],
        default="mixed",
        help=f"those of {ROOMY} take everything, tight ones drop records while the collector is away  [mixed]",
    )
    parser.add_argument("--keep", action="store_true", help="leave the files there")
    return parser.parse_args()


def main() -> int:
    """Torture, settle, judge."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    root = Path(tempfile.mkdtemp(prefix="tlogs-torture-"))
    print(f"torture: seed {options.seed}, {options.seconds:g} s, in {root}", flush=True)
    chance = random.Random(options.seed)
    scene = Scene(root, chance, ranks=options.ranks, rate=options.rate, outboxes=options.outboxes)
    keep = options.keep
    try:
        torture = Torture(scene, chance)
        torture.run(options.seconds)
        found = judge(scene, torture.faults)
        for text in torture.problems:
            found.problem(text)
        report(options, scene, torture, found)
        keep = keep or bool(found.problem_count)
        if keep and scene.disk.is_mounted:
            shutil.copytree(scene.store, root / "kept")
    finally:
        scene.close()
        if keep:
            print(f"kept in {root}")
        else:
            shutil.rmtree(root)
    return 1 if found.problem_count else 0


if __name__ == "__main__":
    sys.exit(main())
