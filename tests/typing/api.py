"""Ordinary use of the public API, type-checked by mypy with the rest; nothing here is run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timezone

import tlogs


def in_a_worker() -> bool:
    with tlogs.init(collector="node0:5655", run="mine", rank=0, local_rank=0, world_size=8) as session:
        name: str | None = session.run
        endpoint: str | None = session.collector
        print(name, endpoint, session.rank, tlogs.__version__.upper())
    tlogs.set_logs(dynamo=logging.DEBUG, guards=True, modules={"my.module": logging.INFO})
    log: logging.Logger = tlogs.getArtifactLogger("my.module", "guards")
    log.debug("x")
    tlogs.register_log("mine", "my.module")
    tlogs.register_artifact("shapes", "what shapes come", off_by_default=True)
    result: tlogs.Result | None = tlogs.broadcast(recompiles=True, c10d=logging.DEBUG, ranks="0-7", ttl=60, wait=5.0)
    print(result)
    return tlogs.flush(timeout=5.0)


def as_an_operator() -> tlogs.RankSet:
    try:
        with tlogs.connect("tcp://node0:5655", run="mine", timeout=5.0) as job:
            result = job.set_logs(c10d=logging.DEBUG, ranks="0-7", hosts=None, ttl=600, replace=False, force=False)
            for rank, why in result.ignored.items():
                print(rank + 1, why.upper())
            print(result.applied, result.failed, result.silent, result.until, repr(job))
            states: dict[int, str] = {row["rank"]: row["state"] for row in job.ranks()}
            levels = job.levels()
            ends: list[int | None] = [lease["ends_ns"] for lease in levels["leases"]]
            components = levels["ranks"]["0"].get("components", {})
            print(states, ends, components["c10d"]["effective"].lower())
            ended: Sequence[int] = job.reset().ended
            print(ended)
            for record in job.tail(ranks="0", level="INFO", follow=False):
                print(record.rank, record.message, record.asdict()["time"])
            return result.applied
    except tlogs.RequestRefused:
        return tlogs.RankSet.parse("^5")
    except tlogs.AccessDenied as error:
        raise SystemExit(str(error)) from error
    except tlogs.CollectorUnavailable:
        return tlogs.RankSet()


def afterwards() -> int:
    found = 0
    for record in tlogs.read("latest", level="WARNING", ranks=0, since=datetime(2026, 1, 31, tzinfo=timezone.utc)):
        found += record.rank == 3
    newest: list[tlogs.RunSummary] = tlogs.runs()
    for run in newest:
        print(run.name, run.records)
    return found
