"""A file under watch while it is read: whether its bytes stop coming, or are no longer those that were there first."""

from __future__ import annotations

import errno
import io
import os
from typing import BinaryIO

_BEYOND = 2**62
"""No file is as long as this."""


class UnavailableError(Exception):
    """A file opened, but its bytes stopped coming or changed while they were read: nothing can be said of its records.

    What was read of it is void; the file is to be read again, by a later run.
    """

    def __init__(self, path: str, cause: OSError | str) -> None:
        why = cause if isinstance(cause, str) else cause.strerror or str(cause) or type(cause).__name__
        super().__init__(f"{path}: {why}")
        self.path = path


class Watched(io.RawIOBase, BinaryIO):
    """A binary file whose failing reads raise :class:`UnavailableError`, which no reader mistakes for a bad record.

    ``error`` keeps the first failure: a library in between may have swallowed it, so ask :meth:`check` at the end.
    ``consumed`` counts the bytes read.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        super().__init__()
        self._file, self._path = file, path
        self.error: UnavailableError | None = None
        self.consumed = 0
        self._before = self._state()

    def _state(self) -> tuple[int, int] | None:
        try:
            status = os.fstat(self._file.fileno())
        except (OSError, AttributeError):  # remote: who opened it watches for changes
            return None
        return status.st_size, status.st_mtime_ns

    def _failed(self, error: OSError) -> UnavailableError:
        self.error = self.error or UnavailableError(self._path, error)
        return self.error

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            raise self._failed(error) from error
        self.consumed += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place. Raises ``ValueError`` for one that no file has, as what a corrupt file holds may lead to."""
        if abs(offset) >= _BEYOND or (whence == os.SEEK_SET and offset < 0):
            raise ValueError(f"a seek to {offset}, which is no place in a file")
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise ValueError(f"a seek to {offset}, which is no place in the file") from error
            raise self._failed(error) from error

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def check(self) -> None:
        """Raise :class:`UnavailableError` if a read failed, or the file is not what it was when it was opened."""
        if self.error:
            raise self.error
        if self._before is not None and self._state() != self._before:
            raise UnavailableError(self._path, "the file changed while it was read")
