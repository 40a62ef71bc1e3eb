"""What is tortured, and what can be done to it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from agents import Agents
from calls import LOGGER
from child import Worker
from disk import Disk
from network import Network

__all__ = ["ROOMY", "RUN", "Scene"]

RUN: Final = "torture"
LIVES_S: Final = ((0.1, 0.8), (0.5, 1.5), (1.0, 3.0), (2.0, 5.0))
"""How long a collector lives: some are killed while they start, others once their agents have found them again."""

ROOMY: Final = "64M"
TIGHT: Final = "1M"
"""Half a second of records."""


class Scene:
    """A collector, its disk, its network, its workers, and what can be done to them."""

    def __init__(self, root: Path, chance: random.Random, *, ranks: int, rate: float, outboxes: str) -> None:
        self.root, self.ranks, self.rate, self.mode = root, ranks, rate, outboxes
        self.random = chance
        self.outboxes, self.store = root / "outboxes", root / "store"
        self.store.mkdir()
        self.agents = Agents(root / "tlogs", chance)
        secret = root / "secret"
        secret.touch(0o600)
        secret.write_text("5" * 64)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TLOGS_", "TORCH", "SLURM_", "OMPI_", "PMI_"))
        }
        self.environ = {
            **kept,
            "XDG_STATE_HOME": str(root / "state"),
            "XDG_RUNTIME_DIR": str(root),
            "TLOGS_OUTBOX_DIR": str(self.outboxes),
            "TLOGS_SECRET_FILE": str(secret),
            "TLOGS_RUN": RUN,
            "WORLD_SIZE": str(ranks),
        }
        self.disk = Disk(self.store)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.network = Network(self.port)
        self.workers: list[Worker] = []
        self.past: list[Worker] = []
        self.collector: subprocess.Popen[bytes] | None = None
        self.collector_is_stopped = False
        self.kill_s = 0.0
        self.said = root / "collector.err"
        self._log: IO[bytes] = self.said.open("ab")
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._asking: subprocess.Popen[bytes] | None = None

    # The parts that are tortured.

    def start_collector(self) -> None:
        """Start it on the same port and directory as before."""
        command = [sys.executable, "-m", "tlogs_collector", "--quiet", "--listen", f"tcp://127.0.0.1:{self.port}"]
        command += ["--dir", str(self.store), "--keep-free", "0"]
        self.collector = subprocess.Popen(command, stderr=self._log, stdin=subprocess.DEVNULL, env=self.environ)
        self.collector_is_stopped = False
        self.disk.was_full = self.disk.is_full
        self.kill_s = time.monotonic() + self.random.uniform(*self.random.choice(LIVES_S))

    def start_worker(self, rank: int) -> None:
        """Start the next process of a rank: through the network or past it, with a large or a small outbox."""
        serial = len(self.workers) + len(self.past)
        outbox = {"roomy": ROOMY, "tight": TIGHT}.get(self.mode) or self.random.choice([ROOMY, ROOMY, TIGHT])
        port = self.network.port if self.random.random() < 0.6 else self.port
        threads = self.random.choice([1, 1, 2])
        environ = {**self.environ, "TLOGS_COLLECTOR": f"tcp://127.0.0.1:{port}"}
        rate = self.rate / self.ranks
        worker = Worker(self.root, serial, rank, threads=threads, outbox=outbox, rate=rate, environ=environ)
        self.workers.append(worker)

    def faults(self) -> list[tuple[str, Callable[[], bool], int]]:
        """What can be done to them, how often compared with each other; each returns whether it could be done now."""
        return [
            ("collector stopped", self.stop_collector, 8),
            ("worker killed", self.kill_worker, 6),
            ("worker stopped", self.stop_worker, 8),
            ("worker ended", self.end_worker, 4),
            ("agent killed", self.agents.kill, 6),
            ("agent stopped", self.stop_agent, 5),
            ("agent and worker killed", self.kill_agent_and_worker, 4),
            ("agents started at once", self.start_agents, 3),
            ("agent's socket removed", self.agents.take_socket, 2),
            ("network cut", self.cut_network, 10),
            ("network stopped", self.stop_network, 4),
            ("network slowed", self.slow_network, 5),
            ("disk full", self.fill_disk, 6),
            ("levels changed", self.change_levels, 4),
        ]

    def kill_collector(self) -> bool:
        """As kill -9 does; started again at once or a little later."""
        if self.collector is None:
            return False
        self.collector.kill()
        self.collector.wait()
        self.collector = None
        self.later(self.random.choice([0.0, 0.0, 0.0, 0.5]), self.start_collector)
        return True

    def stop_collector(self) -> bool:
        """As SIGSTOP does."""
        if self.collector is None or self.collector_is_stopped:
            return False
        stopped = self.collector
        stopped.send_signal(signal.SIGSTOP)
        self.collector_is_stopped = True

        def go_on() -> None:
            if self.collector is stopped:
                stopped.send_signal(signal.SIGCONT)
                self.collector_is_stopped = False

        self.later(self.random.uniform(0.05, 1.5), go_on)
        return True

    def kill_worker(self) -> bool:
        """As kill -9 does; another takes its rank."""
        worker = self._any_worker()
        if worker is None:
            return False
        worker.process.kill()
        worker.process.wait()
        self.replace(worker)
        return True

    def stop_worker(self) -> bool:
        """As SIGSTOP does."""
        worker = self._any_worker()
        if worker is None or worker.is_stopped:
            return False
        worker.process.send_signal(signal.SIGSTOP)
        worker.is_stopped = True

        def go_on() -> None:
            worker.process.send_signal(signal.SIGCONT)
            worker.is_stopped = False

        self.later(self.random.uniform(0.05, 1.0), go_on)
        return True

    def end_worker(self) -> bool:
        """It ends at its own word, in one of several ways; another takes its rank."""
        worker = self._any_worker()
        word = self.random.choice(["leave", "leave", "raise", "_exit", "segfault"])
        if worker is None or worker.is_stopped:
            return False
        worker.tell(word)
        worker.ended_itself = word in ("leave", "raise")
        self.replace(worker)
        return True

    def stop_agent(self) -> bool:
        """As SIGSTOP does; its workers notice nothing."""
        if (pid := self.agents.stop()) is None:
            return False
        self.later(self.random.uniform(0.05, 3.0), lambda: self.agents.go_on(pid))
        return True

    def kill_agent_and_worker(self) -> bool:
        """Both at the same moment, as the end of a container kills them."""
        return self.agents.kill() and self.kill_worker()

    def start_agents(self) -> bool:
        """The agent is killed, and several processes start the next one at once."""
        worker = self._any_worker()
        if worker is None or not self.agents.kill():
            return False
        self.agents.start_at_once({**self.environ, "TLOGS_COLLECTOR": worker.collector})
        return True

    def cut_network(self) -> bool:
        """All connections through it are reset."""
        self.network.cut()
        return True

    def stop_network(self) -> bool:
        """Nothing passes for a while, and nobody is told."""
        if self.network.is_stopped:
            return False
        self.network.is_stopped = True
        self.later(self.random.uniform(0.1, 4.0), self._heal_network)
        return True

    def slow_network(self) -> bool:
        """Everything takes longer."""
        if self.network.delay_s:
            return False
        self.network.delay_s = self.random.uniform(0.01, 0.3)
        self.later(self.random.uniform(0.3, 2.0), self._heal_delay)
        return True

    def fill_disk(self) -> bool:
        """No room for the collector."""
        if not self.disk.is_mounted or self.disk.is_full:
            return False
        self.disk.fill()
        self.later(self.random.uniform(0.1, 1.0), self.disk.empty)
        return True

    def change_levels(self) -> bool:
        """A lease, on loggers beside that of the calls; its answer is waited for by nobody."""
        if self._asking is not None and self._asking.poll() is None:
            return False
        spec = self.random.choice(["c10d=DEBUG", "dynamo=INFO", "recompiles=on", f"{LOGGER}.beside=INFO"])
        command = [sys.executable, "-m", "tlogs", "set-logs", spec, "--for", "2s", "--timeout", "2s", "--watch", "0s"]
        command += ["--collector", str(self.store)]
        none = subprocess.DEVNULL
        self._asking = subprocess.Popen(command, env=self.environ, stdin=none, stdout=none, stderr=none)
        return True

    def _heal_network(self) -> None:
        self.network.is_stopped = False

    def _heal_delay(self) -> None:
        self.network.delay_s = 0.0

    def _any_worker(self) -> Worker | None:
        ready = [worker for worker in self.workers if worker.ledger.is_ready]
        return self.random.choice(ready) if ready else None

    def replace(self, worker: Worker) -> None:
        """Another process takes its rank."""
        self.workers.remove(worker)
        self.past.append(worker)
        self.start_worker(worker.rank)

    # All of them.

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something in a while."""
        self._later.append((time.monotonic() + delay_s, what))

    def go_on(self, *, all_of_it: bool = False) -> None:
        """Do what is due, with *all_of_it* also what is not yet."""
        now = time.monotonic()
        due = [what for when, what in self._later if when <= now or all_of_it]
        self._later = [(when, what) for when, what in self._later if when > now and not all_of_it]
        for what in due:
            what()

    def outboxes_left(self) -> list[Path]:
        """Those that are still there."""
        return list(self.outboxes.glob("*.outbox"))

    def everyone(self) -> list[Worker]:
        """All workers that there have been."""
        return self.past + self.workers

    def close(self) -> None:
        """Kill what is left, and close what is open."""
        for process in (self.collector, self._asking):
            if process is not None:
                process.kill()
                process.wait()
        for worker in self.everyone():
            worker.close()
        self.agents.close()
        self.network.close()
        self._log.close()
        self.disk.close()
