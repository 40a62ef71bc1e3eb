"""The request to end."""

from __future__ import annotations

import select

from tlogs_collector.stop import Stop


def is_ready(stop: Stop) -> bool:
    return bool(select.select([stop.ready], [], [], 0)[0])


def test_a_request_is_counted_and_wakes_whoever_waits() -> None:
    stop = Stop()
    assert not is_ready(stop)
    stop.request()
    stop.request()
    assert (stop.requests, is_ready(stop)) == (2, True)
    stop.clear()
    stop.clear()
    assert (stop.requests, is_ready(stop)) == (2, False)
    stop.request()
    assert is_ready(stop)
    stop.close()


def test_any_number_of_requests_never_blocks_the_signal_handler() -> None:
    stop = Stop()
    for _ in range(70_000):  # a pipe holds 65,536 bytes
        stop.request()
    assert stop.requests == 70_000
    stop.close()
