"""What a stream keeps of where it belongs, for whoever brings its outbox in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tlogs.access.agent_messages import Registered
from tlogs.outbox.outbox import Outbox
from tlogs.outbox.reader import open_outbox
from tlogs.worker.config import Target
from tlogs.worker.stream import Owner, Stream
from tlogs_shared.origin import Origin


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    """A stream of a run that was named, without an agent."""
    owner = Owner(lambda: None, lambda *_: ({}, b""), lambda: False, lambda _: None, loud=False)
    outbox = Outbox(tmp_path / "outbox", stream=b"s" * 16, meta={}, capacity=1 << 20)
    found = Stream(Origin("n1", 7, rank=0, run="mine"), Target("127.0.0.1:5655", None, None, False), outbox, owner)
    yield found
    found.close(0.0)


def run_in(stream: Stream) -> str | None:
    """The run that the outbox names."""
    reader = open_outbox(stream.outbox.path)
    try:
        return Origin.from_map(reader.meta["origin"]).run
    finally:
        reader.close()


def test_the_run_that_was_named_holds_until_a_collector_names_one(stream: Stream) -> None:
    """An agent that has no answer yet names none."""
    stream._registered(Registered(None, 0, "tcp://127.0.0.1:5655", "waiting"))
    assert run_in(stream) == "mine"
    stream.relabel(Origin("n1", 7, rank=3, run="mine"))
    assert run_in(stream) == "mine"
    stream._registered(Registered("named by the collector", 0, "tcp://127.0.0.1:5655", "connected"))
    assert run_in(stream) == "named by the collector"
