"""The secret that the processes of one user share with their collector, and the CURVE keys made of it.

Both sides' keys come from it, so that there is one thing to hand out, not three.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Literal

from tlogs_shared.errors import ConfigError

__all__ = ["curve_seed", "parse_secret"]

MIN_SECRET_CHARACTERS: Final = 16
"""A shorter secret could be guessed."""

Role = Literal["collector", "peer"]


def parse_secret(text: str, source: str) -> bytes:
    """The secret in *text*, as a file or a variable holds it; white space around it does not count.

    Raises:
        ConfigError: empty or too short; *source* is named.
    """
    secret = text.strip()
    if len(secret) < MIN_SECRET_CHARACTERS:
        raise ConfigError(
            f"{source}: expected a secret of at least {MIN_SECRET_CHARACTERS} characters, found {len(secret)}; "
            f"make one with: tlogs keygen FILE"
        )
    try:
        return secret.encode()
    except UnicodeEncodeError:  # what the environment holds need not be a text
        raise ConfigError(
            f"{source}: expected a secret of letters and digits; make one with: tlogs keygen FILE"
        ) from None


def curve_seed(secret: bytes, role: Role) -> bytes:
    """The 32 bytes that serve as the CURVE secret key of one side."""
    return hmac.digest(secret, b"tlogs curve " + role.encode(), hashlib.sha256)
