"""Compiled loops from UTF-8 bytes to normalised words.

Imported only inside functions, because numba is slow to import. ``data`` uint8 holds UTF-8 text. The rules of a
normalisation (``winnow.dedup.normalizations.Rules``) come as arrays:

- ``table`` int32 ``[0x110000]``: what a code point becomes. Positive: that code point; ``SEPARATOR``, ``DELETED``,
  ``DIGIT``, or ``EXPANDED - e`` for row e of the expansions.
- ``expansions`` uint8 ``[E, 16]``: the number of bytes, then the bytes.
"""

from __future__ import annotations

import numpy as np

from winnow.compiled import kernel
from winnow.dedup._intrinsics import (
    LANES,
    classify_words,
    copy4,
    copy16,
    has_special_case,
    load8,
    load32,
    load64,
    trailing_zeros,
)

U32, U64 = np.uint32, np.uint64

SEPARATOR, DELETED, DIGIT, EXPANDED = 0, -1, -2, -16
SPACE, ZERO = 32, 48
GROWTH = 3  # bytes that a byte of text becomes at most: lower case and canonical decomposition
SLACK = 80  # bytes past the end of a buffer that kernels may read or overwrite

# Flags of find_special: low byte = combining class of what the code point becomes.
CLASS, MARK, SPECIAL, TRANSPARENT = 0xFF, 0x100, 0x200, 0x400

_ALL = U64(0xFFFFFFFFFFFFFFFF)
_HIGH = U64(0x8080808080808080)


@kernel
def decode(data, at, end):
    """Return (code point, its bytes) of the character at ``at``; 0 bytes if the buffer cuts it."""
    byte = np.int64(load8(data, at))
    if byte < 0x80:
        return byte, 1
    if byte < 0xE0:
        width, code = 2, byte & 0x1F
    elif byte < 0xF0:
        width, code = 3, byte & 0x0F
    else:
        width, code = 4, byte & 0x07
    if at + width > end:
        return 0, 0
    for i in range(1, width):
        code = (code << 6) | (np.int64(load8(data, at + i)) & 0x3F)
    return min(code, 0x10FFFF), width


@kernel
def encode(code, out, size):
    """Write a code point as UTF-8; return the new size."""
    if code < 0x80:
        out[size] = code
        return size + 1
    if code < 0x800:
        out[size] = 0xC0 | (code >> 6)
        out[size + 1] = 0x80 | (code & 0x3F)
        return size + 2
    if code < 0x10000:
        out[size] = 0xE0 | (code >> 12)
        out[size + 1] = 0x80 | ((code >> 6) & 0x3F)
        out[size + 2] = 0x80 | (code & 0x3F)
        return size + 3
    out[size] = 0xF0 | (code >> 18)
    out[size + 1] = 0x80 | ((code >> 12) & 0x3F)
    out[size + 2] = 0x80 | ((code >> 6) & 0x3F)
    out[size + 3] = 0x80 | (code & 0x3F)
    return size + 4


@kernel
def find_special(data, offsets, first, last, flags, marks, out):
    """Set ``out[i]`` where text i is left to Python: a special code point, or marks that decomposition would reorder.

    ``flags`` uint16 ``[0x110000]``; a transparent code point is deleted, so the marks on its sides become neighbours.
    Without ``marks`` only 'İ' and 'Σ' are flagged.
    """
    for i in range(first, last):
        at, end, before = offsets[i], offsets[i + 1], np.int64(0)
        while not marks and at < end and at + LANES < len(data) and not has_special_case(data, at):
            at += LANES
        while at < end and (load8(data, at) & 0xC0) == 0x80:  # inside a character that is none of the special ones
            at += 1
        out[i] = False
        while at < end and not out[i]:
            if before == 0 and at + 8 <= end and (load64(data, at) & _HIGH) == 0:
                at += 8
                continue
            code, width = decode(data, at, end)
            if width == 0:
                break
            at += width
            flag = np.int64(flags[code])
            if flag & TRANSPARENT:
                continue
            combining = flag & CLASS
            out[i] = (flag & SPECIAL) != 0 or ((flag & MARK) != 0 and before > combining)
            before = combining


@kernel
def normalise(data, start, end, table, expansions, out, starts):
    """Write the words of ``data[start:end]`` to ``out``, one space between; return (words, bytes).

    ``starts[w]`` becomes where word w begins, ``starts[words]`` one past the space that would follow the last word.
    """
    at, size, words, inside = start, 0, 0, 0
    while at < end:
        byte = load8(data, at)
        becomes = np.int64(table[U32(byte)])
        if byte < 0x80 and becomes >= DELETED:
            at += 1
            # Without branches: word ends come every few bytes and would be mispredicted each time.
            word, separator = int(becomes > 0), int(becomes == 0)
            starts[U64(words)] = size
            words += word & (1 - inside)
            out[U64(size)] = becomes if word else SPACE
            size += word | (separator & inside)
            inside = word | (inside & (1 - separator))
        else:
            at, size, words, inside = _wide_run(data, at, end, table, expansions, out, size, starts, words, inside)
    return _finish(size, words, inside, starts)


@kernel
def _finish(size, words, inside, starts):
    if words and not inside:
        size -= 1  # the space after the last word
    starts[words] = size + 1
    return words, size


@kernel
def _character(data, at, end, table, expansions, out, size, starts, words, inside):
    """Normalise the character at ``at``, or the whole number; return the state after it."""
    code, width = decode(data, at, end)
    if width == 0:  # cut inside a character: no valid text, but never read past it
        return end, size, words, inside
    at += width
    becomes = np.int64(table[code])
    if becomes == SEPARATOR:
        out[size] = SPACE
        return at, size + inside, words, 0
    if becomes == DELETED:
        return at, size, words, inside
    if not inside:
        starts[words] = size
        words += 1
    if becomes > 0:
        return at, encode(becomes, out, size), words, 1
    if becomes == DIGIT:
        out[size] = ZERO
        return _number_end(data, at, end, table), size + 1, words, 1
    row = EXPANDED - becomes
    length = np.int64(expansions[row, 0])
    for i in range(length):
        out[size + i] = expansions[row, 1 + i]
    return at, size + length, words, 1


@kernel
def _wide_run(data, at, end, table, expansions, out, size, starts, words, inside):
    """Normalise the character at ``at`` and all up to two ASCII characters in a row; return the state after them."""
    while True:
        byte = load8(data, at)
        code = np.int64(byte)
        width = 1
        if byte >= 0x80 and at + 4 <= len(data):
            raw = np.int64(load32(data, at))
            if byte < 0xE0:
                width, code = 2, ((raw & 0x1F) << 6) | ((raw >> 8) & 0x3F)
            elif byte < 0xF0:
                width, code = 3, ((raw & 0x0F) << 12) | ((raw >> 2) & 0xFC0) | ((raw >> 16) & 0x3F)
        becomes = np.int64(table[code])
        if becomes == code > 0 and (byte < 0x80 or (width > 1 and at + width <= end)):
            starts[words] = size
            words += 1 - inside
            inside = 1
            if byte < 0x80:
                out[size] = byte
            else:
                copy4(data, at, out, size)
            at += width
            size += width
        else:
            at, size, words, inside = _character(data, at, end, table, expansions, out, size, starts, words, inside)
        if at >= end or (load8(data, at) < 0x80 and (at + 1 >= end or load8(data, at + 1) < 0x80)):
            return at, size, words, inside


@kernel
def _number_end(data, at, end, table):
    """Return where the number ends of which a digit stands before ``at``: digits, or digits, a decimal mark, digits."""
    for part in range(2):
        while at < end:
            code, width = decode(data, at, end)
            if width == 0 or table[code] != DIGIT:
                break
            at += width
        if part == 1 or at >= end:
            return at
        code, width = decode(data, at, end)
        # . , and the Arabic comma, the Arabic decimal separator and three decimal separator key symbols
        mark = code in (0x2E, 0x2C, 0x60C, 0x66B, 0x2396, 0x2397, 0x2398)
        if width == 0 or not mark or at + width >= end:
            return at
        code, next_width = decode(data, at + width, end)
        if next_width == 0 or table[code] != DIGIT:
            return at
        at += width
    return at


@kernel
def normalise_words(data, start, end, table, expansions, out, starts, block):
    """Do as :func:`normalise` for a table that lowers ASCII and splits it at ``\\w``, by 64 bytes at a time."""
    at, size, words, inside = start, np.int64(0), 0, 0
    while at < end:
        if at + LANES <= len(data):
            mask, high = classify_words(data, at, block)
        else:
            rest = len(data) - at
            for i in range(rest):
                block[LANES + SLACK + i] = load8(data, at + i)
            mask, high = classify_words(block, LANES + SLACK, block)
        length = U64(min(LANES, end - at))
        if length < U64(LANES):
            high &= (U64(1) << length) - U64(1)
        if high:
            length = trailing_zeros(high)
        if length < U64(LANES):
            mask &= (U64(1) << length) - U64(1)
        if inside and length:
            if mask & U64(1):
                starts_here = 0
            else:
                out[size] = SPACE
                size += 1
                inside, starts_here = 0, 1
        else:
            starts_here = 1
        run_end = U64(0)
        while mask:
            first = trailing_zeros(mask)
            carried = mask + (U64(1) << first)
            run_end = trailing_zeros(carried) if carried else U64(LANES)
            mask &= carried
            run = np.int64(run_end - first)
            starts[U64(words)] = size if starts_here else starts[U64(words)]
            words += starts_here
            starts_here = 1
            copy16(block, first, out, size)
            copied = 16
            while copied < run:
                copy16(block, first + U64(copied), out, size + copied)
                copied += 16
            size += run
            out[U64(size)] = SPACE
            size += 1
        if length:
            inside = int(run_end == length)
            size -= inside
        at += np.int64(length)
        if at < end and load8(data, at) >= 0x80:
            at, size, words, inside = _wide_run(data, at, end, table, expansions, out, size, starts, words, inside)
    return _finish(size, words, inside, starts)
