"""What a worker and the agent of its host say to each other, as bytes and back. Pure.

They talk over the agent's unix socket. A message is four bytes of length and a msgpack array: a letter and the fields.
The outbox's descriptor travels beside `Register` (SCM_RIGHTS). Both sides are processes of one user and one
installation; each still checks what it reads.

    worker                     agent
    Register, descriptor ----->
                         <-----  Registered           (again whenever any of it changes)
                         <-----  Settings             (again whenever the leases change)
    Applied              ----->
    Bye                  ----->

Records do not travel here: the agent reads them from the outbox and acknowledges them in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias, cast

import msgpack

from tlogs_shared.errors import MessageError

__all__ = [
    "Applied",
    "Bye",
    "Change",
    "Complain",
    "Decoder",
    "Drain",
    "Drained",
    "Failing",
    "Flush",
    "FromAgent",
    "Message",
    "Ping",
    "Pong",
    "Register",
    "Registered",
    "Relabel",
    "Report",
    "Settings",
    "ToAgent",
    "encode",
]

VERSION: Final = 1
"""Part of the socket's name: a worker and an agent of different versions never meet."""

MAX_BYTES: Final = 1024 * 1024
"""No message is longer; the largest are a report of every level and the leases in force."""

MAX_ITEMS: Final = 8192
"""Elements in one array or map."""


@dataclass(frozen=True, slots=True)
class Register:
    """Worker: I am this stream, and its outbox is the descriptor that comes with this.

    `collector` is what this worker was asked to use: an endpoint, or an absolute path. `secret` and `secret_file` are
    those that it was given itself, None otherwise.
    """

    version: str
    stream: bytes
    origin: Mapping[str, Any]
    collector: str
    secret: str | None
    secret_file: str | None
    insecure: bool
    run: str | None


@dataclass(frozen=True, slots=True)
class Relabel:
    """Worker: who I am, learnt late."""

    origin: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Applied:
    """Worker: what became of the settings of `revision`, as `tlogs_shared.protocol.messages.Applied` has it."""

    revision: int
    answers: Mapping[int, Sequence[str]]
    report: bytes


@dataclass(frozen=True, slots=True)
class Failing:
    """Worker: an exception that nobody caught is ending me, `ValueError: loss is nan`."""

    exception: str


@dataclass(frozen=True, slots=True)
class Flush:
    """Worker: send what I logged below `head` at once."""

    head: int


@dataclass(frozen=True, slots=True)
class Bye:
    """Worker: my stream ends at `head`; `reason` is `exit`, or `shutdown` where the process goes on without us."""

    head: int
    reason: str


@dataclass(frozen=True, slots=True)
class Pong:
    """Worker: the answer to `Ping`."""

    number: int


@dataclass(frozen=True, slots=True)
class Change:
    """Worker: ask the collector for this lease (`Lease.as_map`) on behalf of the job; answered by `Report`.

    `once` names the call: the same from many ranks is one lease.
    """

    number: int
    lease: Mapping[str, Any]
    once: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Drain:
    """`tlogs drain`: send all there is; answered by `Drained` once everything logged so far is stored."""


@dataclass(frozen=True, slots=True)
class Registered:
    """Agent: where your records go.

    `state` is `waiting` (for a collector), `connected` or `refused`; `run` and `endpoint` are None until they are
    known.
    """

    run: str | None
    attempt: int
    endpoint: str | None
    state: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Agent: the leases in force in the run, whole, as `Lease.as_map` makes them."""

    revision: int
    leases: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Complain:
    """Agent: tell the person at the terminal, once a code."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Agent: are you there?"""

    number: int


@dataclass(frozen=True, slots=True)
class Report:
    """Agent: the collector's answer to `Change` number `number`; `error` is "" where `data` holds."""

    number: int
    error: str
    data: Any


@dataclass(frozen=True, slots=True)
class Drained:
    """Agent: everything that was logged here before `Drain` is stored."""


ToAgent: TypeAlias = Register | Relabel | Applied | Failing | Flush | Bye | Pong | Change | Drain
FromAgent: TypeAlias = Registered | Settings | Complain | Ping | Report | Drained
Message: TypeAlias = ToAgent | FromAgent

_LETTERS: Final[dict[str, type[Any]]] = {
    "R": Register,
    "L": Relabel,
    "A": Applied,
    "F": Failing,
    "f": Flush,
    "B": Bye,
    "p": Pong,
    "C": Change,
    "D": Drain,
    "r": Registered,
    "S": Settings,
    "!": Complain,
    "P": Ping,
    "c": Report,
    "d": Drained,
}
_LETTER_OF: Final = {kind: letter for letter, kind in _LETTERS.items()}

_OPTIONAL_TEXT: Final = (str, type(None))
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "version": (str,),
    "stream": (bytes,),
    "origin": (dict,),
    "collector": (str,),
    "secret": _OPTIONAL_TEXT,
    "secret_file": _OPTIONAL_TEXT,
    "insecure": (bool,),
    "run": _OPTIONAL_TEXT,
    "revision": (int,),
    "answers": (dict,),
    "report": (bytes,),
    "exception": (str,),
    "head": (int,),
    "reason": (str,),
    "number": (int,),
    "lease": (dict,),
    "once": (str,),
    "timeout_s": (float, int),
    "attempt": (int,),
    "endpoint": _OPTIONAL_TEXT,
    "state": (str,),
    "leases": (list,),
    "code": (str,),
    "text": (str,),
    "error": (str,),
}
"""What a field of this name may be, in whichever message; `data` may be anything."""


def encode(message: Message) -> bytes:
    """The bytes of *message*."""
    values = [_LETTER_OF[type(message)], *(getattr(message, item.name) for item in fields(message))]
    body: bytes = msgpack.packb(values, default=_plain, unicode_errors="surrogatepass")
    return len(body).to_bytes(4, "big") + body


class Decoder:
    """Bytes as they arrive to messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that *data* completes.

        Raises:
            MessageError: what was read is no message; nothing after it can be read either.
        """
        self._bytes += data
        while len(self._bytes) >= 4:
            size = int.from_bytes(self._bytes[:4], "big")
            if size > MAX_BYTES:
                raise MessageError(f"a message of {size} bytes, expected at most {MAX_BYTES}")
            if len(self._bytes) < 4 + size:
                return
            body = bytes(self._bytes[4 : 4 + size])
            del self._bytes[: 4 + size]
            yield _decode(body)


def _decode(body: bytes) -> Message:
    limit = min(MAX_ITEMS, len(body))
    try:
        values = msgpack.unpackb(
            body,
            strict_map_key=False,
            unicode_errors="surrogatepass",
            max_array_len=limit,
            max_map_len=limit,
            max_ext_len=0,
        )
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        raise MessageError(f"a message that is no msgpack: {error or type(error).__name__}") from None
    kind = _LETTERS.get(values[0]) if type(values) is list and values and type(values[0]) is str else None
    if kind is None:
        raise MessageError(f"an unknown message: {values!r:.80}")
    names = [item.name for item in fields(kind)]
    if len(values) != len(names) + 1:
        raise MessageError(f"expected a {kind.__name__} of {len(names)} fields, found {len(values) - 1}")
    for name, value in zip(names, values[1:], strict=True):
        if name in _TYPES and type(value) not in _TYPES[name]:
            raise MessageError(f"{kind.__name__}.{name} cannot be {value!r:.80}")
    return cast("Message", kind(*values[1:]))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"a message cannot carry {type(value).__name__}")
