"""What a collector says of itself in `collector.json`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs_shared.errors import ConfigError
from tlogs_shared.protocol.notice import Notice

NOTICE = Notice("tcp://127.0.0.1:5655", "secret", 7, "n1", "boot", "/runs", "0.1", "/run/d-1", "i1", ["a", "b"])


@pytest.mark.parametrize("notice", [NOTICE, Notice("tcp://n1:1", None, 1, "n1", "", "/x", "", runs=[])])
def test_a_notice_comes_back_as_it_was(notice: Notice) -> None:
    assert Notice.from_json(notice.to_json(), "here") == notice


@pytest.mark.parametrize("key", ["endpoint", "secret", "pid", "host", "directory"])
def test_what_is_missing_is_told_with_the_path(key: str) -> None:
    values: dict[str, Any] = json.loads(NOTICE.to_json())
    del values[key]
    with pytest.raises(ConfigError, match=r"/x/collector\.json: expected the file that a collector writes"):
        Notice.from_json(json.dumps(values), "/x/collector.json")


def test_an_endpoint_that_is_none_is_told_as_such() -> None:
    values = {**json.loads(NOTICE.to_json()), "endpoint": "nowhere"}
    with pytest.raises(ConfigError, match=r"expected tcp://HOST:PORT"):
        Notice.from_json(json.dumps(values), "x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(json.loads(NOTICE.to_json()))), JSON), st.booleans())
def test_any_json_is_a_notice_or_a_config_error(changed: dict[str, Any], whole: bool) -> None:
    values = {**json.loads(NOTICE.to_json()), **changed} if whole else changed
    try:
        Notice.from_json(json.dumps(values), "here")
    except ConfigError:
        pass


@given(st.text(max_size=40))
def test_any_text_is_a_notice_or_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        Notice.from_json(text, "here")
