"""The main job: ranks log, the collector stores and prints, a person reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tlogs_shared.host import is_running

if TYPE_CHECKING:
    from tests.jobs.conftest import Lab

pytestmark = pytest.mark.multiprocess

ByRank = Callable[[list[dict[str, Any]]], dict[int, list[int]]]
STEPS = "for n in range({count}): log.info('step %d', n)\n"
UNTIL_TOLD = "print('ready', flush=True)\ninput()\n"


def test_four_ranks_are_stored_printed_and_counted_whole(lab: Lab, by_rank: ByRank) -> None:
    """The closing line, `tlogs cat` and the collector's own output agree, and each rank is complete from 0."""
    collector = lab.collector()
    ranks = [lab.worker(STEPS.format(count=500), rank, 4, collector=collector) for rank in range(4)]
    for rank in ranks:
        rank.ends()
    [closing] = collector.stop()
    records = lab.cat()
    assert (closing.ranks, closing.dropped, closing.lost, closing.wordless) == (4, 0, 0, None)
    assert closing.records == len(records) == 2000
    assert by_rank(records) == {rank: list(range(500)) for rank in range(4)}
    printed = lab.tlogs("cat", "--dir", str(collector.directory)).splitlines()
    assert sorted(collector.out.splitlines()) == sorted(printed)
    assert list(lab.outboxes.iterdir()) == [], "an outbox of which all is stored is deleted"


def test_the_collector_prints_a_run_again_only_from_where_it_began_to_write_it(lab: Lab) -> None:
    """What a run held before the collector was started is not news."""
    first = lab.collector("--run", "job")
    lab.worker("log.info('before')\n", collector=first).ends()
    first.stop()
    second = lab.collector("--run", "job")
    lab.worker("log.info('after')\n", collector=second).ends()
    [closing] = second.stop()
    assert closing.records == 2
    assert first.messages == ["before"]
    assert second.messages == ["after"]


def test_two_jobs_at_two_collectors_see_nothing_of_each_other(lab: Lab) -> None:
    """Two users on one machine, each with a collector: no record goes astray, at no speed."""
    collectors = {name: lab.collector("--quiet", name=name) for name in ("one", "two")}
    workers = [
        lab.worker(f"for n in range(300): log.info('{name}')\n", rank, 2, collector=collector)
        for name, collector in collectors.items()
        for rank in range(2)
    ]
    for worker in workers:
        worker.ends()
    for name, collector in collectors.items():
        [closing] = collector.stop()
        assert closing.records == 600
        assert {record["message"] for record in lab.cat(name=name)} == {name}


def test_with_several_live_runs_a_change_of_levels_must_name_one(lab: Lab) -> None:
    """Without --run nothing is changed, and the runs are listed; with it only that run's rank answers."""
    collector = lab.collector("--quiet")
    workers = [lab.worker(UNTIL_TOLD, collector=collector, TLOGS_RUN=run) for run in ("alpha", "beta")]
    for worker in workers:
        worker.says("ready")
    lab.wait_for(lambda: len(json.loads(lab.tlogs("runs", "--json", "--dir", str(collector.directory)))) == 2)
    said = lab.tlogs("set-logs", "dynamo=DEBUG", status=2)
    assert said.count("\n") == 1
    assert "alpha" in said
    assert "beta" in said
    answer = json.loads(lab.tlogs("set-logs", "dynamo=DEBUG", "--run", "beta", "--json"))
    assert answer["applied"] == "0"
    for worker in workers:
        worker.tell()
        worker.ends()
    assert {closing.name for closing in collector.stop()} == {"alpha", "beta"}


def test_a_follower_elsewhere_reads_the_last_records_when_the_collector_ends(lab: Lab) -> None:
    """A tail that pulls its pages from the collector misses nothing of what came just before the end."""
    collector = lab.collector("--quiet")
    worker = lab.worker("log.info('hello')\n" + UNTIL_TOLD + STEPS.format(count=2000), collector=collector)
    worker.says("ready")
    # Under another name the directory is nobody's here, as on another machine.
    elsewhere = lab.root / "elsewhere.json"
    notice = json.loads((collector.directory / "collector.json").read_text())
    elsewhere.write_text(json.dumps({**notice, "boot_id": "another machine"}))
    tail = lab.start_tlogs("tail", "--collector", str(elsewhere), "-n", "all")
    tail.says("hello")
    worker.tell()
    worker.ends()
    [closing] = collector.stop()
    tail.ends()
    assert closing.records == 2001
    assert tail.messages == ["hello", *(f"step {n}" for n in range(2000))]


def test_a_collector_that_is_killed_takes_its_printer_with_it(lab: Lab) -> None:
    """Else the printer of the dead one would print beside that of the next."""
    collector = lab.collector()
    lab.worker("log.info('hello')\n", collector=collector).ends()
    collector.says("hello")
    collector.kill()
    lab.wait_for(lambda: not any(is_running(pid) for pid in lab.marked()))


def test_a_collector_that_nobody_came_to_ends_at_once_and_leaves_no_trace(lab: Lab) -> None:
    """Also while its printer is only starting."""
    collector = lab.collector()
    assert collector.stop() == []
    assert collector.out == ""
    assert not (collector.directory / "collector.json").exists()
    assert list((lab.root / "state/tlogs/live").iterdir()) == []
