"""A whole collector in this process: the parts put together, from the first line to the last."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import zmq
from tests.limits import scaled

from tlogs_collector.daemon import Settings, run
from tlogs_collector.listener import Listener
from tlogs_collector.stop import Stop
from tlogs_shared.origin import Origin
from tlogs_shared.protocol import messages as m
from tlogs_shared.protocol import wire
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.storage.batch import Header, seal

DEADLINE_S = scaled(20.0)
STREAM = b"s" * 16


def test_a_run_is_announced_stored_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlogs_collector.recoverer.outbox_places", lambda _: [])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    runs = tmp_path / "runs"
    runs.mkdir()
    settings = Settings(
        directory=runs,
        run="mine",
        quiet=True,
        secret=None,
        wait_for_sync=True,
        grace_s=60.0,
        max_bytes=1 << 30,
        keep_free=0.0,
        retain_s=None,
    )
    listener, stop = Listener(Endpoint("127.0.0.1", 0), None, asked=True), Stop()
    said: list[str] = []
    daemon = threading.Thread(target=run, args=(settings, listener, stop, said.append))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    rank = context.socket(zmq.DEALER)
    rank.linger = 0
    rank.connect(str(listener.endpoint))
    daemon.start()

    def heard(kind: type[m.Message]) -> m.Message:
        while rank.poll(int(DEADLINE_S * 1000)):
            if isinstance(message := wire.decode(rank.recv_multipart()), kind):
                return message
        raise AssertionError(f"no {kind.__name__}")

    rank.send_multipart(wire.encode(m.Hello(STREAM, Origin(host="n1", pid=7, rank=0), 0, 0, b"n" * 16)))
    assert isinstance(welcome := heard(m.Welcome), m.Welcome)
    assert welcome.run == "mine"
    notice = json.loads((runs / "collector.json").read_text())
    assert (notice["endpoint"], notice["runs"]) == (str(listener.endpoint), ["mine"])
    stop.request()
    rank.send_multipart(wire.encode(m.Batch(*seal(Header(STREAM, first=0, count=3), b"abc"))))
    assert isinstance(ack := heard(m.Ack), m.Ack)
    assert ack.stored == 3
    rank.send_multipart(wire.encode(m.Bye(3)))
    daemon.join(DEADLINE_S)
    assert not daemon.is_alive(), "every rank has ended"
    assert said[0] == f"listening on {listener.endpoint}, storing in {runs}"
    assert said[-1] == "run mine: 1 rank, 3 records, 0 dropped, 0 lost"
    assert "ended_ns" in json.loads((runs / "mine" / "run.json").read_text())
    assert not (runs / "collector.json").exists()
    rank.close()
    context.term()
    stop.close()
