"""A remote file that reads like a local one: by blocks, reading ahead, trying again, in bounded memory."""

from __future__ import annotations

import errno
import io
import os
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol

from winnow.text.retries import ChangedError, explain, patiently

BLOCK_BYTES = 8 * 2**20
BLOCKS_KEPT = 2  # and one that is being read ahead: 24 MiB a file


class Ranges(Protocol):
    """What can give any range of a remote file of known size.

    ``read`` returns ``[start, stop)`` or, when the connection breaks, a beginning of it that is not empty. It raises
    whatever its library raises, :class:`ChangedError` when the file is no longer the one that was opened.
    """

    size: int

    def read(self, start: int, stop: int) -> bytes: ...

    def close(self) -> None: ...


class RemoteFile(io.RawIOBase):
    """A seekable file over ranges; raises ``OSError`` when a range does not come even after several attempts.

    All ranges are fetched one after the other in one thread of its own, so that the next block of a file that is read
    front to back comes while this one is being used.
    """

    def __init__(self, ranges: Ranges, path: str) -> None:
        super().__init__()
        self.name = path
        self._ranges = ranges
        self._position = 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._ahead: tuple[int, Future[bytes]] | None = None
        self._last = -1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="remote-file")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._ranges.size}[whence]
        if origin + offset < 0:
            raise OSError(errno.EINVAL, "a seek to before the beginning", self.name)
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = self._ranges.size - self._position
        if left <= 0 or not len(buffer):
            return 0
        index, skip = divmod(self._position, BLOCK_BYTES)
        piece = memoryview(self._block(index))[skip : skip + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._kept.clear()
            if self._ahead:
                self._ahead[1].cancel()
            self._thread.submit(self._ranges.close)
            self._thread.shutdown(wait=False)
        super().close()

    def _block(self, index: int) -> bytes:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        ahead, self._ahead = self._ahead, None
        if ahead and ahead[0] == index:
            fetched = ahead[1]
        else:
            if ahead:
                ahead[1].cancel()
            fetched = self._thread.submit(self._fetch, index)
        while len(self._kept) >= BLOCKS_KEPT:
            self._kept.popitem(last=False)
        self._kept[index] = fetched.result()
        if index and index == self._last + 1 and (index + 1) * BLOCK_BYTES < self._ranges.size:
            self._ahead = index + 1, self._thread.submit(self._fetch, index + 1)
        self._last = index
        return self._kept[index]

    def _fetch(self, index: int) -> bytes:
        start = index * BLOCK_BYTES
        stop = min(start + BLOCK_BYTES, self._ranges.size)
        pieces: list[bytes] = []
        while start < stop:
            try:
                pieces.append(patiently(partial(self._some, start, stop), self.name))
            except Exception as error:  # whatever the client library of a store raises
                raise as_os_error(self.name, error) from error
            start += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _some(self, start: int, stop: int) -> bytes:
        data = self._ranges.read(start, stop)
        if not data:
            raise ConnectionError(f"the server sent none of the bytes from {start} to {stop}")
        if len(data) > stop - start:
            raise OSError(errno.EINVAL, f"the server sent {len(data)} bytes for {start} to {stop}")
        return data


def as_os_error(path: str, error: Exception) -> OSError:
    """Return an error of whatever library as an ``OSError`` that names the file and the cause."""
    if isinstance(error, ChangedError):
        return ChangedError(errno.ESTALE, "the file changed while it was being read; it is to be read again", path)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "there is no such file (any more)", path)
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, f"access is denied ({explain(error)}); check the credentials", path)
    return OSError(errno.EIO, f"it cannot be read from the server ({explain(error)})", path)
