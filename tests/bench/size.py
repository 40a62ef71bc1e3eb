"""Bytes on disk of a stored record: run me with `python tests/bench/size.py [--quick]`.

What a job of four ranks says (training steps, c10d at DEBUG, recompiles of some lines each, warnings with a
traceback) is put into the shipped outbox, cut as the forwarder cuts, compressed as it compresses, and stored by the
shipped store; its segment files are counted. A batch that is sent because 20 ms have passed holds fewer records the
slower a rank logs, and then each bears a larger part of the batch's header: so the same once as fast as ranks can,
and at three slower paces, in the time that the outbox is told.

Beside it: the same records as text, as `tlogs cat` prints them, and as plain msgpack.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import zstandard
from tlogs.worker.forwarder import COMPRESSION_LEVEL

from mix import START_NS, job
from tlogs.outbox.outbox import Outbox
from tlogs.outbox.reader import Reader, open_outbox
from tlogs.outbox.ring import Extent
from tlogs.reading.cursor import Cursor
from tlogs.reading.local_run import LocalRun
from tlogs.reading.text import TextRenderer
from tlogs_collector.store.local.local_store import LocalStore
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.batch import Header, seal

RANKS = 4
AGE_NS = 20_000_000
CAPACITY = 4 << 20
PACES = (None, 1000, 100, 10)
"""Records a second of each rank; None: faster than the forwarder's pace."""


class Clock:
    """The time that an outbox is told."""

    ns = START_NS

    def __call__(self) -> int:
        return self.ns


def extents(
    outbox: Outbox, reader: Reader, clock: Clock, rank: int, records: int, pace: int | None
) -> Iterator[Extent]:
    """Log, and cut as the forwarder does."""
    cut_ns = clock.ns
    for record in job(rank, records):
        if pace is not None and clock.ns - cut_ns >= AGE_NS:
            cut_ns = clock.ns
            while (extent := reader.cut(True)) is not None:
                yield extent
        if not outbox.append(*record[1:]):
            raise RuntimeError("the outbox has no room")
        clock.ns += 10_000 if pace is None else 1_000_000_000 // pace
        while (extent := reader.cut(False)) is not None:
            yield extent
    while (extent := reader.cut(True)) is not None:
        yield extent


def store(directory: Path, records: int, pace: int | None) -> tuple[int, int]:
    """Store a run in *directory*; the size of its segments and of the records in them, unpacked."""
    compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL)
    name, plain = "run", 0
    runs = LocalStore(directory)
    runs.open_run(name, {})
    for rank in range(RANKS):
        stream, clock = bytes([rank]) * 16, Clock()
        origin = Origin("node1", 1000 + rank, rank=rank, local_rank=rank, world_size=RANKS, key="master:node1:29500")
        runs.put_stream(name, stream, StreamInfo(origin))
        outbox = Outbox(directory / "outbox", stream=stream, meta={}, capacity=CAPACITY, clock=clock)
        reader = open_outbox(outbox.path, settle_s=0)
        assert reader.take()
        for extent in extents(outbox, reader, clock, rank, records, pace):
            header = Header(
                stream=stream,
                level=extent.level,
                first=extent.first,
                count=extent.count,
                first_ts=extent.first_ts,
                last_ts=extent.last_ts,
                low_ts=extent.last_ts,
            )
            header, payload = seal(header, extent.view, compressor)
            runs.append(name, header, payload)
            plain += header.raw_size
            reader.acknowledge(extent.end)
        reader.close()
        outbox.close(delete=True)
    runs.close()
    return sum(file.stat().st_size for file in (directory / name).glob("segment-*.tlf")), plain


def text_size(run: Path) -> tuple[int, int]:
    """How many records are stored, and their size as text."""
    renderer, count, size = TextRenderer(), 0, 0
    with LocalRun(run) as archive:
        for entries in Cursor(archive).whole():
            count += len(entries)
            size += len(renderer.entries(entries).encode("utf-8", "backslashreplace"))
    return count, size


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few records: whether it runs")
    records = 500 if parser.parse_args().quick else 20_000
    rows: list[tuple[str, float]] = []
    for pace in PACES:
        with tempfile.TemporaryDirectory(prefix="tlogs-bench-") as directory:
            stored, plain = store(Path(directory), records, pace)
            if pace is None:
                count, text = text_size(Path(directory, "run"))
                if count != RANKS * records:
                    raise RuntimeError(f"{count} records are stored, {RANKS * records} were logged")
                rows += [("text", text / count), ("plain msgpack", plain / count)]
            name = "stored, full batches" if pace is None else f"stored, {pace:,} records/s a rank"
            rows.append((name, stored / (RANKS * records)))
    print(f"size: {RANKS * records:,} records of {RANKS} ranks, bytes a record; goal: 25 or fewer")
    print(f"{'':<32}{'bytes':>8}{'of text':>10}")
    for name, size in rows:
        print(f"{name:<32}{size:>8.1f}{size / rows[0][1]:>9.0%}")


if __name__ == "__main__":
    main()
