"""Waiting until every agent of this user on this host has sent all that there is."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator, Mapping

from tlogs.access.agent_messages import Decoder, Drain, Drained, encode
from tlogs.access.agent_place import PREFIX, Place, reach
from tlogs_shared.errors import MessageError
from tlogs_shared.unix_socket import socket_directories

__all__ = ["drain", "find_agents"]


def find_agents(environ: Mapping[str, str]) -> Iterator[Place]:
    """The sockets of agents of this user on this host, whether or not somebody still listens there."""
    if given := environ.get("TLOGS_AGENT"):
        yield Place(*os.path.split(os.path.abspath(given)))
    for directory in socket_directories(environ):
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            if name.startswith(PREFIX) and "." not in name:
                yield Place(directory, name)


def drain(environ: Mapping[str, str], timeout_s: float) -> tuple[int, int]:
    """Have every agent here send all; return how many did, and how many did not within *timeout_s* seconds."""
    deadline = time.monotonic() + timeout_s
    waiting: dict[int, tuple[socket.socket, Decoder]] = {}
    drained = failed = 0
    for place in find_agents(environ):
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        try:
            with reach(place) as path:
                connection.connect(path)
            connection.send(encode(Drain()))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()  # nobody listens there any more
            continue
        except OSError:
            connection.close()  # an agent that does not accept
            failed += 1
            continue
        waiting[connection.fileno()] = connection, Decoder()
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left_s * 1000):
            connection, decoder = waiting[fd]
            if (answer := _receive(connection, decoder)) is None:
                continue
            drained, failed = drained + answer, failed + (not answer)
            poll.unregister(fd)
            connection.close()
            del waiting[fd]
    for connection, _ in waiting.values():
        connection.close()
    return drained, failed + len(waiting)


def _receive(connection: socket.socket, decoder: Decoder) -> bool | None:
    """True once the agent has sent all, False if it is gone, None if it has not said so yet."""
    try:
        data = connection.recv(4096)
        if any(isinstance(message, Drained) for message in decoder.feed(data)):
            return True
    except BlockingIOError:
        return None
    except (OSError, MessageError):
        return False
    return None if data else False
