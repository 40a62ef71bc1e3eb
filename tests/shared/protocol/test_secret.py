"""The secret, and the proofs that are made of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs_shared.errors import ConfigError
from tlogs_shared.protocol.secret import curve_seed, is_proof, parse_secret, prove

NONCES = st.binary(max_size=32)
SECRETS = st.binary(min_size=1, max_size=64).filter(lambda secret: not secret.endswith(b"\0"))


@given(SECRETS, NONCES)
def test_a_proof_is_good_for_one_secret_role_and_nonce(secret: bytes, nonce: bytes) -> None:
    proof = prove(secret, "peer", nonce)
    assert is_proof(secret, "peer", nonce, proof)
    assert not is_proof(secret, "collector", nonce, proof), "one side's answer must not serve the other"
    assert not is_proof(secret + b"x", "peer", nonce, proof)
    assert not is_proof(secret, "peer", nonce + b"x", proof)
    assert not is_proof(secret, "peer", nonce, proof[:-1])
    assert not is_proof(secret, "peer", nonce, b"")


def test_the_keys_of_both_sides_differ_and_are_none_of_the_proofs() -> None:
    secret = b"a secret of this test"
    seeds = {curve_seed(secret, "peer"), curve_seed(secret, "collector")}
    assert {len(seed) for seed in seeds} == {32}
    assert len(seeds | {prove(secret, "peer", b""), prove(secret, "collector", b"")}) == 4


def test_white_space_around_a_secret_does_not_count() -> None:
    assert parse_secret("  0123456789abcdef\n", "here") == b"0123456789abcdef"


@pytest.mark.parametrize("text", ["", "short", "  0123456789abcd  \n", "not utf-8: \udc80\udc80\udc80\udc80\udc80"])
def test_what_is_no_secret_names_where_it_was_found(text: str) -> None:
    with pytest.raises(ConfigError, match="TLOGS_SECRET: expected a secret"):
        parse_secret(text, "TLOGS_SECRET")
