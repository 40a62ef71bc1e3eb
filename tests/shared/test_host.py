"""What is seen of this machine: its processes, and the files that hold a secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlogs_shared.errors import ConfigError
from tlogs_shared.host import boot_id, is_running, live_directory, read_secret_file

SECRET = "0123456789abcdef"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_secret_that_only_its_user_can_read_is_taken_without_a_word(secret_file: Path, mode: int) -> None:
    secret_file.chmod(mode)
    assert read_secret_file(str(secret_file)) == (SECRET.encode(), "")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602])
def test_a_secret_that_others_can_read_or_write_is_refused_with_the_remedy(secret_file: Path, mode: int) -> None:
    secret_file.chmod(mode)
    with pytest.raises(ConfigError, match=rf"mode {mode:04o}.*chmod 600 {secret_file}"):
        read_secret_file(str(secret_file))


def test_a_mounted_secret_is_accepted_with_a_warning(secret_file: Path, tmp_path: Path) -> None:
    """Kubernetes shows a secret as a link to a file of root's that all may read."""
    secret_file.chmod(0o644)
    link = tmp_path / "mounted"
    link.symlink_to(secret_file)
    secret, warning = read_secret_file(str(link))
    assert secret == SECRET.encode()
    assert "others may read it (mode 0644)" in warning


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "No such file"), (b"short", "at least 16 characters"), (b"\xff" * 40, "it is no text")],
)
def test_a_secret_that_cannot_be_had_says_how_to_make_one(secret_file: Path, content: bytes | None, text: str) -> None:
    if content is None:
        secret_file.unlink()
    else:
        secret_file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{text}.*tlogs keygen FILE"):
        read_secret_file(str(secret_file))


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/ann"}, "/state/tlogs/live"),
        ({"HOME": "/home/ann"}, "/home/ann/.local/state/tlogs/live"),
        ({"XDG_STATE_HOME": "", "HOME": "/home/ann"}, "/home/ann/.local/state/tlogs/live"),
        ({}, str(Path("~/.local/state/tlogs/live").expanduser())),
    ],
)
def test_where_live_collectors_are_listed(environ: dict[str, str], path: str) -> None:
    assert str(live_directory(environ)) == path


@pytest.mark.multiprocess
def test_a_process_runs_until_it_has_ended_also_before_its_parent_has_asked() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_running(child.pid)
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    if sys.platform == "linux":
        assert not is_running(child.pid)
    child.wait()
    assert not is_running(child.pid)


def test_processes_of_others_and_numbers_beyond_all_processes() -> None:
    assert is_running(os.getpid())
    assert is_running(1)
    assert is_running(2**70), "what cannot be known is taken to be alive"


def test_a_host_has_one_name_for_as_long_as_it_runs() -> None:
    assert boot_id() == boot_id()
    if sys.platform == "linux":
        assert "pid:[" in boot_id()


def test_a_system_without_proc_has_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert boot_id() == ""
    assert is_running(os.getpid())
