"""Fuzz one decoder for as long as you like, led by coverage: `python tests/fuzz/fuzz.py wire -max_total_time=60`.

Needs atheris (`pip install atheris`). What follows the name goes to libFuzzer; without a directory of inputs it
begins with honest ones. An error that is not documented ends it, with the input that brought it about.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Fuzz the decoder that the command line names."""
    try:
        import atheris
    except ImportError:
        sys.exit("needs atheris, which is not installed: pip install atheris")
    with atheris.instrument_imports(include=["tlogs_shared"]):
        from decoders import DECODERS
    name = " ".join(sys.argv[1:2])
    if name not in DECODERS:
        sys.exit(f"expected a decoder, one of: {', '.join(DECODERS)}")
    decoder = DECODERS[name]

    def attempt(data: bytes) -> None:
        try:
            decoder.decode(data)
        except decoder.errors:
            pass

    with tempfile.TemporaryDirectory(prefix="tlogs-fuzz-") as inputs:
        for number, example in enumerate(decoder.examples):
            Path(inputs, str(number)).write_bytes(example)
        given = sys.argv[2:]
        atheris.Setup(
            [sys.argv[0], *given, *([] if any(not one.startswith("-") for one in given) else [inputs])], attempt
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
