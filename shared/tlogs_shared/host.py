"""This host: its name for one start of its kernel, its processes, and where a user's live collectors are listed.

The one module of this package that looks at the machine, since both sides must see the same.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tlogs_shared.errors import ConfigError
from tlogs_shared.protocol.secret import parse_secret
from tlogs_shared.storage.layout import format_outbox, parse_outbox

__all__ = [
    "SHARED_MEMORY",
    "boot_id",
    "file_system",
    "is_coherent",
    "is_locked",
    "is_ours",
    "is_running",
    "live_directory",
    "outbox_directories",
    "outbox_name",
    "outbox_owner",
    "outbox_places",
    "read_secret_file",
    "temporary_directory",
]


def live_directory(environ: Mapping[str, str]) -> Path:
    """The directory with a link to the `collector.json` of each live collector of this user."""
    state = environ.get("XDG_STATE_HOME") or os.path.join(
        environ.get("HOME") or os.path.expanduser("~"), ".local/state"
    )
    return Path(state) / "tlogs" / "live"


def boot_id() -> str:
    """An id of this machine since it was started, different from every other's; "" where the system has none.

    Containers of one host share it, and their process numbers differ, so their namespace is part of it.
    """
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{kernel}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    """Whether a process of this number lives here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return not _is_zombie(pid)


def is_locked(path: Path) -> bool:
    """Whether a live process holds the lock file at *path*: a run is its daemon's for as long."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


SHARED_MEMORY: Final = Path("/dev/shm")

_REMOTE: Final = ("nfs", "lustre", "fuse", "cifs", "smb", "ceph", "gpfs", "beegfs", "afs", "9p", "orangefs", "pvfs")
"""File systems without coherent mappings, by how their types begin."""


def outbox_name(host: str, pid: int, stream: bytes) -> str:
    """The name of an outbox: containers that share a directory may have processes of the same number."""
    return format_outbox(host, pid, _mount_namespace(), stream)


def outbox_owner(name: str) -> int | None:
    """The number of the process that an outbox of this name belongs to; 0 where that is one of another container.

    None for a file that is called otherwise.

    >>> outbox_owner("node7-4242-1f2e3d4c.outbox"), outbox_owner("node7-4242.1-1f2e3d4c.outbox"), outbox_owner("a.txt")
    (4242, 0, None)
    """
    found = parse_outbox(name)
    if found is None:
        return None
    pid, container = found
    return pid if container in (None, _mount_namespace()) else 0


def temporary_directory(environ: Mapping[str, str]) -> Path:
    """Where temporary files are kept."""
    return Path(environ.get("TMPDIR") or tempfile.gettempdir())


def outbox_directories(root: Path) -> list[Path]:
    """This user's directories of outboxes below one that everybody may write to."""
    name = f"tlogs-{os.getuid()}"
    return [path for path in (root / name, *sorted(root.glob(f"{name}-????????"))) if is_ours(path)]


def outbox_places(environ: Mapping[str, str]) -> list[Path]:
    """Every directory where a worker of this user may have its outbox on this host, whatever its environment was."""
    asked = environ.get("TLOGS_OUTBOX_DIR")
    roots = [SHARED_MEMORY, temporary_directory(environ), Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    found = [Path(asked)] if asked else []
    for root in roots:
        found += outbox_directories(root)
    return list(dict.fromkeys(found))


def file_system(path: str | os.PathLike[str]) -> str:
    """The type of the file system that *path* is on; "" where the system does not say."""
    device = os.stat(path).st_dev
    asked = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        mount, _, source = line.partition(" - ")
        if mount.split(" ")[2:3] == [asked]:
            return source.split(" ")[0]
    return ""


def is_coherent(path: str | os.PathLike[str]) -> bool:
    """Return False on a file system where one host does not see at once what another has mapped and written."""
    return not file_system(path).startswith(_REMOTE)


def is_ours(path: Path) -> bool:
    """Return True for a directory of this user's that is not a link, and that nobody else may write to."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def _mount_namespace() -> int:
    try:
        return os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        return 0


def _is_zombie(pid: int) -> bool:
    """A killed worker stays in the table until its parent has asked for it; it will not send again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")


def read_secret_file(path: str) -> tuple[bytes, str]:
    """The secret in a file, and a warning about the file, "" where there is none.

    A file that others may read is refused where this user could mend that; a mounted one (a Kubernetes secret is owned
    by root and readable by all) is accepted with a warning.

    Raises:
        ConfigError: it cannot be read, others may read it, or it holds no secret.
    """
    try:
        with open(path, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            text = file.read(4096)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"secret file {path!r}: {reason}; make one with: tlogs keygen FILE") from None
    warning = ""
    if status.st_mode & (stat.S_IWGRP | stat.S_IRWXO):
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
        if not os.path.islink(path):
            raise ConfigError(
                f"secret file {path!r}: others may read it ({mode}); put that right with: chmod 600 {path}"
            )
        warning = f"secret file {path!r}: others may read it ({mode})"
    return parse_secret(text, f"secret file {path!r}"), warning
