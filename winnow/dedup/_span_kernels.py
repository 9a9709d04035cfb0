"""Compiled loops of repeated spans: lines, fingerprints, windows, and the union of what repeats.

Imported only inside functions, as numba is slow to import; every kernel is serial and releases the GIL. Texts are one
buffer ``data`` of UTF-8 bytes and ``offsets`` int64 ``[N + 1]`` into it; ``bases`` int64 ``[N]`` say at which character
of the whole corpus each begins. A *hit* (``spill.HIT``) is a unit of text that may occur elsewhere too.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from winnow.compiled import kernel
from winnow.dedup._hash_kernels import U32, U64, xxh64
from winnow.dedup._text_kernels import encode

CHECK = U64(0x51AB)  # seed of the second hash of a unit: two units are one only if 96 bits agree
NEWLINE = 10
BASE = U64(0x9E3779B97F4A7C15)  # of the rolling hash, which only preselects: any odd number does
MIX = U64(0xD6E8FEB86659FD93)


@njit(nogil=True, inline="always")
def _decode(data, at):
    """Return (code point, bytes) of the character at a place of valid UTF-8."""
    byte = np.int32(data[at])
    if byte < 0x80:
        return byte, 1
    if byte < 0xE0:
        return ((byte & 0x1F) << 6) | (data[at + 1] & 0x3F), 2
    if byte < 0xF0:
        return ((byte & 0x0F) << 12) | ((data[at + 1] & 0x3F) << 6) | (data[at + 2] & 0x3F), 3
    return (
        ((byte & 0x07) << 18) | ((data[at + 1] & 0x3F) << 12) | ((data[at + 2] & 0x3F) << 6) | (data[at + 3] & 0x3F)
    ), 4


@njit(nogil=True, inline="always")
def _put(hits, at, data, start, end, position, length):
    hits[at].hash = xxh64(data, start, end, U64(0))
    hits[at].check = U32(xxh64(data, start, end, CHECK))
    hits[at].position = U64(position)
    hits[at].length = U32(length)


# -- lines and paragraphs ---------------------------------------------------------------------------------------------


@kernel
def count_lines(data, offsets, first, last):
    """Return the most lines that texts ``first..last`` can have, and the bytes of the longest text."""
    lines, longest = last - first, 0
    for at in range(offsets[first], offsets[last]):
        lines += int(data[at] == NEWLINE)
    for i in range(first, last):
        longest = max(longest, offsets[i + 1] - offsets[i])
    return lines, longest


@kernel
def blocks(data, offsets, first, last, table, shortest, bases, lines, paragraphs, out):
    """Fill ``lines`` and ``paragraphs`` with the hits of at least ``shortest`` normalised characters; return counts.

    ``table`` int32 ``[0x110000]``: what becomes of a code point (``lines.normal_form``). ``out`` is scratch for the
    normalised text. A line's hit ends after its line end, a paragraph's where the next one begins.
    """
    line_count = paragraph_count = 0
    for i in range(first, last):
        at, end, base = offsets[i], offsets[i + 1], bases[i]
        character = size = 0
        inside = open_ended = False  # in a paragraph; the last one put still lacks its end
        paragraph = characters = 0
        while at < end:
            line, line_size, line_characters = character, size, 0
            started, kept_size, kept_characters = False, size, 0
            while at < end:
                code, width = _decode(data, at)
                at += width
                character += 1
                if code == NEWLINE:
                    break
                mapped = table[code]
                if mapped < 0:  # white space: it counts between other characters only
                    if mapped < -1 and started:
                        size = encode(-mapped, out, size)
                        line_characters += 1
                    continue
                started = True
                if mapped > 0:
                    size = encode(mapped, out, size)
                    line_characters += 1
                kept_size, kept_characters = size, line_characters
            size = kept_size
            if started:
                if open_ended:
                    paragraphs[paragraph_count].length = U32(line - paragraph)
                    paragraph_count += 1
                    open_ended = False
                if not inside:
                    inside, paragraph, characters = True, line, 0
                if kept_characters >= shortest:
                    _put(lines, line_count, out, line_size, size, base + line, character - line)
                    line_count += 1
                characters += kept_characters
                out[size] = NEWLINE
                size += 1
            if inside and (not started or at >= end):
                if characters >= shortest:
                    _put(paragraphs, paragraph_count, out, 0, size, base + paragraph, 0)
                    open_ended = True
                inside, size = False, 0
        if open_ended:
            paragraphs[paragraph_count].length = U32(character - paragraph)
            paragraph_count += 1
    return line_count, paragraph_count


# -- repeated windows -------------------------------------------------------------------------------------------------


@njit(nogil=True, inline="always")
def _is_space(code):
    """Return whether a code point is white space, as Python's ``str.isspace`` says."""
    if code < 0x1680:
        return (9 <= code <= 13) or (28 <= code <= 32) or code == 0x85 or code == 0xA0
    return code == 0x1680 or 0x2000 <= code <= 0x200A or code in (0x2028, 0x2029, 0x202F, 0x205F, 0x3000)


@kernel
def words_of(data, start, end, out, starts, symbols, begins, ends):
    """Write the words of ``data[start:end]`` to ``out``, one space between; return how many there are.

    Word w is ``out[starts[w] : starts[w + 1] - 1]``, its hash ``symbols[w]``, its place in the text the characters
    ``begins[w]`` to ``ends[w]``.
    """
    at, size, words, character, inside = start, 0, 0, 0, False
    while at < end:
        code, width = _decode(data, at)
        if _is_space(code):
            if inside:
                ends[words] = character
                symbols[words] = xxh64(out, starts[words], size, U64(0))
                out[size] = 32
                size += 1
                words += 1
                inside = False
        else:
            if not inside:
                starts[words], begins[words], inside = size, character, True
            for i in range(width):
                out[size + i] = data[at + i]
            size += width
        at += width
        character += 1
    if inside:
        ends[words] = character
        symbols[words] = xxh64(out, starts[words], size, U64(0))
        size += 1
        words += 1
    starts[words] = size
    return words


@njit(nogil=True)
def _runs(symbols, gram, width, ring, values, firsts, ties):
    """Cut the windows of ``width`` k-grams of a text into runs with the same least hash; return how many, -1: too many.

    Run r is the windows ``firsts[r]`` up to ``firsts[r + 1]``, ``values[r]`` their least hash. ``ties[r]``: the hash
    came up again while it was the least, so it stands at two places.
    """
    grams = len(symbols) - gram + 1
    if grams < width:
        firsts[0] = 0
        return 0
    leaving = U64(1)
    for _ in range(gram):
        leaving *= BASE
    rolled = U64(0)
    for i in range(gram - 1):
        rolled = rolled * BASE + U64(symbols[i]) + U64(1)
    mask = len(ring) - 1
    count, place, least = 0, -1, U64(0)
    for g in range(grams):
        rolled = rolled * BASE + U64(symbols[g + gram - 1]) + U64(1)
        if g > 0:
            rolled -= leaving * (U64(symbols[g - 1]) + U64(1))
        value = (rolled ^ (rolled >> U64(32))) * MIX
        value ^= value >> U64(29)
        ring[g & mask] = value
        window = g - width + 1
        if window < 0:
            continue
        if window > 0 and value == least:
            place = g
            ties[count - 1] = True
            continue
        if window > 0 and value > least and place >= window:
            continue
        if window == 0 or value > least:  # the least one is not in the window: the last of the least that are
            place, least = g, value
            for back in range(g - 1, window - 1, -1):
                if ring[back & mask] < least:
                    place, least = back, ring[back & mask]
        else:
            place, least = g, value
        if count + 1 >= len(values):
            return -1
        values[count], firsts[count], ties[count] = least, window, False
        count += 1
    firsts[count] = grams - width + 1
    return count


@kernel
def _room(symbols, width):
    return 64 + 4 * symbols // (width + 1)


@kernel
def _all_runs(symbols, gram, width, ring, values, firsts, ties):
    """Call :func:`_runs`, with more room where it lacks some; return (count, values, firsts, ties)."""
    if len(values) < _room(len(symbols), width):
        values, firsts, ties = _arrays(_room(len(symbols), width))
    count = _runs(symbols, gram, width, ring, values, firsts, ties)
    while count < 0:
        values, firsts, ties = _arrays(2 * len(values))
        count = _runs(symbols, gram, width, ring, values, firsts, ties)
    return count, values, firsts, ties


@kernel
def _arrays(size):
    return np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.bool_)


@kernel
def _ring(width):
    size = 1
    while size < width:
        size *= 2
    return np.empty(size, np.uint64)


@kernel
def _word_scratch(longest):
    most = longest // 2 + 2
    return (
        np.empty(longest + 2, np.uint8), np.empty(most, np.int64), np.empty(most, np.uint64), np.empty(most, np.int64),
        np.empty(most, np.int64),
    )  # fmt: skip


@kernel
def fingerprints(data, offsets, first, last, words, gram, width):
    """Return the least k-gram hash of every run of windows of texts ``first..last``, twice where it had a tie.

    A window of ``gram + width - 1`` symbols (bytes, or words where ``words``) that occurs at two places makes a hash
    come up twice: either in two runs, or in one, as a tie (see ``substrings``).
    """
    _, longest = count_lines(data, offsets, first, last)
    text, starts, symbols, begins, ends = _word_scratch(longest if words else 0)
    ring = _ring(width)
    values, firsts, ties = _arrays(64)
    out, size = np.empty(1024, np.uint64), 0
    for i in range(first, last):
        if words:
            found = words_of(data, offsets[i], offsets[i + 1], text, starts, symbols, begins, ends)
            count, values, firsts, ties = _all_runs(symbols[:found], gram, width, ring, values, firsts, ties)
        else:
            part = data[offsets[i] : offsets[i + 1]]
            count, values, firsts, ties = _all_runs(part, gram, width, ring, values, firsts, ties)
        while size + 2 * count > len(out):
            out = np.concatenate((out, np.empty_like(out)))
        for r in range(count):
            out[size] = values[r]
            out[size + 1] = values[r]
            size += 2 if ties[r] else 1
    return out[:size].copy()


@njit(nogil=True, inline="always")
def _slot(value, shift):
    """Return the place of a fingerprint in the bitmaps: it is the least of many hashes, so its high bits say little."""
    return (value * BASE) >> U64(shift)


@kernel
def mark(values, shift, once, twice):
    """Note in two bitmaps uint8 ``[B]`` which hashes came, and which came again (or share their place with one)."""
    for value in values:
        slot = _slot(value, shift)
        byte, bit = slot >> U64(3), np.uint8(1 << (slot & U64(7)))
        if once[byte] & bit:
            twice[byte] |= bit
        else:
            once[byte] |= bit


@njit(nogil=True, inline="always")
def _came_twice(value, shift, twice):
    slot = _slot(value, shift)
    return twice[slot >> U64(3)] & np.uint8(1 << (slot & U64(7)))


@kernel
def windows(data, offsets, first, last, words, gram, width, bases, shift, twice, hit):
    """Return the hits of all windows whose least hash came twice; ``hit`` is an empty array of their type.

    A window of bytes stands for the characters that lie in it whole.
    """
    length = gram + width - 1
    _, longest = count_lines(data, offsets, first, last)
    text, starts, symbols, begins, ends = _word_scratch(longest if words else 0)
    ring = _ring(width)
    values, firsts, ties = _arrays(64)
    out, size = np.empty(1024, hit.dtype), 0
    for i in range(first, last):
        start = offsets[i]
        if words:
            found = words_of(data, start, offsets[i + 1], text, starts, symbols, begins, ends)
            count, values, firsts, ties = _all_runs(symbols[:found], gram, width, ring, values, firsts, ties)
        else:
            part = data[start : offsets[i + 1]]
            count, values, firsts, ties = _all_runs(part, gram, width, ring, values, firsts, ties)
        more = 0
        for r in range(count):
            if _came_twice(values[r], shift, twice):
                more += firsts[r + 1] - firsts[r]
        if size + more > len(out):
            larger = np.empty(max(2 * len(out), size + more), hit.dtype)
            larger[:size] = out[:size]
            out = larger
        left = right = np.int64(0)  # characters that begin before the bytes left_at and right_at
        left_at = right_at = start
        for r in range(count):
            if not _came_twice(values[r], shift, twice):
                continue
            for window in range(firsts[r], firsts[r + 1]):
                if words:
                    begin, end = begins[window], ends[window + length - 1]
                    _put(out, size, text, starts[window], starts[window + length] - 1, bases[i] + begin, end - begin)
                else:
                    here = start + window
                    while left_at < here:
                        left += int(data[left_at] & 0xC0 != 0x80)
                        left_at += 1
                    if right_at < here:
                        right_at, right = left_at, left
                    while right_at < here + length:
                        right += int(data[right_at] & 0xC0 != 0x80)
                        right_at += 1
                    cut = right_at < offsets[i + 1] and data[right_at] & 0xC0 == 0x80
                    _put(out, size, data, here, right_at, bases[i] + left, right - int(cut) - left)
                size += 1
    return out[:size].copy()


# -- what repeats -----------------------------------------------------------------------------------------------------


@kernel
def repeats(hits, order, every_copy, out):
    """Fill ``out`` with the hits that occur more than once, in ``order`` (by hash); return how many.

    Unless ``every_copy``, the one of smallest position of each is left out.
    """
    count = at = 0
    while at < len(order):
        end = at + 1
        while end < len(order) and hits[order[end]].hash == hits[order[at]].hash:
            end += 1
        if end - at > 1:
            same = True
            for k in range(at + 1, end):
                same &= hits[order[k]].check == hits[order[at]].check
            if not same:  # 64 bits agree by chance: sort by the others
                checks = np.empty(end - at, np.uint32)
                for k in range(at, end):
                    checks[k - at] = hits[order[k]].check
                order[at:end] = order[at:end][np.argsort(checks)]
            start = at
            while start < end:
                stop, least = start, hits[order[start]].position
                while stop < end and hits[order[stop]].check == hits[order[start]].check:
                    least = min(least, hits[order[stop]].position)
                    stop += 1
                if stop - start > 1:
                    for k in range(start, stop):
                        hit = hits[order[k]]
                        if every_copy or hit.position != least:
                            out[count].position = hit.position
                            out[count].length = hit.length
                            out[count].copies = U32(stop - start)
                            count += 1
                start = stop
        at = end
    return count


@kernel
def united(positions, lengths, copies, order, starts, out):
    """Unite windows in ``order`` (by position) that overlap or touch, not across ``starts`` of texts; return how many.

    ``out`` int64 ``[n, 3]``: first character, character after the end, most copies of a window.
    """
    count, text = -1, 0
    for k in order:
        position = np.int64(positions[k])
        end = position + np.int64(lengths[k])
        other = False
        while text + 1 < len(starts) and starts[text + 1] <= position:
            text += 1
            other = True
        if count >= 0 and not other and position <= out[count, 1]:
            out[count, 1] = max(out[count, 1], end)
            out[count, 2] = max(out[count, 2], np.int64(copies[k]))
        else:
            count += 1
            out[count, 0], out[count, 1], out[count, 2] = position, end, np.int64(copies[k])
    return count + 1


@kernel
def covered(starts, ends, order, rows, out):
    """Add to ``out`` int64 ``[N]`` the characters of each text inside spans given in ``order`` (by start)."""
    reached = np.int64(0)
    for k in order:
        start = max(starts[k], reached)
        if ends[k] > start:
            out[rows[k]] += ends[k] - start
            reached = ends[k]
