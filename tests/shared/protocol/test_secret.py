"""The secret, and the keys that are made of it."""

from __future__ import annotations

import pytest

from tlogs_shared.errors import ConfigError
from tlogs_shared.protocol.secret import curve_seed, parse_secret


def test_the_keys_of_both_sides_differ() -> None:
    secret = b"a secret of this test"
    seeds = {curve_seed(secret, "peer"), curve_seed(secret, "collector")}
    assert {len(seed) for seed in seeds} == {32}
    assert len(seeds | {curve_seed(secret + b"x", "peer")}) == 3


def test_white_space_around_a_secret_does_not_count() -> None:
    assert parse_secret("  0123456789abcdef\n", "here") == b"0123456789abcdef"


@pytest.mark.parametrize("text", ["", "short", "  0123456789abcd  \n", "not utf-8: \udc80\udc80\udc80\udc80\udc80"])
def test_what_is_no_secret_names_where_it_was_found(text: str) -> None:
    with pytest.raises(ConfigError, match="TLOGS_SECRET: expected a secret"):
        parse_secret(text, "TLOGS_SECRET")
