"""Records read, merged and printed each second: run me with `python tests/bench/read.py [--records N] [--ranks N]`.

A run is made in a temporary directory as a collector would store it, then read by the shipped path: `Cursor`, merge,
renderer. Each line gives the processor time, the median of some rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from tlogs.cli.read import few_collections
from tlogs.reading.cursor import Cursor
from tlogs.reading.entry import Entry
from tlogs.reading.filters import Filter, parse_pattern
from tlogs.reading.fold import Fold
from tlogs.reading.json_lines import JsonRenderer
from tlogs.reading.local_run import LocalRun
from tlogs.reading.text import TextRenderer
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.rankset import RankSet
from tlogs_shared.storage.batch import Header, seal
from tlogs_shared.storage.layout import segment_name
from tlogs_shared.storage.record import Fields, pack
from tlogs_shared.storage.segment import SegmentHeader, pack_stream

BATCH = 1500
STEP_NS = 1_000_000
WARNING_EVERY = 100_000


def make_run(path: Path, records: int, ranks: int) -> None:
    """A run of *ranks* that log a millisecond apart, with a WARNING of rank 3 now and then."""
    compressor = zstandard.ZstdCompressor()
    path.mkdir(parents=True)
    start = time.time_ns() - records // ranks * STEP_NS
    with (path / segment_name(1)).open("wb") as file:
        file.write(SegmentHeader(path.name, 1).pack())
        for rank in range(ranks):
            info = StreamInfo(Origin(host="n1", pid=1000 + rank, rank=rank, local_rank=rank, world_size=ranks))
            header, payload = pack_stream(bytes([rank]) * 16, info, 0)
            file.write(header.pack() + payload)
        for first in range(0, records // ranks, BATCH):
            for rank in range(ranks):
                found = []
                for number in range(first, min(first + BATCH, records // ranks)):
                    warn = rank == 3 and number % (WARNING_EVERY // ranks) == 0
                    found.append(
                        Fields(
                            start + number * STEP_NS + rank * 1000,
                            30 if warn else 20,
                            "torch.distributed.distributed_c10d",
                            "step %d loss %.4f lr %s rank %d",
                            [number, 1 / (number + 1), "1e-3", rank],
                            None,
                            "torch/distributed/distributed_c10d.py",
                            481,
                            "train_step",
                            "MainThread",
                            None,
                        )
                    )
                header = Header(
                    stream=bytes([rank]) * 16,
                    level=max(record.levelno for record in found),
                    first=first,
                    count=len(found),
                    first_ts=found[0].ts,
                    last_ts=found[-1].ts,
                    low_ts=found[-1].ts,
                )
                header, payload = seal(header, b"".join(map(pack, found)), compressor)
                file.write(header.pack() + payload)


def measure(name: str, run: Path, records: int, work: Callable[[LocalRun], int], rounds: int = 3) -> None:
    """Print how long *work* takes."""
    times = []
    count = 0
    for _ in range(rounds):
        begin = time.process_time()
        with few_collections(), LocalRun(run) as archive:
            count = work(archive)
        times.append(time.process_time() - begin)
    median = statistics.median(times)
    print(f"{name:<44}{median * 1000:>9.0f} ms {records / median / 1000:>9,.0f} k records/s read {count:>10,} printed")


def printed(entries: Iterator[list[Entry]], show: Callable[[list[Entry]], str]) -> int:
    """Render everything; the number of lines."""
    return sum(len(show(found).encode("utf-8", "backslashreplace")) and len(found) for found in entries)


def main() -> None:
    """Make the run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--ranks", type=int, default=8)
    options = parser.parse_args()
    records = options.records
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        make_run(run, records, options.ranks)
        size = sum(path.stat().st_size for path in run.iterdir())
        print(f"{records:,} records of {options.ranks} ranks, {size / records:.1f} bytes each\n")
        measure("merged, not printed", run, records, lambda run: sum(map(len, Cursor(run).whole())))
        measure("cat, text", run, records, lambda run: printed(Cursor(run).whole(), TextRenderer().entries))
        measure("cat, json", run, records, lambda run: printed(Cursor(run).whole(), JsonRenderer().entries))
        measure(
            "cat, text with colours",
            run,
            records,
            lambda run: printed(Cursor(run).whole(), TextRenderer(colour=True, escape=True).entries),
        )
        fold = Fold()
        measure(
            "cat, folded text",
            run,
            records,
            lambda run: printed(Cursor(run).whole(), lambda entries: TextRenderer().groups(fold.add(entries))),
            rounds=1,
        )
        measure(
            "cat --grep 'rank 3'",
            run,
            records,
            lambda run: printed(Cursor(run, Filter(grep=parse_pattern("rank 3"))).whole(), TextRenderer().entries),
        )
        measure(
            "cat --level WARNING",
            run,
            records,
            lambda run: printed(Cursor(run, Filter(level=30)).whole(), TextRenderer().entries),
        )
        measure(
            "first screen of cat --ranks 3",
            run,
            records,
            lambda run: len(next(Cursor(run, Filter(ranks=RankSet.of([3]))).whole())),
        )
        measure("tail -n 10", run, records, lambda run: len(Cursor(run).last(10)))


if __name__ == "__main__":
    main()
