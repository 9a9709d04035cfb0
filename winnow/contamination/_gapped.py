"""Search of :mod:`winnow.contamination.gapped` (numba); imported only when there is something to search."""

from __future__ import annotations

import numpy as np
from numba import njit

from winnow.contamination._kernels import BASE, _key, _look_up, _mix, _power, _prefixes

ANSWER_RUN = 8
"""Words in a row by which a longer answer is known."""


@njit(nogil=True, cache=True)
def ngram_keys(words, bounds, n):
    """Key uint64 of the n words from each word on, within its text; 0 where fewer are left."""
    keys = np.zeros(words.shape[0], np.uint64)
    prefix = np.empty(words.shape[0] + 1, np.uint64)
    power = _power(n)
    for text in range(bounds.shape[0] - 1):
        start, size = bounds[text], bounds[text + 1] - bounds[text]
        _prefixes(words[start:], size, prefix)
        for i in range(size - n + 1):
            keys[start + i] = _key(prefix, i, n, power)
    return keys


@njit(nogil=True, cache=True)
def fill_filter(keys, bits):
    """Bitmap uint64 of ``2 ** bits`` bits with one bit a key, by the key's upper bits."""
    bitmap = np.zeros(1 << max(bits - 6, 0), np.uint64)
    for key in keys:
        bit = key >> np.uint64(64 - bits)
        bitmap[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
    return bitmap


@njit(nogil=True, cache=True)
def _collect(words, n, bits, bitmap, table, keys, groups, firsts, room):
    """Return the number of hits in one text, and ``room`` int64 ``[R, 2]`` with them, a larger one when it was full.

    A hit is the place of an indexed n-gram in the text and its first word in the items, in the order of the text.
    """
    found = 0
    shift, power, value = np.uint64(64 - bits), _power(n), np.uint64(0)
    for i in range(words.shape[0]):
        value = value * BASE + words[i]
        if i < n - 1:
            continue
        if i >= n:
            value -= words[i - n] * power
        key = _mix(value ^ (np.uint64(n) << np.uint64(56)))
        bit = key >> shift
        if not (bitmap[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1):
            continue
        group = _look_up(table, keys, key)
        if group < 0:
            continue
        for k in range(groups[group], groups[group + 1]):
            if found == room.shape[0]:
                larger = np.empty((2 * found, 2), np.int64)
                larger[:found] = room
                room = larger
            room[found, 0], room[found, 1] = i - n + 1, firsts[k]
            found += 1
    return found, room


@njit(nogil=True, cache=True)
def collisions(words, bounds, start, stop, n, bits, bitmap, table, keys):
    """Distinct (row, n-gram) int64 ``[C, 2]`` of rows ``start:stop``: the indexed n-grams that each text holds."""
    groups, firsts = np.arange(keys.shape[0] + 1), np.arange(keys.shape[0])
    room, out, filled = np.empty((256, 2), np.int64), np.empty((256, 2), np.int64), 0
    for row in range(start, stop):
        text = words[bounds[row] : bounds[row + 1]]
        found, room = _collect(text, n, bits, bitmap, table, keys, groups, firsts, room)
        if not found:
            continue
        distinct = np.unique(room[:found, 1])
        while filled + distinct.shape[0] > out.shape[0]:
            larger = np.empty((2 * out.shape[0], 2), np.int64)
            larger[:filled] = out[:filled]
            out = larger
        for key in distinct:
            out[filled, 0], out[filled, 1] = row, key
            filled += 1
    return out[:filled]


@njit(nogil=True, cache=True)
def _is_near(text, first, last, answer):
    """Say whether the answer, or ``ANSWER_RUN`` words in a row of a longer one, stands in ``text[first:last]``."""
    need = min(answer.shape[0], ANSWER_RUN)
    for i in range(first, last - need + 1):
        for skipped in range(answer.shape[0] - need + 1):
            same = 0
            while same < need and text[i + same] == answer[skipped + same]:
                same += 1
            if same == need:
                return True
    return False


@njit(nogil=True, cache=True)
def _measure(text, segment, weight, seed, hits, n, first, inside):
    """Covered weight, words inside shared runs, length of the longest run and its first word in the text.

    ``hits`` are those of one cluster, ``first`` is the segment's first word among all. ``inside`` int8, one a word of
    the segment, is all 0 and is left so: 1 marks a word of a shared run, 2 one that a hit covers.
    """
    longest, at = 0, 0
    for h in range(hits.shape[0]):
        i, p = hits[h, 0], hits[h, 1] - first
        inside[p : p + n] = 2
        if h and i > hits[0, 0] and p > 0 and seed[p - 1] and text[i - 1] == segment[p - 1]:
            continue  # inside a run that an earlier hit has measured
        back, ahead = 0, n
        while i > back and p > back and text[i - back - 1] == segment[p - back - 1]:
            back += 1
        while i + ahead < text.shape[0] and p + ahead < segment.shape[0] and text[i + ahead] == segment[p + ahead]:
            ahead += 1
        for q in range(p - back, p + ahead):
            inside[q] = max(inside[q], 1)
        if back + ahead > longest or (back + ahead == longest and i - back < at):
            longest, at = back + ahead, i - back
    covered, shared = 0.0, 0
    for p in range(segment.shape[0]):
        if inside[p] == 2:
            covered += weight[p]
        if inside[p]:
            shared += 1
        inside[p] = 0
    return covered, shared, longest, at


@njit(nogil=True, cache=True)
def search(
    words, starts, ends, bounds, start, stop, n, bits, bitmap, table, keys, groups, firsts, segments, item_words,
    segment_bounds, weight, total, seed, owner_bounds, owners, answer_bounds, answers, answer_words, misses, near,
    floor,
):  # fmt: skip
    """Matches of rows ``start:stop`` with a score of at least ``floor``.

    int64 ``[M, 10]`` (row, segment, item, hits, shared words, longest run, first character of the match and the one
    after its end, words from its first to its last, answer: -1 none, 0 not near, 1 near) and their scores float64.
    """
    out, scores, filled = np.empty((64, 10), np.int64), np.empty(64), 0
    room = np.empty((256, 2), np.int64)
    longest_segment = 0
    for s in range(segment_bounds.shape[0] - 1):
        longest_segment = max(longest_segment, segment_bounds[s + 1] - segment_bounds[s])
    inside = np.zeros(longest_segment, np.int8)
    for row in range(start, stop):
        base, count = bounds[row], bounds[row + 1] - bounds[row]
        text = words[base : base + count]
        found, room = _collect(text, n, bits, bitmap, table, keys, groups, firsts, room)
        if not found:
            continue
        of_segment = segments[room[:found, 1]]
        order = np.argsort(of_segment, kind="mergesort")
        hits, of_segment = room[:found][order], of_segment[order]
        head = 0
        while head < found:
            s = of_segment[head]
            first, size = segment_bounds[s], segment_bounds[s + 1] - segment_bounds[s]
            tail = head + 1
            while (
                tail < found
                and of_segment[tail] == s
                and hits[tail, 0] - hits[tail - 1, 0] - 1 <= misses
                and hits[tail, 0] - hits[head, 0] <= 2 * size + misses
            ):
                tail += 1
            cluster = hits[head:tail]
            head = tail
            if cluster.shape[0] * n < floor * total[s]:  # no word weighs more than 1
                continue
            segment = item_words[first : first + size]
            covered, shared, longest, at = _measure(
                text, segment, weight[first : first + size], seed[first : first + size], cluster, n, first, inside
            )
            score = covered / total[s]
            if score < floor:
                continue
            low = min(cluster[0, 0], at)
            high = max(cluster[-1, 0] + n, at + longest)
            for o in range(owner_bounds[s], owner_bounds[s + 1]):
                answer = -1
                for a in range(answer_bounds[o], answer_bounds[o + 1]):
                    answer = max(answer, 0)
                    one = answer_words[answers[a] : answers[a + 1]]
                    if _is_near(text, max(low - near, 0), min(high + near, count), one):
                        answer = 1
                        break
                if filled == out.shape[0]:
                    larger, more = np.empty((2 * filled, 10), np.int64), np.empty(2 * filled)
                    larger[:filled], more[:filled] = out, scores
                    out, scores = larger, more
                out[filled, 0], out[filled, 1], out[filled, 2] = row, s, owners[o]
                out[filled, 3], out[filled, 4], out[filled, 5] = cluster.shape[0], shared, longest
                out[filled, 6], out[filled, 7] = starts[base + low], ends[base + high - 1]
                out[filled, 8], out[filled, 9] = high - low, answer
                scores[filled] = score
                filled += 1
    return out[:filled].copy(), scores[:filled].copy()
