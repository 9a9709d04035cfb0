"""Counts over Arrow's UTF-8 bytes (numba); imported only when documents are measured."""

from __future__ import annotations

import numpy as np
from numba import njit

from winnow.compiled import kernel

CSV_START, CSV_FIELD, CSV_QUOTED, CSV_QUOTE = range(4)
"""At the beginning of a field; in one without quotes; inside quotes; after a quote that ends them or is doubled."""

TRUE = np.uint8(1)
RUN = 128
"""Bytes looked at together; their counts fit in eight bits, so that one instruction counts many."""


@kernel
def count_words(data, offsets):
    """Count the runs of characters that are no white space (Unicode's White_Space) in each of N texts.

    ``data`` uint8, the UTF-8 bytes of all texts; ``offsets`` int64 ``[N + 1]``. Returns int64 ``[N]``.
    """
    texts = offsets.shape[0] - 1
    words = np.zeros(texts, np.int64)
    for text in range(texts):
        position, end = offsets[text], offsets[text + 1]
        count, space = np.int64(0), TRUE
        while position < end:
            stop = min(position + RUN, end)
            begun, wide, last = np.uint8(0), np.uint8(0), space
            for byte in data[position:stop]:
                here = _is_space(byte)
                wide |= np.uint8(byte == 0xC2) | np.uint8(np.uint8(byte - np.uint8(0xE1)) <= 2)
                begun = np.uint8(begun + (last & np.uint8(here ^ TRUE)))
                last = here
            if not wide:
                count += begun
                space = last
                position = stop
            while position < stop:  # there may be white space beyond ASCII: a character at a time
                width = _wide_space(data, position, end)
                here = np.uint8(width > 0) | _is_space(data[position])
                count += space & np.uint8(here ^ TRUE)
                space = here
                position += max(width, 1)
        words[text] = count
    return words


@njit(nogil=True, inline="always")
def _is_space(byte):
    return np.uint8(byte == 0x20) | np.uint8(np.uint8(byte - np.uint8(0x09)) <= np.uint8(4))


@njit(nogil=True, inline="always")
def _wide_space(data, position, end):
    """Return the bytes of the white space beyond ASCII that begins here, 0 if none does."""
    byte = data[position]
    if byte == 0xC2 and position + 1 < end:
        second = data[position + 1]
        return 2 if second == 0x85 or second == 0xA0 else 0
    if 0xE1 <= byte <= 0xE3 and position + 2 < end:
        second, third = data[position + 1], data[position + 2]
        if byte == 0xE2 and second == 0x80:
            return 3 if third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF else 0
        if byte == 0xE2:
            return 3 if second == 0x81 and third == 0x9F else 0
        if byte == 0xE1:
            return 3 if second == 0x9A and third == 0x80 else 0
        return 3 if second == 0x80 and third == 0x80 else 0
    return 0


@kernel
def csv_ends(data, delimiter, end, state, ends):
    """Find the line ends of CSV rows, those that are not inside quotes; returns their number and the state.

    ``data`` uint8, and the codes of the delimiter and of what ends a line; ``state`` is where the bytes before left off
    (``CSV_START`` at first); ``ends`` int64, as long as the data at least, takes the positions. A quote opens only at
    the beginning of a field, and a doubled one is none (RFC 4180).
    """
    count = 0
    for position in range(data.shape[0]):
        byte = data[position]
        if state == CSV_QUOTED:
            if byte == 0x22:
                state = CSV_QUOTE
        elif byte == end:
            ends[count] = position
            count += 1
            state = CSV_START
        elif byte == delimiter:
            state = CSV_START
        elif byte == 0x22 and state in (CSV_START, CSV_QUOTE):
            state = CSV_QUOTED
        else:
            state = CSV_FIELD
    return count, state
