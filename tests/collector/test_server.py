"""The loop, with real doors, between a hub that a test scripts and a store that fails when it is told to."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.collector.doors import SECRET, Peers, listening
from tests.limits import scaled

from tlogs_collector.hub import actions as do
from tlogs_collector.server import LAST_NEWS, Edges, Server
from tlogs_collector.stop import Stop
from tlogs_collector.store.store import RunFailed, StoredRun
from tlogs_shared.errors import StoreError
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.protocol import messages as m
from tlogs_shared.protocol import wire
from tlogs_shared.storage.batch import Header, seal
from tlogs_shared.storage.index_page import unpack_index
from tlogs_shared.storage.position import Position

DEADLINE_S = scaled(20.0)
STREAM = b"s" * 16
INFO = StreamInfo(Origin(host="n1", pid=7, rank=0))
HEADER, PAYLOAD = seal(Header(STREAM, first=0, count=3), b"abc")
FULL = StoreError(28, "No space left on device", "/runs/r")


class ScriptedHub:
    """Answers a message with the actions that `says` gives, and puts what it is told into `told`."""

    def __init__(self) -> None:
        self.says: Callable[[bytes, m.Message], Sequence[do.Action]] = lambda connection, message: []
        self.told: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self.skipped: list[str] = []
        self.runs: dict[str, Any] = {"r": SimpleNamespace(is_open=True, stalled="")}
        self.followers = SimpleNamespace(by_connection={})
        self.is_idle = True

    def handle(self, connection: bytes, message: m.Message, now: object) -> Sequence[do.Action]:
        self.told.put(("handle", message))
        return self.says(connection, message)

    def opened(self, name: str, streams: Mapping[bytes, Any], control: Any, now: object) -> Sequence[do.Action]:
        self.told.put(("opened", name, dict(streams), control))
        return []

    def stall(self, run: str, why: str) -> None:
        self.runs[run].stalled = why
        self.told.put(("stall", run, why))

    def resume(self, run: str) -> Sequence[do.Action]:
        self.runs[run].stalled = ""
        self.told.put(("resume", run))
        return []

    def reopened(self, run: str, streams: Mapping[bytes, Any]) -> Sequence[do.Action]:
        self.runs[run].stalled = ""
        self.told.put(("reopened", run, dict(streams)))
        return []

    def tick(self, now: object) -> Sequence[do.Action]:
        return []

    def tick_operators(self, now: object) -> Sequence[do.Action]:
        return []

    def __getattr__(self, name: str) -> Callable[..., Sequence[do.Action]]:
        def note(*what: Any) -> Sequence[do.Action]:
            self.told.put((name, *what))
            return []

        return note

    def next(self, name: str) -> tuple[Any, ...]:
        """What it was told next under this name, skipping others into `skipped`."""
        while (found := self.told.get(timeout=DEADLINE_S))[0] != name:
            self.skipped.append(found[0])
        return found[1:]


class FailingStore:
    """Holds nothing; `fails` says what raises what."""

    def __init__(self) -> None:
        self.fails: dict[str, StoreError] = {}
        self.written = 0
        self.meta: dict[str, Any] = {"key": "job"}
        self.has_room = False
        self.may_sync = threading.Event()
        self.may_sync.set()

    def _do(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]

    def open_run(self, name: str, meta: Mapping[str, Any]) -> StoredRun:
        self._do("open_run")
        return StoredRun(name, self.meta, notes=["one segment was cut"])

    def append(self, run: str, header: Header, payload: bytes) -> None:
        self._do("append")
        self.written += 1

    def put_stream(self, run: str, stream: bytes, info: StreamInfo) -> None:
        self._do("put_stream")

    def sync(self) -> int:
        written = self.written
        self.may_sync.wait(DEADLINE_S)
        self._do("sync")
        return written

    def retain(self) -> bool:
        return False

    def room(self) -> bool:
        return self.has_room

    def end(self, run: str) -> Position:
        return Position(2, 512)

    def index(self, run: str, position: Position, limit: int) -> tuple[list[tuple[Header, Position]], Position]:
        self._do("index")
        return [(HEADER, position)][:limit], Position(position.segment, position.offset + 100)

    def read(self, run: str, segment: int, offset: int, size: int) -> bytes:
        self._do("read")
        return b"x" * min(size, 5)

    def append_control(self, run: str, line: Mapping[str, Any]) -> None:
        self._do("append_control")

    def read_control(self, run: str) -> list[dict[str, Any]]:
        return [{"event": "lease"}]

    def run_meta(self, run: str) -> Mapping[str, Any]:
        return self.meta

    def set_meta(self, run: str, meta: Mapping[str, Any]) -> None:
        self._do("set_meta")
        self.meta = dict(meta)


class Bench:
    """A server at work in a thread of its own, and a peer that speaks to it."""

    def __init__(self, root: Path, *, wait_for_sync: bool = True, grace_s: float = 60.0) -> None:
        self.hub, self.store, self.stop = ScriptedHub(), FailingStore(), Stop()
        self.said: list[str] = []
        self.opened: list[str] = []
        self.recovers: list[str] = []
        self._closing = ExitStack()
        listener = self._closing.enter_context(listening(root))
        self.peers = self._closing.enter_context(Peers())
        self.peer, self.far = self.peers.local(listener.path), self.peers.tcp(listener.endpoint.port, SECRET)
        edges = Edges(self.said.append, self.opened.append, self.recovers.extend, lambda: False)
        hub: Any = self.hub
        store: Any = self.store
        self.server = Server(listener, store, hub, edges, self.stop, grace_s=grace_s, wait_for_sync=wait_for_sync)
        self.thread = threading.Thread(target=self.server.run)

    def ask(self, *actions: do.Action | Callable[[bytes], do.Action]) -> None:
        """Have the hub answer the next messages with these actions, and send one."""
        self.hub.says = lambda connection, _: [action(connection) if callable(action) else action for action in actions]
        self.peer.send(wire.encode(m.Follow(None)))

    def heard(self) -> m.Message:
        """What was sent to the peer next."""
        assert self.peer.poll(int(DEADLINE_S * 1000))
        return wire.decode(self.peer.recv())

    def end(self) -> None:
        """End the server, and wait for that."""
        self.store.may_sync.set()
        for _ in range(2):
            self.stop.request()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()

    def close(self) -> None:
        if self.thread.is_alive():
            self.end()
        self._closing.close()
        self.stop.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    found.thread.start()
    yield found
    found.close()


def reply(connection: bytes) -> do.Action:
    return do.Send(connection, m.Stranger())


def failed(run: str = "r") -> RunFailed:
    error = RunFailed(5, "Input/output error", "/runs/r")
    error.run = run
    return error


# Messages.


def test_a_message_goes_to_the_hub_and_its_answer_to_the_connection(bench: Bench) -> None:
    bench.ask(reply)
    assert bench.heard() == m.Stranger()
    assert bench.hub.next("handle") == (m.Follow(None),)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([b"what?"], "version"),
        ([bytes([wire.VERSION]) + b"?"], "protocol"),
        ([bytes([wire.VERSION + 1]) + b"H"], "version"),
        ([wire.encode(m.Follow(None)), b""], "protocol"),
        ([wire.encode(m.Follow(None))[:2], wire.encode(m.Follow(None))[2:]], "protocol"),
    ],
)
def test_what_is_not_a_message_is_the_hubs_to_refuse(bench: Bench, frames: list[bytes], code: str) -> None:
    bench.peer.send_multipart(frames)
    assert bench.hub.next("broken")[1] == code


def test_both_doors_lead_to_the_hub(bench: Bench) -> None:
    bench.hub.says = lambda connection, _: [do.Send(connection, m.Stranger())]
    for peer in (bench.far, bench.peer, bench.far):
        peer.send(wire.encode(m.Follow(None)))
        assert peer.poll(int(DEADLINE_S * 1000))
        assert wire.decode(peer.recv()) == m.Stranger()


def test_who_is_gone_is_told_to_the_hub(bench: Bench) -> None:
    bench.ask(do.Send(b"unobody", m.Stranger()), do.Send(b"tnobody", m.Stranger()), reply)
    assert bench.hub.next("unreachable") == (b"unobody",)
    assert bench.hub.next("unreachable") == (b"tnobody",)
    assert bench.heard() == m.Stranger()


def test_the_operator_is_told_the_same_once(bench: Bench) -> None:
    bench.ask(do.Say("the disk is full"), do.Say("the disk is full"), do.Say("another"), reply)
    bench.heard()
    assert bench.said == ["the disk is full", "another"]


def test_outboxes_to_bring_in_are_handed_on(bench: Bench) -> None:
    bench.ask(do.Recover(["/tmp/a.outbox"]), reply)
    bench.heard()
    assert bench.recovers == ["/tmp/a.outbox"]


# Runs.


def test_a_run_is_opened_and_the_hub_told_what_it_holds(bench: Bench) -> None:
    bench.store.meta = {"key": "job", "ended_ns": 5}
    bench.ask(do.OpenRun("r", {}))
    assert bench.hub.next("opened") == ("r", {}, [{"event": "lease"}])
    assert bench.opened == ["r"]
    assert bench.said == ["run r: one segment was cut"]
    assert bench.store.meta == {"key": "job"}, "a run that goes on has not ended"


def test_a_run_that_cannot_be_opened_is_told_to_the_hub(bench: Bench) -> None:
    bench.store.fails["open_run"] = StoreError("another daemon has it")
    bench.ask(do.OpenRun("r", {}))
    assert bench.hub.next("unopened") == ("r", "another daemon has it")
    assert bench.opened == []


def test_news_say_how_far_the_run_is_stored(bench: Bench) -> None:
    bench.ask(do.OpenRun("r", {}), lambda connection: do.Tell(connection, "r", 99, True))
    assert bench.heard() == m.News("r", 2, 512, 99, live=True, closing=False, begin_segment=2, begin_offset=512)


def test_runs_that_ended_are_marked_so(bench: Bench) -> None:
    bench.end()
    bench.server.close_runs()
    assert bench.store.meta.keys() == {"key", "ended_ns"}
    bench.store.fails["set_meta"] = FULL
    bench.server.close_runs()
    assert bench.said == [f"run r: {FULL}"]


# Pages.


@pytest.mark.parametrize(("size", "count"), [(3, 3), (0, 1), (2**40, 5)])
def test_bytes_are_read_from_the_store(bench: Bench, size: int, count: int) -> None:
    bench.ask(lambda connection: do.Read(connection, m.Fetch(4, "r", "bytes", 1, 0, size)))
    assert bench.heard() == m.Page(4, b"x" * count)


def test_headers_are_read_from_the_store(bench: Bench) -> None:
    bench.ask(lambda connection: do.Read(connection, m.Fetch(4, "r", "index", 1, 256, 10)))
    page = bench.heard()
    assert isinstance(page, m.Page)
    assert unpack_index(page.data) == ([(HEADER, Position(1, 256))], Position(1, 356))


@pytest.mark.parametrize("what", ["bytes", "index"])
def test_what_cannot_be_read_is_reported(bench: Bench, what: str) -> None:
    bench.store.fails = {"read": StoreError("it was removed"), "index": StoreError("it was removed")}
    bench.ask(lambda connection: do.Read(connection, m.Fetch(4, "r", what, 1, 0, 10)))
    assert bench.heard() == m.Report(4, "it was removed", None)


# Batches.


def test_a_batch_is_safe_once_a_sync_has_covered_it(bench: Bench) -> None:
    bench.store.may_sync.clear()
    bench.ask(do.Append("r", HEADER, PAYLOAD), reply)
    bench.heard()
    assert bench.hub.next("handle")
    assert bench.hub.told.empty(), "nothing is acknowledged while the disk is busy"
    bench.store.may_sync.set()
    assert bench.hub.next("stored") == ({("r", STREAM): 3},)


def test_without_waiting_for_syncs_a_batch_is_acknowledged_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, wait_for_sync=False)
    bench.store.may_sync.clear()
    bench.thread.start()
    try:
        bench.ask(do.Append("r", HEADER, PAYLOAD), reply)
        assert bench.hub.next("stored") == ({("r", STREAM): 3},)
    finally:
        bench.close()


def test_a_batch_that_cannot_be_stored_stalls_its_run_until_there_is_room(bench: Bench) -> None:
    bench.store.fails["append"] = FULL
    bench.ask(do.Append("r", HEADER, PAYLOAD))
    assert bench.hub.next("stall") == ("r", str(FULL))
    assert bench.hub.next("unstored") == ("r", HEADER, str(FULL))
    bench.store.has_room = True
    assert bench.hub.next("resume") == ("r",)


def test_a_stream_that_cannot_be_stored_stalls_its_run(bench: Bench) -> None:
    bench.store.fails["put_stream"] = FULL
    bench.ask(do.PutStream("r", STREAM, INFO))
    assert bench.hub.next("stall") == ("r", str(FULL))


def test_a_journal_that_cannot_be_written_is_told_and_stalls_nothing(bench: Bench) -> None:
    bench.store.fails["append_control"] = FULL
    bench.ask(do.Control("r", {"event": "lease"}), reply)
    bench.heard()
    assert bench.said == [f"run r: the control journal could not be written: {FULL}"]
    assert bench.hub.runs["r"].stalled == ""


def test_a_failed_sync_acknowledges_nothing_and_the_run_is_opened_again(bench: Bench) -> None:
    bench.store.may_sync.clear()
    bench.ask(do.Append("r", HEADER, PAYLOAD), reply)
    bench.heard()
    bench.store.fails = {"sync": failed(), "open_run": FULL}
    bench.store.may_sync.set()
    assert bench.hub.next("stall")[0] == "r"
    bench.store.has_room = True  # which does not help: only opening it says where it stands
    del bench.store.fails["open_run"], bench.store.fails["sync"]
    assert bench.hub.next("reopened") == ("r", {})
    assert not {"stored", "resume"} & {*bench.hub.skipped}


# The end.


def test_a_server_with_nothing_to_wait_for_ends_at_the_first_request(bench: Bench) -> None:
    bench.stop.request()
    bench.thread.join(DEADLINE_S)
    assert not bench.thread.is_alive()
    assert bench.hub.next("stop") == ()
    assert bench.said == []


def test_ranks_are_waited_for_until_the_second_request(bench: Bench) -> None:
    bench.hub.is_idle = False
    bench.stop.request()
    bench.hub.next("stop")
    bench.ask(reply)
    assert bench.heard() == m.Stranger(), "it still serves"
    assert bench.said == ["waiting for ranks to end, at most 60 s; press Ctrl-C again to stop now"]
    bench.end()


def test_ranks_are_waited_for_no_longer_than_the_grace(tmp_path: Path) -> None:
    bench = Bench(tmp_path, grace_s=0.0)
    bench.hub.is_idle = False
    bench.thread.start()
    bench.stop.request()
    bench.thread.join(DEADLINE_S)
    assert not bench.thread.is_alive()
    bench.close()


def test_what_was_taken_last_is_synced_and_acknowledged(bench: Bench) -> None:
    bench.store.may_sync.clear()
    bench.ask(do.Append("r", HEADER, PAYLOAD), reply)
    bench.heard()
    bench.end()
    assert bench.hub.next("stored") == ({("r", STREAM): 3},)


def test_a_last_sync_that_fails_is_told(bench: Bench) -> None:
    bench.ask(do.Append("r", HEADER, PAYLOAD), reply)
    bench.hub.next("stored")
    bench.store.fails["sync"] = failed()
    bench.end()
    assert any(text.startswith("the last records could not be synced: ") for text in bench.said)


def test_who_follows_is_told_that_this_is_the_end_while_it_reads(bench: Bench) -> None:
    connections: list[bytes] = []

    def follow(connection: bytes) -> do.Action:
        connections.append(connection)
        return do.Send(connection, m.Stranger())

    bench.ask(follow)
    bench.heard()
    bench.hub.followers.by_connection[connections[0]] = None
    bench.end()
    bench.hub.says = lambda connection, message: [do.Send(connection, m.Page(1, b"rest"))]
    bench.peer.send(wire.encode(m.Fetch(1, "r", "bytes", 1, 0, 10)))
    bench.peer.send(wire.encode(m.Bye(STREAM, 3)))  # a rank says that to the next daemon
    printing = iter([True, True])

    def is_printing() -> bool:
        if next(printing, False):
            return True
        bench.hub.followers.by_connection.clear()
        return False

    bench.server.farewell(is_printing)
    heard = {type(bench.heard()) for _ in range(2)}
    assert heard == {m.News, m.Page}
    handled = [what[1] for what in bench.hub.told.queue if what[0] == "handle"]
    assert m.Bye(STREAM, 3) not in handled
    assert LAST_NEWS.closing


def test_with_nobody_who_follows_there_is_no_farewell(bench: Bench) -> None:
    bench.end()
    bench.server.farewell(lambda: False)
    assert not bench.peer.poll(0)
