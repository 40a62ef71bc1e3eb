"""Whoever must not come in stays out, is told why, and the others notice nothing."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import zmq

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.jobs.conftest import Lab

pytestmark = pytest.mark.multiprocess

ByRank = Callable[[list[dict[str, Any]]], dict[int, list[int]]]

PATIENT = """
log.info('hello')
print('ready', flush=True)
input()
"""
"""Stays until what is wrong has been said."""


@pytest.fixture
def address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
            found: str = probe.getsockname()[0]
        except OSError as error:
            pytest.skip(f"this machine has no address beside loopback: {error.strerror}")
    if found.startswith("127."):
        pytest.skip("this machine has no address beside loopback")
    return found


def test_a_worker_with_another_secret_is_told_once_and_keeps_its_records(lab: Lab) -> None:
    """Its neighbour, which has the secret, notices nothing."""
    collector = lab.collector("--quiet")
    # With another list of live collectors it is nobody's here: on its own machine it needs no secret.
    (lab.root / "another").mkdir(mode=0o700)
    elsewhere = dict.fromkeys(("XDG_STATE_HOME", "XDG_RUNTIME_DIR"), str(lab.root / "another"))
    elsewhere["TLOGS_SECRET"] = "another secret than that"
    wrong = lab.worker(PATIENT, 0, 2, collector=collector, **elsewhere)
    wrong.says("ready")
    lab.worker("for n in range(100): log.info('step %d', n)\n", 1, 2, collector=collector).ends()
    lab.wait_for(lambda: "\n" in wrong.err)
    wrong.tell()
    said = wrong.ends()
    assert said.count("\n") == 1
    assert "has a different secret" in said
    lab.wait_for(lambda: len(list(lab.outboxes.iterdir())) == 1, "the other's is gone")
    lab.wait_for(lambda: lab.stored(collector) == 101, "the record, from the outbox: it is the same user's")
    assert lab.cat("--ranks", "0")[0]["message"] == "hello"


def test_garbage_on_the_port_harms_nobody(lab: Lab, by_rank: ByRank) -> None:
    """Bytes that are no ZeroMQ, frames that are no messages, honest frames bent: the collector serves on."""
    collector = lab.collector("--quiet")
    worker = lab.worker("print('ready', flush=True)\nfor line in sys.stdin: log.info('step')\n", collector=collector)
    worker.says("ready")
    chance = random.Random(7)
    with zmq.Context() as context:
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", collector.port)) as raw:
                raw.sendall(chance.randbytes(chance.randrange(1, 2000)))
            with context.socket(zmq.DEALER) as dealer:
                dealer.linger = 1000
                dealer.connect(collector.endpoint)
                for _ in range(20):
                    frames = [chance.randbytes(chance.randrange(40)) for _ in range(chance.randrange(1, 4))]
                    if chance.random() < 0.7:
                        frames[0] = bytes([1, chance.choice(b"HPBhpXCWARbS?NacrfngG")])
                    dealer.send_multipart(frames)
            worker.tell("log")
    assert worker.popen.stdin is not None
    worker.popen.stdin.close()
    worker.ends()
    [closing] = collector.stop()
    assert (closing.ranks, closing.records, closing.lost) == (1, 30, 0)
    assert by_rank(lab.cat()) == {0: list(range(30))}


def test_beyond_loopback_only_the_secret_opens_the_door(lab: Lab, address: str) -> None:
    """The connection is encrypted; a wrong secret and none are told apart from a firewall."""
    secret = lab.root / "secret"
    lab.tlogs("keygen", str(secret))
    collector = lab.collector_anywhere("--quiet", "--listen", f"tcp://{address}:0", "--secret-file", str(secret))
    assert collector.endpoint.startswith(f"tcp://{address}:")
    hosts = []  # as if each were on a host, with an agent, of its own
    for name in ("a", "b", "c"):
        (lab.root / name).mkdir(mode=0o700)
        hosts.append({"XDG_STATE_HOME": str(lab.root / "another home"), "XDG_RUNTIME_DIR": str(lab.root / name)})
    endpoint = collector.endpoint.removeprefix("tcp://")
    wrong = lab.worker(PATIENT, 0, 3, collector=endpoint, TLOGS_SECRET="another secret than that", **hosts[0])
    none = lab.worker(PATIENT, 1, 3, collector=endpoint, LOCAL_RANK="0", **hosts[1])
    right = lab.worker("log.info('hello')\n", 2, 3, collector=endpoint, TLOGS_SECRET_FILE=str(secret), **hosts[2])
    right.ends()
    for worker in (wrong, none):
        worker.says("ready")
        lab.wait_for(lambda worker=worker: "\n" in worker.err)  # type: ignore[misc]
    assert lab.stored(collector) == 1
    assert {record["rank"] for record in lab.cat()} == {2}
    for worker in (wrong, none):
        worker.tell()
    assert "has a different secret" in wrong.ends()
    assert "its secret is needed" in none.ends()


def test_a_collector_on_all_interfaces_is_reached_by_loopback_too(lab: Lab) -> None:
    """What others reach by this machine's name its own workers may call 127.0.0.1."""
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        pytest.skip("this machine's own name has no address; add it to /etc/hosts")
    collector = lab.collector_anywhere("--quiet", "--listen", "tcp://*:0")
    lab.worker("log.info('hello')\n", collector=f"127.0.0.1:{collector.port}").ends()
    [closing] = collector.stop()
    assert (closing.ranks, closing.records) == (1, 1)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str, str]]:
    """Two network namespaces with a cable between them: their names, and the device that cuts it."""
    one, two = (f"tl{os.getpid() % 100000}{side}" for side in "ab")
    try:
        for name in (one, two):
            ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces need root and iproute2 (apt-get install iproute2; ip netns add test)")
    try:
        ip("link", "add", one, "netns", one, "type", "veth", "peer", "name", two, "netns", two)
        for name, last in ((one, 1), (two, 2)):
            ip("-n", name, "addr", "add", f"10.231.7.{last}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield one, two, one
    finally:
        for name in (one, two):
            ip("netns", "del", name)


@pytest.mark.system
def test_a_cable_that_is_cut_and_mended_costs_nothing(lab: Lab, two_hosts: tuple[str, str, str]) -> None:
    """The ranks of the other host log on meanwhile; afterwards all of it is there, once."""
    here, there, cable = two_hosts
    secret = lab.root / "secret"
    lab.tlogs("keygen", str(secret))
    options = ["--quiet", "--listen", "tcp://10.231.7.1:0", "--secret-file", str(secret)]
    with lab.inside(here):
        collector = lab.collector_anywhere(*options)
    script = """
print('ready', flush=True)
for line in sys.stdin:
    for n in range(100): log.info('step')
    print(line)
"""
    with lab.inside(there):
        home = str(lab.root / "another home")
        worker = lab.worker(script, collector=collector, TLOGS_SECRET_FILE=str(secret), XDG_STATE_HOME=home)
    worker.says("ready")
    worker.tell("before")
    lab.wait_for(lambda: lab.stored(collector) == 100)
    ip("-n", here, "link", "set", cable, "down")
    worker.tell("meanwhile")
    worker.says("meanwhile")
    assert lab.stored(collector) == 100
    ip("-n", here, "link", "set", cable, "up")
    worker.tell("after")
    lab.wait_for(lambda: lab.stored(collector) == 300)
    assert worker.popen.stdin is not None
    worker.popen.stdin.close()
    worker.ends()
    [closing] = collector.stop()
    assert (closing.records, closing.dropped, closing.lost, closing.wordless) == (300, 0, 0, None)
    assert [record["seq"] for record in lab.cat()] == list(range(300))
