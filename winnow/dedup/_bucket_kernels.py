"""Compiled loops over band keys: looking up ids, filtering keys, and the pairs of a bucket. Imported inside functions.

Keys are hashes, so their upper bits are as good as any other hash of them.
"""

from __future__ import annotations

import numpy as np

from winnow.compiled import kernel

U64 = np.uint64


@kernel
def locate(high, low, starts, shift, wanted_high, wanted_low, out):
    """Fill ``out`` int32 with the places of ids among sorted ones, -1 where absent; ``starts`` cuts by upper bits."""
    for i in range(len(wanted_high)):
        one, other = wanted_high[i], wanted_low[i]
        bucket = np.int64(one >> U64(shift))
        first, last = starts[bucket], starts[bucket + 1]
        while first < last:
            middle = (first + last) >> 1
            if high[middle] < one or (high[middle] == one and low[middle] < other):
                first = middle + 1
            else:
                last = middle
        found = first < len(high) and high[first] == one and low[first] == other
        out[i] = first if found else -1


@kernel
def fill_filter(keys, bits, bitmap, slots):
    """Enter keys uint64 into a bitmap uint64 of 2**bits bits and a table of 2**n slots with 0 for an empty one."""
    mask = U64(len(slots) - 1)
    for key in keys:
        bit = key >> U64(64 - bits)
        bitmap[bit >> U64(6)] |= U64(1) << (bit & U64(63))
        if key == U64(0):
            continue
        slot = key & mask
        while slots[slot] != U64(0) and slots[slot] != key:
            slot = (slot + U64(1)) & mask
        slots[slot] = key


@kernel
def probe(keys, rows, width, bits, bitmap, slots, zero, out):
    """Set ``out[i]`` where one of the ``width`` keys of row i (flat ``keys``) was entered."""
    mask = U64(len(slots) - 1)
    for row in range(rows):
        hit = False
        for place in range(row * width, (row + 1) * width):
            key = keys[place]
            bit = key >> U64(64 - bits)
            if (bitmap[bit >> U64(6)] >> (bit & U64(63))) & U64(1):
                if key == U64(0):
                    hit |= zero
                    continue
                slot = key & mask
                while slots[slot] != U64(0):
                    if slots[slot] == key:
                        hit = True
                        break
                    slot = (slot + U64(1)) & mask
            if hit:
                break
        out[row] = hit


@kernel
def runs(keys, places, starts, ends):
    """Find the runs of at least 2 equal sorted keys; sort the places inside each; return how many runs there are."""
    count, start = 0, 0
    for i in range(1, len(keys) + 1):
        if i < len(keys) and keys[i] == keys[start]:
            continue
        if i - start == 2:
            if places[start] > places[start + 1]:
                places[start], places[start + 1] = places[start + 1], places[start]
        elif i - start > 2:
            places[start:i] = np.sort(places[start:i])
        if i - start > 1:
            starts[count], ends[count] = start, i
            count += 1
        start = i
    return count


@kernel
def _is_among(place, former, first, last):
    found = False
    for i in range(first, last):
        found |= former[i] == place
    return found


@kernel
def bucket_pairs(keys, places, starts, ends, run, fresh, former_keys, former_places, max_bucket, centers, out):
    """Write the pairs to compare, from bucket ``run`` on, as codes until ``out`` is full; return (next run, pairs).

    ``places`` ascend inside a bucket; ``former_keys`` ascend, with the place of a center each or -1. A bucket without a
    fresh member and without a former center has nothing to compare. ``out`` holds the largest bucket's pairs at least.
    """
    filled = 0
    while run < len(starts):
        start, end = starts[run], ends[run]
        size = end - start
        first = np.searchsorted(former_keys, keys[start])
        last = first
        while last < len(former_keys) and former_keys[last] == keys[start]:
            last += 1
        reopened, news = last > first, 0
        for i in range(start, end):
            news += fresh[places[i]]
        if not reopened and news == 0:
            run += 1
            continue
        leading = size if size <= max_bucket else centers
        if filled + leading * size > len(out):
            return run, filled
        for i in range(start, start + leading):
            a = places[i]
            plain_a = reopened and not _is_among(a, former_places, first, last)
            for j in range(i + 1, end):
                b = places[j]
                if a != b and (fresh[a] or fresh[b] or (plain_a and not _is_among(b, former_places, first, last))):
                    out[filled] = (U64(a) << U64(32)) | U64(b)
                    filled += 1
        run += 1
    return run, filled


@kernel
def distinct(codes, count):
    """Move the distinct ones of the sorted ``codes[:count]`` to the front; return how many they are."""
    kept = 0
    for i in range(count):
        if i == 0 or codes[i] != codes[i - 1]:
            codes[kept] = codes[i]
            kept += 1
    return kept


@kernel
def enter(high, low, slots):
    """Enter ids into a table int32 of 2**n slots, -1 for an empty one."""
    mask = U64(len(slots) - 1)
    for i in range(len(high)):
        slot = low[i] & mask
        while slots[slot] >= 0:
            slot = (slot + U64(1)) & mask
        slots[slot] = i


@kernel
def _find(high, low, slots, one_high, one_low):
    mask = U64(len(slots) - 1)
    slot = one_low & mask
    while slots[slot] >= 0:
        found = slots[slot]
        if low[found] == one_low and high[found] == one_high:
            return found
        slot = (slot + U64(1)) & mask
    return np.int32(-1)


@kernel
def mark(high, low, slots, marked_high, marked_low, marks):
    """Set ``marks`` of those entered ids that are among others."""
    for i in range(len(marked_high)):
        found = _find(high, low, slots, marked_high[i], marked_low[i])
        if found >= 0:
            marks[found] = True


@kernel
def among(high, low, slots, asked_high, asked_low, out):
    """Set ``out`` where an id was entered."""
    for i in range(len(asked_high)):
        out[i] = _find(high, low, slots, asked_high[i], asked_low[i]) >= 0
