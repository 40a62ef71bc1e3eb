"""The agent with real workers and a real hub: records, ends, and what happens when one of the three goes."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from tests.client.agent.conftest import Scene

from tlogs.agent.watch import INFO, PIDFD, ZOMBIE
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.messages import Bye, Change

pytestmark = [pytest.mark.multiprocess, pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")]


def the_bye(scene: Scene) -> Bye:
    assert scene.collector is not None
    [bye] = [message for message in scene.collector.heard if isinstance(message, Bye)]
    return bye


def test_records_reach_the_collector_and_are_acknowledged_in_the_outbox(scene: Scene) -> None:
    scene.collects()
    agent = scene.agent()
    worker = scene.worker()
    worker.does("register()")
    worker.does("for n in range(3): log(f'record {n}')")
    scene.until(lambda: scene.stored(worker) == ["record 0", "record 1", "record 2"])
    scene.until(lambda: agent.wards[worker.stream].acknowledged == 3)
    worker.does("assert outbox.acknowledged == 3")
    worker.does("state = hear(m.Registered)")
    worker.does("while state.state != 'connected': state = hear(m.Registered)")
    worker.does("assert (state.run, state.endpoint) == ('run', collector), state")


def test_a_flush_sends_at_once_also_while_nothing_moved_for_long(scene: Scene) -> None:
    scene.collects()
    agent = scene.agent()
    worker = scene.worker()
    worker.does("register()")
    scene.until(lambda: all(ward.look_due_s > 0 for ward in agent.wards.values()) and agent.wards)
    [ward] = agent.wards.values()
    worker.does("log('late'); ")
    ward.look_due_s = float("inf")
    worker.does("say(m.Flush(1))")
    scene.until(lambda: scene.stored(worker) == ["late"])


DEATHS: list[Any] = [
    ("os.kill(os.getpid(), 9)", {"how": "killed", "signal": "SIGKILL"}, "was killed by SIGKILL"),
    ("os._exit(3)", {"how": "failed", "code": 3}, "failed with exit status 3"),
    ("os._exit(0)", {"how": "finished", "code": 0}, "finished"),
    (
        "say(m.Failing('ValueError: nan')); os._exit(1)",
        {"how": "failed", "code": 1, "exception": "ValueError: nan"},
        "failed: ValueError: nan",
    ),
    (
        "log('uncaught ValueError: nan', 50, 'tlogs.crash'); os._exit(1)",
        {"how": "failed", "code": 1, "exception": "ValueError: nan"},
        "failed: ValueError: nan",
    ),
    ("say(m.Bye(1, 'exit')); os._exit(0)", {"how": "finished", "code": 0}, "finished"),
    ("say(m.Bye(1, 'exit')); os.abort()", {"how": "killed", "signal": "SIGABRT"}, "was killed by SIGABRT"),
]


@pytest.mark.parametrize(("code", "end", "text"), DEATHS)
def test_last_words_and_the_end_follow_each_other(scene: Scene, code: str, end: dict[str, Any], text: str) -> None:
    collector = scene.collects()
    agent = scene.agent()
    worker = scene.worker(2)
    worker.does("register()")
    scene.until(lambda: agent.wards)
    worker.ends(f"log('last words'); {code}")
    scene.until(lambda: not agent.wards)
    *_, last_words, told = [text for text in scene.stored(worker) if "uncaught" not in text]
    assert last_words == "last words"
    assert told.startswith(f"rank 2 attempt 0 {text} (pid {worker.pid})")
    assert not worker.path.exists()
    found = the_bye(scene).end
    assert found is not None
    assert {name: value for name, value in found.as_map().items() if name != "ended_ns"} == end
    record = collector.streams[worker.stream].records[-1]
    assert record.extra is not None
    assert record.extra["stream"] == "tlogs"
    assert record.ts >= collector.streams[worker.stream].records[-2].ts
    assert collector.streams[worker.stream].headers[-1].recovered


def test_a_worker_that_ended_before_the_agent_came_is_known_to_have(scene: Scene) -> None:
    """It connected to the socket that its starter had bound; it was reaped before the agent accepted."""
    scene.collects()
    agent = scene.agent()
    worker = scene.worker()
    worker.begins("log('only words'); register(); os.kill(os.getpid(), 9)")
    worker.process.wait()
    scene.until(lambda: scene.stored(worker)[1:] and not agent.wards)
    first, told = scene.stored(worker)
    assert first == "only words"
    # Before Linux 6.16 nothing leads to a process that was reaped.
    assert "killed by SIGKILL" in told or "how is not known" in told


@pytest.mark.parametrize(
    ("ways", "reaped", "how"),
    [
        ({PIDFD, ZOMBIE, INFO}, True, "killed"),
        ({PIDFD, ZOMBIE}, False, "killed"),
        ({ZOMBIE}, False, "killed"),
        ({PIDFD}, True, "ended"),
        (set(), True, "ended"),
    ],
)
def test_each_way_of_the_kernel_is_enough(scene: Scene, ways: set[str], reaped: bool, how: str) -> None:
    scene.collects()
    agent = scene.agent(frozenset(ways))
    worker = scene.worker()
    worker.does("register(); log('last words')")
    scene.until(lambda: agent.wards)
    os.kill(worker.pid, signal.SIGKILL)
    if reaped:
        worker.process.wait()
    scene.until(lambda: not agent.wards)
    end = the_bye(scene).end
    assert end is not None
    if INFO not in ways or end.how != "ended":  # an old kernel has no such way
        assert end.how == how


def test_a_zombie_that_nobody_reaps_and_that_said_bye_has_finished(scene: Scene) -> None:
    scene.collects()
    agent = scene.agent(frozenset({PIDFD, ZOMBIE}))
    worker = scene.worker()
    worker.does("register(); say(m.Bye(0, 'exit'))")
    worker.begins("os._exit(0)")
    scene.until(lambda: agent.wards)
    scene.until(lambda: not agent.wards)
    assert scene.stored(worker) == [f"rank 0 attempt 0 finished (pid {worker.pid})"]


def test_shutdown_ends_the_stream_and_not_the_process(scene: Scene) -> None:
    scene.collects()
    agent = scene.agent()
    worker = scene.worker()
    worker.does("register(); log('one')")
    worker.does("say(m.Bye(1, 'shutdown')); line.close(); outbox.close(delete=False)")
    scene.until(lambda: not agent.wards and scene.stored(worker)[1:])
    assert scene.stored(worker) == ["one", f"rank 0 attempt 0 finished (pid {worker.pid})"]
    assert the_bye(scene).end is None
    assert not worker.path.exists()


def test_a_worker_that_closed_all_its_descriptors_is_alive(scene: Scene) -> None:
    scene.collects()
    agent = scene.agent()
    worker = scene.worker()
    worker.does("register(); log('one')")
    scene.until(lambda: scene.stored(worker) == ["one"])
    worker.does("line.close(); os.close(outbox.fd)")
    worker.does("log('two')")
    scene.until(lambda: scene.stored(worker) == ["one", "two"])
    [ward] = agent.wards.values()
    assert ward.line is None
    assert not ward.ended_ns


def test_a_worker_that_registers_again_keeps_its_stream(scene: Scene) -> None:
    scene.collects()
    agent = scene.agent()
    worker = scene.worker()
    worker.does("register(); log('one')")
    scene.until(lambda: scene.stored(worker) == ["one"])
    worker.does("register(); decoder, waiting = m.Decoder(), []; log('two')")
    worker.does("assert hear(m.Registered).run == 'run'")
    scene.until(lambda: scene.stored(worker) == ["one", "two"])
    assert len(agent.wards) == 1


def test_the_next_agent_goes_on_where_the_last_one_was_killed(scene: Scene) -> None:
    scene.collects()
    first = scene.agent()
    worker = scene.worker()
    worker.does("register(); log('one')")
    scene.until(lambda: scene.stored(worker) == ["one"])
    worker.does("log('two')")
    first.close()  # its locks end with it, as they would if it was killed
    scene.agents.clear()
    second = scene.agent()
    worker.does("register(); log('three')")
    scene.until(lambda: scene.stored(worker) == ["one", "two", "three"])
    worker.kill()
    scene.until(lambda: not second.wards)
    assert len(scene.stored(worker)) == 4


def test_an_outbox_that_another_agent_holds_is_left_alone_until_it_lets_go(scene: Scene) -> None:
    """Also where that agent is stopped: nobody takes over from it."""
    scene.collects()
    stopped = scene.agent()
    worker = scene.worker()
    worker.does("register(); log('one')")
    scene.until(lambda: scene.stored(worker) == ["one"])
    other = scene.agent()
    worker.does("register(); decoder, waiting = m.Decoder(), []; log('two')")
    scene.until(lambda: other.wards)
    [ward] = other.wards.values()
    for _ in range(30):
        other.turn(0.01)
    assert not ward.is_linked
    assert scene.stored(worker) == ["one"]
    stopped.close()
    scene.agents.remove(stopped)
    scene.until(lambda: scene.stored(worker) == ["one", "two"])


def test_what_dead_workers_left_is_found_and_brought_in(scene: Scene) -> None:
    scene.collects()
    dead = scene.worker(5)
    dead.does("log('nobody heard this')")
    dead.kill()
    agent = scene.agent()
    worker = scene.worker()
    worker.does("register(); log('one')")
    scene.until(lambda: scene.stored(dead)[1:] and dead.stream not in agent.wards)
    assert scene.stored(dead)[0] == "nobody heard this"
    assert "rank 5 attempt 0 ended" in scene.stored(dead)[1]
    assert not dead.path.exists()


def test_the_record_of_an_end_is_not_older_than_the_last_words(scene: Scene) -> None:
    """Also where they were sent, and acknowledged, by an agent that was killed with the worker."""
    collector = scene.collects()
    first = scene.agent()
    worker = scene.worker()
    worker.does("register(); log('last words')")
    scene.until(lambda: first.wards and first.wards[worker.stream].acknowledged == 1)
    first.close()
    scene.agents.clear()
    worker.kill()
    scene.agent()
    scene.worker(1).does("register()")
    scene.until(lambda: len(scene.stored(worker)) == 2)
    last_words, end = collector.streams[worker.stream].records
    assert end.ts == last_words.ts


def test_the_end_is_told_once_whoever_comes_to_tell(scene: Scene) -> None:
    """Killed after the collector had stored all, and before the outbox was deleted."""
    scene.collects()
    first = scene.agent()
    worker = scene.worker()
    worker.does("register(); log('last words')")
    scene.until(lambda: scene.stored(worker) == ["last words"])
    kept = worker.path.read_bytes()
    worker.kill()
    scene.until(lambda: not first.wards)
    worker.path.write_bytes(kept)
    other = scene.worker(1)
    first.close()
    scene.agents.clear()
    agent = scene.agent()
    other.does("register()")
    scene.until(lambda: not worker.path.exists() and worker.stream not in agent.wards)
    assert len(scene.stored(worker)) == 2


def test_leases_reach_workers_and_answers_the_collector(scene: Scene) -> None:
    collector = scene.collects()
    scene.agent()
    workers = [scene.worker(rank) for rank in (0, 1)]
    for worker in workers:
        worker.does("register()")
    scene.until(lambda: len(collector.streams) == 2)
    collector.say(Change(1, None, 5.0, lease=Lease(0, {"c10d": 10}, ttl_s=60.0).as_map()))
    for worker in workers:
        worker.does("found = hear(m.Settings)")
        worker.does("while not found.leases: found = hear(m.Settings)")
        worker.does("say(m.Applied(found.revision, {found.revision: ['applied', '']}, b'\\x80'))")
    peers = collector.hub.runs["run"].peers
    scene.until(lambda: [peers[worker.stream].answered for worker in workers] == [1, 1])
    assert peers[workers[0].stream].answers == {1: ("applied", "")}


def test_a_worker_may_ask_for_a_lease(scene: Scene) -> None:
    scene.collects()
    agent = scene.agent()
    worker = scene.worker()
    worker.does("register()")
    worker.does("say(m.Change(7, {}, 'once', 1.0)); found = hear(m.Report)")
    worker.does("assert found.number == 7 and found.error, found")
    scene.until(lambda: all(one.is_connected for one in agent.conversations.values()))
    lease = Lease(0, {"c10d": 10}, ttl_s=60.0).as_map()
    worker.does(f"say(m.Change(8, {lease!r}, 'once', 0.1)); found = hear(m.Report)")
    worker.does("assert (found.number, found.error) == (8, ''), found")


def test_a_label_that_is_learnt_late_reaches_the_collector(scene: Scene) -> None:
    collector = scene.collects()
    scene.agent()
    worker = scene.worker()
    worker.does("register(); log('one')")
    scene.until(lambda: scene.stored(worker))
    worker.does("origin['rank'] = 7; say(m.Relabel(origin))")
    scene.until(lambda: collector.streams[worker.stream].info.origin.rank == 7)


def test_a_collector_that_comes_back_elsewhere_in_time_gets_the_rest(scene: Scene) -> None:
    before = scene.collects()
    scene.agent()
    worker = scene.worker()
    worker.does("register(); log('one')")
    scene.until(lambda: scene.stored(worker) == ["one"])
    before.close()
    scene.collector = None
    worker.does("log('two')")
    after = scene.collects(before.port)
    after.streams = before.streams
    scene.until(lambda: scene.stored(worker) == ["one", "two"])


def test_a_connection_that_is_lost_is_noticed_before_it_is_missed(scene: Scene) -> None:
    before = scene.collects()
    agent = scene.agent()
    worker = scene.worker()
    worker.does("register(); log('one')")
    scene.until(lambda: scene.stored(worker) == ["one"])
    [conversation] = agent.conversations.values()
    before.close()
    scene.collector = None
    scene.until(lambda: not conversation.is_connected)
    assert "was lost" in conversation.problem


@pytest.mark.parametrize(
    "code",
    [
        "line = socket.socket(socket.AF_UNIX); line.connect(agent); line.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n' * 9)",
        "line = socket.socket(socket.AF_UNIX); line.connect(agent); say(m.Flush(1))",
        "register(fd=0)",
        "register(); say(m.Registered(None, 0, None, ''))",
        "register(); say(m.Applied(1, {'x': []}, b''))",
        "register(); say(m.Relabel({'host': 3}))",
    ],
)
def test_a_worker_that_breaks_the_protocol_is_told_and_cut_off(scene: Scene, code: str) -> None:
    scene.collects()
    scene.agent()
    other = scene.worker(1)
    other.does("register()")
    worker = scene.worker()
    worker.does(code)
    worker.does("assert 'agent of this host' in hear(m.Complain).text")
    other.does("log('unharmed')")
    scene.until(lambda: scene.stored(other) == ["unharmed"])


def test_workers_without_a_collector_are_told_why_after_a_while(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlogs.agent.conversation.UNHEARD_S", 0.5)
    monkeypatch.setattr("tlogs.agent.conversation.PROBE_S", 0.1)
    scene.agent()
    worker = scene.worker()
    worker.does("register()")
    worker.does("found = hear(m.Complain)")
    worker.does("assert found.code == 'unheard' and 'records wait in the outbox' in found.text, found")


def test_a_secret_that_is_missing_is_told_to_the_worker_that_came_without(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCP is never spoken without a secret, and the other worker's setting is tried next."""
    scene.collects()
    scene.agent()
    other, worker = scene.worker(1), scene.worker()
    other.does("register()")
    worker.does("register(secret='s' * 20)")
    worker.does("log('one')")
    scene.until(lambda: scene.stored(worker) == ["one"])


def test_what_a_worker_has_said_is_drained_on_demand(scene: Scene) -> None:
    scene.collects()
    agent = scene.agent()
    worker = scene.worker()
    worker.does("register()")
    scene.until(lambda: agent.wards)
    worker.does("log('one')")
    asker = scene.worker(1)
    asker.does("line = socket.socket(socket.AF_UNIX); line.connect(agent); say(m.Drain())")
    asker.does("hear(m.Drained)")
    assert scene.stored(worker) == ["one"]
