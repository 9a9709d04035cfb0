"""Search of :mod:`winnow.contamination.gapped` (numba); imported only when there is something to search."""

from __future__ import annotations

import numpy as np

from winnow.compiled import kernel
from winnow.contamination._kernels import BASE, _key, _look_up, _mix, _power, _prefixes

ANSWER_RUN = 8
"""Words in a row by which a longer answer is known."""
SAME = 1e-9
"""Scores that are nearer differ by rounding only."""


@kernel
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


@kernel
def fill_filter(keys, bits):
    """Bitmap uint64 of ``2 ** bits`` bits with one bit a key, by the key's upper bits."""
    bitmap = np.zeros(1 << max(bits - 6, 0), np.uint64)
    for key in keys:
        bit = key >> np.uint64(64 - bits)
        bitmap[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
    return bitmap


@kernel
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


@kernel
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


@kernel
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


@kernel
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


@kernel
def _is_better(score, reached, longest, start, than):
    """Say whether a match is better than one of ``than`` (score, reached, longest run, start)."""
    if reached != (than[1] > 0):
        return reached
    if abs(score - than[0]) > SAME:
        return score > than[0]
    return longest > than[2] or (longest == than[2] and start < than[3])


@kernel
def _touched(found, groups, firsts, segments, segment_bounds, weight, total, floor, n, marked, reach):
    """Segments of which a text holds enough in all, in order: the n-grams ``found`` cover ``floor`` of their weight.

    ``marked`` int8 ``[W]`` and ``reach`` float64 ``[S]`` are all 0 and are left so.
    """
    room, count = np.empty(64, np.int64), 0
    for group in found:
        for first in firsts[groups[group] : groups[group + 1]]:
            s = segments[first]
            if reach[s] == 0:
                if count == room.shape[0]:
                    room = np.append(room, np.empty(count, np.int64))
                room[count] = s
                count += 1
            for word in range(first, first + n):
                if not marked[word]:
                    marked[word] = 1
                    reach[s] += weight[word]
    touched = room[:count]
    enough = np.zeros(count, np.bool_)
    for k in range(count):
        s = touched[k]
        enough[k] = reach[s] >= (floor - SAME) * total[s]
        reach[s] = 0.0
        marked[segment_bounds[s] : segment_bounds[s + 1]] = 0
    return np.sort(touched[enough])


@kernel
def _hits_of(first, size, group_of, known, ends, places):
    """Hits int64 ``[H, 2]`` of one segment in the order of the text; it has an n-gram in one place at most."""
    count = 0
    for word in range(first, first + size):
        k = np.searchsorted(known, group_of[word]) if group_of[word] >= 0 else known.shape[0]
        if k < known.shape[0] and known[k] == group_of[word]:
            count += ends[k + 1] - ends[k]
    hits, filled = np.empty((count, 2), np.int64), 0
    for word in range(first, first + size):
        k = np.searchsorted(known, group_of[word]) if group_of[word] >= 0 else known.shape[0]
        if k < known.shape[0] and known[k] == group_of[word]:
            for at in range(ends[k], ends[k + 1]):
                hits[filled, 0], hits[filled, 1] = places[at], word
                filled += 1
    return hits[np.argsort(hits[:, 0], kind="mergesort")]


@kernel
def search(
    words, starts, ends, bounds, start, stop, n, bits, bitmap, table, keys, groups, firsts, segments, item_words,
    segment_bounds, weight, total, seed, limits, owner_bounds, owners, answer_bounds, answers, answer_words, misses,
    near, floor,
):  # fmt: skip
    """Best match of each segment in each of rows ``start:stop``, for each of its items, with at least ``floor``.

    ``limits`` float64 ``[S, 3]``: the score that contaminates without an answer, with one that is not near, with one
    that is. int64 ``[M, 10]`` (row, segment, item, hits, shared words, longest run, first character of the match and
    the one after its end, words from its first to its last, answer: -1 none, 0 not near, 1 near) and scores float64.
    """
    out, scores, filled = np.empty((64, 10), np.int64), np.empty(64), 0
    longest_segment = most = 0
    for s in range(segment_bounds.shape[0] - 1):
        longest_segment = max(longest_segment, segment_bounds[s + 1] - segment_bounds[s])
        most = max(most, owner_bounds[s + 1] - owner_bounds[s])
    inside, times = np.zeros(longest_segment, np.int8), np.zeros(longest_segment, np.int64)
    marked, reach = np.zeros(item_words.shape[0], np.int8), np.zeros(total.shape[0])
    best, slot = np.empty((most, 4)), np.empty(most, np.int64)
    alone, own = np.arange(keys.shape[0] + 1), np.arange(keys.shape[0])
    group_of = np.full(item_words.shape[0], -1, np.int64)
    for group in range(keys.shape[0]):
        for first in firsts[groups[group] : groups[group + 1]]:
            group_of[first] = group
    room = np.empty((256, 2), np.int64)
    for row in range(start, stop):
        base, count = bounds[row], bounds[row + 1] - bounds[row]
        text = words[base : base + count]
        found, room = _collect(text, n, bits, bitmap, table, keys, alone, own, room)
        if not found:
            continue
        order = np.argsort(room[:found, 1], kind="mergesort")
        places, of_place = room[:found, 0][order], room[:found, 1][order]
        known = np.unique(of_place)
        cuts = np.append(np.searchsorted(of_place, known), found)
        for s in _touched(known, groups, firsts, segments, segment_bounds, weight, total, floor, n, marked, reach):
            first, size = segment_bounds[s], segment_bounds[s + 1] - segment_bounds[s]
            segment, own_weight = item_words[first : first + size], weight[first : first + size]
            hits = _hits_of(first, size, group_of, known, cuts, places)
            slot[:] = -1
            head = tail = measured = 0
            covered = 0.0
            whole = False
            while head < hits.shape[0] and not whole:
                if tail == head:  # a match begins
                    times[:size] = 0
                    covered = 0.0
                while (
                    tail < hits.shape[0]
                    and (tail == head or hits[tail, 0] - hits[tail - 1, 0] - 1 <= misses)
                    and hits[tail, 0] - hits[head, 0] <= 2 * size + misses
                ):
                    for p in range(hits[tail, 1] - first, hits[tail, 1] - first + n):
                        covered += own_weight[p] if times[p] == 0 else 0.0
                        times[p] += 1
                    tail += 1
                if tail > measured and covered >= (floor - SAME) * total[s]:
                    cluster = hits[head:tail]
                    weighed, shared, longest, at = _measure(
                        text, segment, own_weight, seed[first : first + size], cluster, n, first, inside
                    )
                    score = weighed / total[s]
                    low, high = min(cluster[0, 0], at), max(cluster[-1, 0] + n, at + longest)
                    whole = longest == size and score >= 1 - SAME  # what comes later cannot be better
                    for o in range(owner_bounds[s], owner_bounds[s + 1]):
                        if score < floor:
                            break
                        answer = -1
                        for a in range(answer_bounds[o], answer_bounds[o + 1]):
                            answer = max(answer, 0)
                            one = answer_words[answers[a] : answers[a + 1]]
                            if _is_near(text, max(low - near, 0), min(high + near, count), one):
                                answer = 1
                                break
                        whole = whole and answer != 0
                        k = o - owner_bounds[s]
                        reached = score >= limits[s, answer + 1] - SAME
                        if slot[k] >= 0 and not _is_better(score, reached, longest, low, best[k]):
                            continue
                        if slot[k] < 0:
                            slot[k] = filled
                            filled += 1
                            if filled > out.shape[0]:
                                larger, more = np.empty((2 * filled, 10), np.int64), np.empty(2 * filled)
                                larger[: filled - 1], more[: filled - 1] = out, scores
                                out, scores = larger, more
                        best[k, 0], best[k, 1], best[k, 2], best[k, 3] = score, reached, longest, low
                        at_row = slot[k]
                        out[at_row, 0], out[at_row, 1], out[at_row, 2] = row, s, owners[o]
                        out[at_row, 3], out[at_row, 4], out[at_row, 5] = cluster.shape[0], shared, longest
                        out[at_row, 6], out[at_row, 7] = starts[base + low], ends[base + high - 1]
                        out[at_row, 8], out[at_row, 9] = high - low, answer
                        scores[at_row] = score
                measured = max(measured, tail)
                for p in range(hits[head, 1] - first, hits[head, 1] - first + n):
                    times[p] -= 1
                    covered -= own_weight[p] if times[p] == 0 else 0.0
                head += 1
    return out[:filled].copy(), scores[:filled].copy()
