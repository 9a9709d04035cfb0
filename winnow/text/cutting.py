"""Where a file of lines is cut into pieces, found in one pass over its bytes."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

import numpy as np

from winnow.text.formats.base import WHOLE, Cut, Span
from winnow.text.lines import BYTE_ORDER_MARK

PASS = 2**22


def cut_lines(file: BinaryIO, target_bytes: int, max_bytes: int) -> Cut:
    """Cut a file of lines into spans of about ``target_bytes`` that end at line ends, each with its first row and line.

    Rows are the lines that are not blank, or are longer than ``max_bytes`` (then their bytes are not looked at). Holds
    ``PASS`` bytes of the file. Raises ``OSError``.
    """
    digest = hashlib.sha256()
    ends, rows, lines = [], [], []
    counter = _Rows(max_bytes)
    position, wanted = 0, target_bytes
    while block := file.read(PASS):
        digest.update(block)
        breaks, before = counter.count(block, first=position == 0)
        # The line end that a piece ends with is the first one at or after its target.
        at = 0
        while (at := max(at, int(np.searchsorted(breaks, wanted - position - 1)))) < len(breaks):
            end = position + int(breaks[at]) + 1
            ends.append(end)
            rows.append(int(before[at]))
            lines.append(counter.lines_before + at + 1)
            wanted = end + target_bytes
            at += 1
        counter.lines_before += len(breaks)
        position += len(block)
    if ends and ends[-1] == position:
        ends.pop()
    if not ends:
        return Cut([WHOLE], digest.hexdigest(), position)
    starts = zip([0, *ends], [*ends, position], [0, *rows], [1, *(line + 1 for line in lines)], strict=False)
    spans = [Span(start, end, row, line) for start, end, row, line in starts]
    return Cut(spans, digest.hexdigest(), position)


class _Rows:
    """Counts lines and rows over a file's blocks; of the line that a block's end leaves open it keeps what it needs."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rows = 0
        self._open_size = 0
        self._open_blank = True
        self.lines_before = 0

    def count(self, block: bytes, first: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return int64 ``[N]``: the positions of the block's line ends, and the rows up to and with each line."""
        data = np.frombuffer(block, np.uint8)
        breaks = np.flatnonzero(data == 0x0A)
        starts = np.concatenate([[0], breaks + 1])
        is_row = self._rows_among(block, data, starts[:-1], breaks)
        head = block[: breaks[0]] if len(breaks) else block
        if first:
            head = head.removeprefix(BYTE_ORDER_MARK)
        self._open_blank &= not head or head.isspace()
        if not len(breaks):
            self._open_size += len(block)
            return breaks, breaks
        is_row[0] = not self._open_blank or self._open_size + int(breaks[0]) > self._max_bytes
        rows = self._rows + np.cumsum(is_row)
        self._rows = int(rows[-1])
        tail = block[starts[-1] :]
        self._open_size, self._open_blank = len(tail), not tail or tail.isspace()
        return breaks, rows

    def _rows_among(self, block: bytes, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Say of each whole line whether it is a row; most are told by their first bytes."""
        if not len(starts):
            return np.zeros(0, bool)
        begins = data[starts]
        is_row = begins > 0x20
        doubtful = ~is_row & (begins != 0x0A)
        doubtful &= ~((begins == 0x0D) & (ends - starts == 1))
        for index in np.flatnonzero(doubtful):
            is_row[index] = not block[starts[index] : ends[index]].isspace()
        return is_row | (ends - starts > self._max_bytes)
