"""Words and n-gram matches over Arrow's UTF-8 bytes (numba); imported only when an index is built or searched.

A word is a maximal stretch of word characters of the lower-cased text, kept as a 64-bit hash of its code points. The
hash of n words is a polynomial of theirs, so any n-gram's hash comes from two prefix hashes:
``h(i, n) = H[i + n] - H[i] * B**n  (mod 2**64)`` with ``H[i + 1] = H[i] * B + word[i]``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from winnow.compiled import kernel

SEED = np.uint64(0xCBF29CE484222325)
STEP = np.uint64(0x9E3779B97F4A7C15)
BASE = np.uint64(0xD6E8FEB86659FD93)
COMMON = 256  # places looked at for one n-gram; keeps a text of one repeated word from costing its square
BREAK, DROPPED, ALONE = -1, -2, 1 << 24  # see lower_table in words.py
DOTTED_I = 0x130  # the one character whose lower case is two: "i" and a combining dot, which is no word character


@njit(nogil=True, inline="always")
def _mix(key):
    key ^= key >> np.uint64(33)
    key *= np.uint64(0xFF51AFD7ED558CCD)
    key ^= key >> np.uint64(33)
    key *= np.uint64(0xC4CEB9FE1A85EC53)
    return key ^ (key >> np.uint64(33))


@kernel
def split_words(text, lower, hashes, starts, ends):
    """Fill the hash and the character span of each word of one text; return their number.

    ``text`` uint8 is UTF-8; ``lower`` int32 ``[C]`` is a table of :func:`winnow.contamination.words.lower_table`.
    """
    size = text.shape[0]
    words = characters = position = last = 0
    word, inside = SEED, False
    while position < size:
        byte = np.int64(text[position])
        code, width = byte, 1
        if byte >= 0xF0:
            code = (byte & 0x07) << 18 | (np.int64(text[position + 1]) & 0x3F) << 12
            code |= (np.int64(text[position + 2]) & 0x3F) << 6 | (np.int64(text[position + 3]) & 0x3F)
            width = 4
        elif byte >= 0xE0:
            code = (byte & 0x0F) << 12 | (np.int64(text[position + 1]) & 0x3F) << 6
            code |= np.int64(text[position + 2]) & 0x3F
            width = 3
        elif byte >= 0xC0:
            code = (byte & 0x1F) << 6 | (np.int64(text[position + 1]) & 0x3F)
            width = 2
        position += width
        small = np.int64(lower[code]) if code < lower.shape[0] else np.int64(BREAK)
        if inside and (small == BREAK or small >= ALONE):
            hashes[words] = _mix(word)
            ends[words] = last
            words += 1
            inside = False
        if small >= 0:
            if not inside:
                word, inside, starts[words] = SEED, True, characters
            word = (word ^ np.uint64(small & (ALONE - 1))) * STEP
            last = characters + 1
        characters += 1
        if inside and (small >= ALONE or code == DOTTED_I or position == size):
            hashes[words] = _mix(word)
            ends[words] = last
            words += 1
            inside = False
    return words


@kernel
def split_spans(data, offsets, start, stop, lower):
    """Word hashes uint64, first characters and characters after the end int32 of rows ``start:stop``, and bounds."""
    room = (offsets[stop] - offsets[start]) // 2 + stop - start  # a word and what ends it are two bytes
    hashes, starts, ends = np.empty(room, np.uint64), np.empty(room, np.int32), np.empty(room, np.int32)
    bounds = np.zeros(stop - start + 1, np.int64)
    for row in range(start, stop):
        base = bounds[row - start]
        text = data[offsets[row] : offsets[row + 1]]
        bounds[row - start + 1] = base + split_words(text, lower, hashes[base:], starts[base:], ends[base:])
    count = bounds[stop - start]
    return hashes[:count].copy(), starts[:count].copy(), ends[:count].copy(), bounds


@kernel
def split_all(data, offsets, lower):
    """Word hashes of all texts, one after another, and offsets int64 ``[N + 1]`` into them."""
    count = offsets.shape[0] - 1
    total = offsets[count] - offsets[0]
    hashes, starts, ends = np.empty(total, np.uint64), np.empty(total, np.int64), np.empty(total, np.int64)
    bounds = np.zeros(count + 1, np.int64)
    for row in range(count):
        base = bounds[row]
        text = data[offsets[row] : offsets[row + 1]]
        bounds[row + 1] = base + split_words(text, lower, hashes[base:], starts, ends)
    return hashes[: bounds[count]].copy(), bounds


@kernel
def _prefixes(words, count, prefix):
    prefix[0] = np.uint64(0)
    for i in range(count):
        prefix[i + 1] = prefix[i] * BASE + words[i]


@njit(nogil=True, inline="always")
def _power(n):
    power = np.uint64(1)
    for _ in range(n):
        power *= BASE
    return power


@njit(nogil=True, inline="always")
def _key(prefix, i, n, power):
    return _mix((prefix[i + n] - prefix[i] * power) ^ (np.uint64(n) << np.uint64(56)))


@kernel
def item_ngrams(words, bounds, n, shortest):
    """Keys uint64 and first words int64 of the items' n-grams; an item of fewer than n words is one n-gram, or none."""
    keys, firsts = np.empty(words.shape[0], np.uint64), np.empty(words.shape[0], np.int64)
    prefix = np.empty(words.shape[0] + 1, np.uint64)
    found = 0
    for item in range(bounds.shape[0] - 1):
        start, size = bounds[item], bounds[item + 1] - bounds[item]
        if size < min(n, shortest):
            continue
        length = min(n, size)
        power = _power(length)
        _prefixes(words[start:], size, prefix)
        for i in range(size - length + 1):
            keys[found], firsts[found] = _key(prefix, i, length, power), start + i
            found += 1
    return keys[:found].copy(), firsts[:found].copy()


@kernel
def fill_table(keys, capacity):
    """Open-addressing table of distinct keys: int64 ``[capacity]`` (a power of two) of their positions, or -1."""
    table = np.full(capacity, -1, np.int64)
    for k in range(keys.shape[0]):
        slot = np.int64(keys[k] & np.uint64(capacity - 1))
        while table[slot] >= 0:
            slot = (slot + 1) & (capacity - 1)
        table[slot] = k
    return table


@kernel
def _look_up(table, keys, key):
    slot = np.int64(key & np.uint64(table.shape[0] - 1))
    while table[slot] >= 0:
        if keys[table[slot]] == key:
            return table[slot]
        slot = (slot + 1) & (table.shape[0] - 1)
    return np.int64(-1)


@njit(nogil=True, inline="always")
def _run_through(words, count, i, item_words, start, end, first, common, common_before):
    """Return how many words in a row a text and an item share through word i and word ``first``, and where they begin.

    The item's words are ``item_words[start:end]``. 0 words inside a run that was measured from its first word.
    """
    back = 0
    if i and first > start and words[i - 1] == item_words[first - 1]:
        if common or not common_before:
            return 0, i
        while i > back and first - back > start and words[i - back - 1] == item_words[first - back - 1]:
            back += 1
    run = 0
    while i + run < count and first + run < end and words[i + run] == item_words[first + run]:
        run += 1
    return run + back, i - back


@kernel
def search(data, offsets, start, stop, lower, lengths, table, keys, groups, firsts, items, item_words, bounds, found):
    """Fill rows ``start:stop`` of ``found`` int64 ``[N, 7]``.

    Columns: words, matched n-grams, covered words, longest match, its item, its first and its last character + 1. The
    longest match is the longest run of words that the document shares with one item; ties: the earlier in the document,
    then the smaller item. ``firsts[groups[k]:groups[k + 1]]`` are the words of the items at which n-gram k starts.
    """
    longest = 0
    for row in range(start, stop):
        longest = max(longest, offsets[row + 1] - offsets[row])
    room = longest + 2
    words, prefix = np.empty(room, np.uint64), np.empty(room, np.uint64)
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    hit, covered = np.empty(room, np.bool_), np.empty(room, np.bool_)
    for row in range(start, stop):
        count = split_words(data[offsets[row] : offsets[row + 1]], lower, words, starts, ends)
        _prefixes(words, count, prefix)
        hit[:count] = False
        covered[:count] = False
        best, best_at, best_item = 0, 0, np.int64(-1)
        for n in lengths:
            power, until, common_before = _power(n), 0, False
            for i in range(count - n + 1):
                group = _look_up(table, keys, _key(prefix, i, n, power))
                if group < 0:
                    common_before = False
                    continue
                hit[i] = True
                for k in range(max(i, until), i + n):
                    covered[k] = True
                until = i + n
                postings = firsts[groups[group] : groups[group + 1]]
                common = postings.shape[0] > COMMON
                for first in postings[:COMMON]:
                    item = items[first]
                    run, at = _run_through(
                        words, count, i, item_words, bounds[item], bounds[item + 1], first, common, common_before
                    )
                    if run == 0:
                        continue
                    if run > best or (run == best and (at < best_at or (at == best_at and item < best_item))):
                        best, best_at, best_item = run, at, item
                common_before = common
        found[row, 0] = count
        found[row, 1] = hit[:count].sum()
        found[row, 2] = covered[:count].sum()
        found[row, 3], found[row, 4] = best, best_item
        if best:
            found[row, 5], found[row, 6] = starts[best_at], ends[best_at + best - 1]


@kernel
def runs(words, starts, ends, bounds, start, stop, n, table, keys, groups, firsts, items, item_words, item_bounds):
    """Longest run of at least n words that rows ``start:stop`` share with each item, in the order of row and item.

    int64 ``[M, 5]``: row, item, words, first and last character + 1. Of equally long runs the earlier. ``firsts`` are
    followed as by :func:`search`.
    """
    out, filled = np.empty((256, 5), np.int64), 0
    power = _power(n)
    for row in range(start, stop):
        base, count = bounds[row], bounds[row + 1] - bounds[row]
        text = words[base : base + count]
        prefix = np.empty(count + 1, np.uint64)
        _prefixes(text, count, prefix)
        room, found, common_before = np.empty((64, 3), np.int64), 0, False
        for i in range(count - n + 1):
            group = _look_up(table, keys, _key(prefix, i, n, power))
            if group < 0:
                common_before = False
                continue
            postings = firsts[groups[group] : groups[group + 1]]
            common = postings.shape[0] > COMMON
            for first in postings[:COMMON]:
                item = items[first]
                run, at = _run_through(
                    text, count, i, item_words, item_bounds[item], item_bounds[item + 1], first, common, common_before
                )
                if run == 0:
                    continue
                if found == room.shape[0]:
                    room = np.concatenate((room, np.empty((found, 3), np.int64)))
                room[found, 0], room[found, 1], room[found, 2] = item, run, at
                found += 1
            common_before = common
        order = np.argsort(room[:found, 0], kind="mergesort")
        for k in range(found):
            item, run, at = room[order[k]]
            if run < n:
                continue
            last = filled - 1
            if filled and out[last, 0] == row and out[last, 1] == item:
                if run < out[last, 2] or (run == out[last, 2] and starts[base + at] >= out[last, 3]):
                    continue
                filled -= 1
            if filled == out.shape[0]:
                out = np.concatenate((out, np.empty((filled, 5), np.int64)))
            out[filled, 0], out[filled, 1], out[filled, 2] = row, item, run
            out[filled, 3], out[filled, 4] = starts[base + at], ends[base + at + run - 1]
            filled += 1
    return out[:filled].copy()
