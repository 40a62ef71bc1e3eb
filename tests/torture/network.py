"""A network between workers and collector that can be cut, stopped and slowed down: a TCP relay on loopback."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections import deque
from typing import Final

__all__ = ["Network"]

PIECE_BYTES: Final = 64 * 1024
MAX_WAITING_BYTES: Final = 1024 * 1024
"""What one direction holds at most, so that a delay becomes back-pressure."""

TICK_S: Final = 0.005
_RESET: Final = struct.pack("ii", 1, 0)  # closing drops what is under way, as a cut does


class _Pipe:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.bytes = 0
        self.is_over = False


class Network:
    """Relays connections to a port; `delay_s` and `is_stopped` may be set, and `cut` called, from any thread."""

    def __init__(self, target_port: int) -> None:
        self.delay_s = 0.0
        self.is_stopped = False
        self._target_port = target_port
        self._cut = threading.Event()
        self._close = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._pipes: list[_Pipe] = []
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Reset all connections."""
        self._cut.set()

    def close(self) -> None:
        """End it."""
        self._close.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._close.wait(TICK_S):
            if self._cut.is_set():
                self._cut.clear()
                self._drop(list(self._pipes))
            if self.is_stopped:
                continue
            self._accept()
            if self._pipes:
                self._relay()
        self._drop(list(self._pipes))
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target_port), timeout=1.0)
            except OSError:
                near.close()
                continue
            for one in (near, far):
                one.setblocking(False)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pipes += [_Pipe(near, far), _Pipe(far, near)]

    def _relay(self) -> None:
        now = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for pipe in self._pipes:
                if pipe.bytes < MAX_WAITING_BYTES:
                    selector.register(pipe.source, selectors.EVENT_READ, pipe)
            readable = [key.data for key, _ in selector.select(0)]
        broken: list[_Pipe] = []
        for pipe in readable:
            try:
                while pipe.bytes < MAX_WAITING_BYTES and (data := pipe.source.recv(PIECE_BYTES)):
                    pipe.waiting.append((now + self.delay_s, data))
                    pipe.bytes += len(data)
                if pipe.bytes < MAX_WAITING_BYTES:
                    pipe.is_over = True
            except BlockingIOError:
                pass
            except OSError:
                broken.append(pipe)
        for pipe in self._pipes:
            try:
                while pipe.waiting and pipe.waiting[0][0] <= now:
                    due, data = pipe.waiting.popleft()
                    sent = pipe.target.send(data)
                    pipe.bytes -= sent
                    if sent < len(data):
                        pipe.waiting.appendleft((due, data[sent:]))
                        break
            except BlockingIOError:
                pipe.waiting.appendleft((due, data))
            except OSError:
                broken.append(pipe)
            if pipe.is_over and not pipe.waiting:
                broken.append(pipe)
        if broken:
            self._drop(broken)

    def _drop(self, pipes: list[_Pipe]) -> None:
        """Close these and their other directions."""
        sockets = {one for pipe in pipes for one in (pipe.source, pipe.target)}
        for one in sockets:
            try:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass  # the other side was quicker
            one.close()
        self._pipes = [pipe for pipe in self._pipes if pipe.source not in sockets]
