"""One segment of a stored run, open for reading."""

from __future__ import annotations

import os
from pathlib import Path

from tlogs_shared.errors import StoreError
from tlogs_shared.storage.layout import segment_name
from tlogs_shared.storage.segment_reader import SegmentReader

__all__ = ["SegmentFile"]


class SegmentFile(SegmentReader):
    """A segment in a run's directory. What was opened stays readable, also when it is replaced or removed meanwhile.

    It is closed when the last iteration that uses it is over, which only its references know.

    Raises:
        OSError: it is not there, or cannot be opened.
    """

    def __init__(self, directory: Path, number: int) -> None:
        self.path = directory / segment_name(number)
        self._file = file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        name = str(self.path)

        # Neither function refers to this object: a circle would keep the file open until garbage is collected.
        def read(size: int, offset: int) -> bytes:
            try:
                return os.pread(file, size, offset)
            except OSError as error:
                raise StoreError(error.errno, error.strerror, name) from error

        super().__init__(number, read, lambda: os.fstat(file).st_size)

    def is_current(self) -> bool:
        """Whether the path is still that of this file.

        Raises:
            OSError: the file has been removed.
        """
        return os.path.samestat(os.fstat(self._file), os.stat(self.path))

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)
