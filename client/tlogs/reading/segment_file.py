"""One segment of a stored run, open for reading."""

from __future__ import annotations

import os
from pathlib import Path

from tlogs_shared.errors import MessageError, StoreError
from tlogs_shared.storage.segment import FILE_HEADER_BYTES, FileHeader, unpack_mark

__all__ = ["SegmentFile"]


class SegmentFile:
    """An open segment. What was opened stays readable, also when the file is replaced or removed meanwhile.

    It is closed when the last iteration that uses it is over, which only its references know. `header` is None where
    the file header is damaged; its frames are found all the same.

    Raises:
        OSError: it is not there, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._path = str(path)
        self.header: FileHeader | None
        try:
            beginning = self.read(FILE_HEADER_BYTES, 0)
            self.mark = unpack_mark(beginning)
            self.header = FileHeader.unpack(beginning)
        except MessageError:
            self.header = None

    @property
    def base(self) -> int:
        """What is added to an offset in the file to get a position's offset."""
        return self.header.base if self.header else 0

    def size(self) -> int:
        """How large it is now."""
        return os.fstat(self._file).st_size

    def read(self, size: int, offset: int) -> bytes:
        """Bytes of the file; fewer than *size* only at its end.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            return os.pread(self._file, size, offset)
        except OSError as error:
            raise StoreError(error.errno, error.strerror, self._path) from error

    def is_current(self, path: Path) -> bool:
        """Whether *path* is still this file.

        Raises:
            OSError: there is none.
        """
        return os.path.samestat(os.fstat(self._file), os.stat(path))

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)
