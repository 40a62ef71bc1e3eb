"""The command that a run was started with, as it may be shown."""

from __future__ import annotations

import pytest

from tlogs.worker.command import MAX_CHARS, command_line


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["python", "train.py"], "train.py"),
        (["python3", "-u", "-W", "error", "-Xdev", "train.py", "-W", "x"], "train.py -W x"),
        (["python", "-m", "torch.distributed.run", "a.py"], "-m torch.distributed.run a.py"),
        (["python", "-c", "login('secret')", "a"], "-c a"),
        (["python"], ""),
        ([], ""),
        (
            ["p", "a.py", "--hf_token=abc", "--API-KEY", "abc", "--lr", "1"],
            "a.py '--hf_token=***' --API-KEY '***' --lr 1",
        ),
        (["p", "a.py", "--use-token", "--epochs", "3"], "a.py --use-token --epochs 3"),
        (["p", "a.py", "PASSWORD=abc", "x=1", "+w.secret=a b"], "a.py 'PASSWORD=***' x=1 '+w.secret=***'"),
        (["p", "a.py", "--db=postgres://me:pw@host/db"], "a.py '--db=postgres://***@host/db'"),
        (["p", "a.py", "s3://bucket/a@b"], "a.py s3://bucket/a@b"),
    ],
)
def test_the_script_and_its_arguments_are_shown_without_secrets(arguments: list[str], shown: str) -> None:
    assert command_line(arguments) == shown


def test_it_is_bounded() -> None:
    text = command_line(["python", "a.py", *map(str, range(1000))])
    assert len(text) == MAX_CHARS
    assert text.endswith("…")
