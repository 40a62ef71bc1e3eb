"""Where the collector is: from an argument, the environment, or the list of this user's live collectors."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlogs_shared.errors import CollectorUnavailable, ConfigError
from tlogs_shared.host import boot_id, is_running, live_directory, read_secret_file
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.protocol.notice import FILE_NAME, Notice
from tlogs_shared.protocol.secret import parse_secret

__all__ = ["Address", "find_address", "find_live", "is_path", "live_notices"]

ARGUMENT: Final = "collector"
"""The source of an address that was given, by --collector or an argument of that name."""

LIVE: Final = "live"
"""The source of an address that nobody gave: the directory of this user's live collectors."""


@dataclass(frozen=True, slots=True)
class Address:
    """A collector that can be dialled.

    `source` says where it was found. `socket` is the path of its unix socket, if it is this user's on this machine: no
    secret is needed then; `directory` is then where its store lies. `instance` names the life of the collector that is
    meant, "" where that is not known. `insecure` says that it asks for no secret, and is dialled without encryption.
    """

    endpoint: Endpoint
    secret: bytes | None
    source: str
    secret_source: str
    directory: Path | None = None
    pid: int | None = None
    socket: str = ""
    instance: str = ""
    insecure: bool = False

    @property
    def how(self) -> str:
        """How it was found, as a person is told."""
        if self.source == ARGUMENT:
            return "given as argument"
        return "found: the only collector running here" if self.source == LIVE else f"from {self.source}"


def find_address(
    given: str | None,
    environ: Mapping[str, str],
    *,
    secret_file: str | None = None,
    secret: str | None = None,
    insecure: bool = False,
) -> Address | None:
    """The collector named by *given* (an endpoint, `host:port`, a directory or a `collector.json`) or TLOGS_COLLECTOR.

    None where neither names one.

    Raises:
        ConfigError: it is none of these, or its secret cannot be used.
    """
    source = ARGUMENT if given else "TLOGS_COLLECTOR"
    text = given or environ.get("TLOGS_COLLECTOR")
    if not text:
        return None
    if is_path(text):
        return _with_secret(_read_notice(Path(text), source), source, environ, secret_file, secret)
    insecure = insecure or environ.get("TLOGS_INSECURE", "") not in ("", "0")
    endpoint = Endpoint.parse(text, source=source)
    notice = _notice_of(endpoint, live_notices(environ))
    if notice is not None and not insecure:
        return _with_secret(notice, source, environ, secret_file, secret)
    found, where = _given_secret(environ, secret_file, secret)
    return Address(endpoint, found, source, where, insecure=insecure)


def is_path(text: str) -> bool:
    """Whether a collector's name is the path of a directory or a `collector.json`, rather than an endpoint."""
    return "://" not in text and ("/" in text or text.endswith(".json") or os.path.isdir(text))


def _notice_of(endpoint: Endpoint, notices: Sequence[Notice]) -> Notice | None:
    """What the collector at *endpoint* says of itself, None where it is none of this user's.

    One that listens on all interfaces is known by this machine's name, and is reached by that name from here too: it
    then knows that the connection is encrypted.
    """
    for notice in notices:
        if notice.endpoint == str(endpoint):
            return notice
    for notice in notices:
        of_this_machine = notice.boot_id == boot_id() != ""
        if endpoint.is_loopback and of_this_machine and Endpoint.parse(notice.endpoint).port == endpoint.port:
            return notice
    return None


def find_live(environ: Mapping[str, str], *, secret_file: str | None = None, secret: str | None = None) -> Address:
    """This user's only live collector on this machine.

    Raises:
        CollectorUnavailable: none is running, or several are.
    """
    notices = live_notices(environ)
    if not notices:
        raise CollectorUnavailable("no collector: start one with: tlogs-collector")
    if len(notices) > 1:
        listed = "; ".join(f"{notice.endpoint} ({notice.directory})" for notice in notices)
        raise CollectorUnavailable(f"several collectors are running: {listed}; choose one with --collector")
    return _with_secret(notices[0], LIVE, environ, secret_file, secret)


def live_notices(environ: Mapping[str, str]) -> list[Notice]:
    """What this user's collectors on this machine say of themselves; those that died without a word are left out."""
    found: dict[str, Notice] = {}
    try:
        links = sorted(live_directory(environ).iterdir())
    except OSError:
        return []
    for link in links:
        try:
            notice = _read_notice(link, LIVE)
        except ConfigError:
            continue
        if _may_live(notice):
            found[notice.endpoint] = notice
    return list(found.values())


def _may_live(notice: Notice) -> bool:
    """Whether the collector may still be there: only of this machine's that can be told."""
    here = boot_id()
    if notice.boot_id == here != "":
        return is_running(notice.pid)
    # The home directory may be shared by machines; one of this name that was started since is another life.
    restarted = notice.boot_id.partition(":")[0] != here.partition(":")[0]
    return not (notice.boot_id and here and restarted and notice.host == socket.gethostname())


def _given_secret(environ: Mapping[str, str], secret_file: str | None, secret: str | None) -> tuple[bytes | None, str]:
    if secret is not None:
        return parse_secret(secret, "secret"), "argument"
    if secret_file is not None:
        return read_secret_file(secret_file)[0], "--secret-file"
    if path := environ.get("TLOGS_SECRET_FILE"):
        return read_secret_file(path)[0], "TLOGS_SECRET_FILE"
    if text := environ.get("TLOGS_SECRET"):
        return parse_secret(text, "TLOGS_SECRET"), "TLOGS_SECRET"
    return None, "none"


def _read_notice(path: Path, source: str) -> Notice:
    file = path / FILE_NAME if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"{source} {str(file)!r}: {reason}; is a collector running with that --dir?") from None
    return Notice.from_json(text, str(file))


def _with_secret(
    notice: Notice, source: str, environ: Mapping[str, str], secret_file: str | None, secret: str | None
) -> Address:
    found, where = _given_secret(environ, secret_file, secret)
    if found is None and notice.secret is not None:
        found, where = notice.secret.encode(), "the collector's own file"
    is_here = notice.boot_id == boot_id() != ""
    return Address(
        Endpoint.parse(notice.endpoint),
        found,
        source,
        where,
        _local_directory(notice),
        notice.pid,
        socket=notice.socket if is_here else "",
        instance=notice.instance,
        insecure=notice.secret is None and found is None,
    )


def _local_directory(notice: Notice) -> Path | None:
    """The store's directory, where it is this machine's."""
    path = Path(notice.directory)
    return path if path.is_dir() and notice.boot_id == boot_id() else None
