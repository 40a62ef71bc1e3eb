"""Records as a training job logs them: made up, the same each time, with numbers that do not repeat."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from tlogs_shared.storage.record import Fields

__all__ = ["START_NS", "job", "steps"]

START_NS = 1_760_000_000_000_000_000
C10D = "torch.distributed.distributed_c10d"
C10D_PATH = "torch/distributed/distributed_c10d.py"
DYNAMO_GUARDS = "torch._dynamo.guards.__recompiles"
THREAD = "MainThread"

RECOMPILE = """Recompiling function forward in /home/user/project/model.py:{line}
    triggered by the following guard failure(s):
    - {guard}/0: tensor 'x' size mismatch at index 0. expected {expected}, actual {actual}
    - {guard}/1: len(self.blocks) == {expected}"""

TRACEBACK = """Traceback (most recent call last):
  File "/home/user/project/data.py", line {line}, in __getitem__
    return self.decode(self.index[number])
  File "/home/user/project/data.py", line 88, in decode
    raise ValueError(f"sample {{name}}: {{len(found)}} bytes, expected {{self.size}}")
ValueError: sample shard-{shard:05d}/{number:07d}.jpg: {found} bytes, expected 602112"""


def steps(rank: int, count: int) -> Iterator[Fields]:
    """Training steps of *rank*: lines of about 180 bytes, with arguments as `Tensor.item()` and a clock give them."""
    draw = random.Random(rank)
    template = (
        "step %d: loss %.4f, gradient norm %.3f, learning rate %.2e, %d tokens, %.1f ms; "
        "data %.1f ms, memory %.2f GiB of 80"
    )
    for number in range(count):
        args = [
            number,
            _single(3.0 + draw.random()),
            _single(draw.random()),
            3e-4,
            65536,
            200 + 10 * draw.random(),
            5 * draw.random(),
            71.25,
        ]
        yield Fields(0, 20, "train", template, args, None, "/home/user/project/train.py", 214, "train", THREAD, None)


def job(rank: int, count: int) -> Iterator[Fields]:
    """What a rank says with c10d at DEBUG and recompiles on: half of it steps, a few long records among them."""
    draw = random.Random(1000 + rank)
    args: list[int | float | str]
    for number in range(count):
        kind = draw.random()
        if kind < 0.50:
            args = [number, _single(3.0 + draw.random()), 3e-4, 200 + 10 * draw.random()]
            template = "step %d loss %.4f lr %.2e %.1f ms"
            yield Fields(
                0, 20, "train", template, args, None, "/home/user/project/train.py", 214, "train", THREAD, None
            )
        elif kind < 0.70:
            text = f"Added key: store_based_barrier_key:{number} to store for rank: {rank}"
            yield Fields(0, 10, C10D, text, None, None, C10D_PATH, 942, "_store_based_barrier", THREAD, None)
        elif kind < 0.85:
            args = [rank, f"store_based_barrier_key:{number}", 8]
            template = "Rank %s: Completed store-based barrier for key:%s with %s nodes."
            yield Fields(0, 20, C10D, template, args, None, C10D_PATH, 987, "_store_based_barrier", THREAD, None)
        elif kind < 0.95:
            args = [f"shard-{draw.randrange(100_000):05d}", draw.randrange(10_000), 5 * draw.random()]
            template = "loaded %s, %d samples in %.1f ms"
            path = "/home/user/project/data.py"
            yield Fields(0, 10, "data.loader", template, args, None, path, 57, "__iter__", "loader-0", None)
        elif kind < 0.98:
            guard = draw.randrange(64)
            values = {"line": 20 + guard, "guard": guard, "expected": 32, "actual": draw.randrange(1, 32)}
            extra = {"artifact": "recompiles", "trace_id": f"{guard}/1"}
            path = "torch/_dynamo/guards.py"
            text = RECOMPILE.format(**values)
            yield Fields(0, 10, DYNAMO_GUARDS, text, None, None, path, 3006, "get_and_maybe_log", THREAD, extra)
        else:
            text = "a sample could not be read and is left out"
            values = {"line": 61, "shard": draw.randrange(100), "number": draw.randrange(10**6)}
            extra = {"exc": TRACEBACK.format(**values, found=draw.randrange(602112))}
            path = "/home/user/project/data.py"
            yield Fields(0, 30, "data", text, None, None, path, 63, "__getitem__", THREAD, extra)


def _single(value: float) -> float:
    """As a float32 tensor's `item()` gives it."""
    found: float = struct.unpack("f", struct.pack("f", value))[0]
    return found
