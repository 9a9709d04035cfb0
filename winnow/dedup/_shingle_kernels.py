"""Compiled loops from units to hashes of shingles, and sorted sets of them.

A unit's hash folds 16 bytes at a time into 64 bits by a wide multiplication; a shingle's hash is the polynomial of its
units' hashes in ``BASE`` modulo 2**64, which rolls, mixed once more. ``winnow.dedup.one_text`` has the same in Python.
"""

from __future__ import annotations

import numpy as np

from winnow.compiled import kernel
from winnow.dedup._intrinsics import fold, load64
from winnow.dedup._unit_kernels import cut, make_scratch

U64 = np.uint64

# Odd constants of random bits. The bytes 0xff, which UTF-8 never has, keep a factor of the first product from being 0.
UNIT_SEED, UNIT_FACTOR = U64(0xFFC2B2AE3D27D4EB), U64(0xFF9E3779B185EBCB)
BASE = U64(0xD1342543DE82EF95)


@kernel
def mix(value):
    """Return the finaliser of SplitMix64 (Stafford's variant 13), a bijection in which every bit reaches every bit."""
    value = (value ^ (value >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> U64(27))) * U64(0x94D049BB133111EB)
    return value ^ (value >> U64(31))


@kernel
def _low_bytes(count):
    """Return the mask of the lowest ``count`` bytes of a word, all 8 from 8 on, none below 1."""
    kept = U64(8 * min(max(count, 1), 8))
    return (U64(0xFFFFFFFFFFFFFFFF) >> (U64(64) - kept)) if count > 0 else U64(0)


@kernel
def unit_hash(data, start, end):
    """Return the 64-bit hash of ``data[start:end]``, which must be readable 16 bytes past the end."""
    size = end - start
    low = load64(data, start) & _low_bytes(size)
    high = load64(data, start + 8) & _low_bytes(size - 8)
    value = fold(low ^ UNIT_FACTOR, high ^ UNIT_SEED ^ U64(size))
    at = start + 16
    while at < end:
        low = load64(data, at) & _low_bytes(end - at)
        high = load64(data, at + 8) & _low_bytes(end - at - 8)
        value = fold(low ^ UNIT_FACTOR, high ^ value)
        at += 16
    return value


@kernel
def roll(data, starts, units, gap, size, hashes, out):
    """Write the hashes of all shingles of one text to ``out`` and return their number; ``hashes`` is overwritten."""
    if units == 0:
        return 0
    for u in range(units):
        hashes[u] = unit_hash(data, starts[u], starts[u + 1] - gap)
    width = min(units, size)
    value, power = U64(0), U64(1)
    for u in range(width):
        value = value * BASE + hashes[u]
        power *= BASE
    out[0] = value
    for u in range(width, units):
        value = value * BASE + (hashes[u] - hashes[u - width] * power)
        out[u - width + 1] = value
    count = units - width + 1
    for s in range(count):
        out[s] = mix(out[s])
    return count


@kernel
def sort_distinct(values, spare, counts):
    """Sort uniformly random uint64 ``values`` in place and drop repeats; return how many are left.

    One pass puts them into about as many buckets as values by their leading bits, then insertion finishes the work.
    ``spare`` is as long as the values, ``counts`` int32 at least four times as long.
    """
    total = len(values)
    if total > 1:
        bits = 1
        while (1 << bits) < 2 * total:
            bits += 1
        shift = U64(64 - bits)
        counts[: (1 << bits) + 1] = 0
        for i in range(total):
            counts[(values[i] >> shift) + U64(1)] += 1
        for bucket in range(1 << bits):
            counts[bucket + 1] += counts[bucket]
        for i in range(total):
            bucket = values[i] >> shift
            spare[U64(counts[bucket])] = values[i]
            counts[bucket] += 1
        for i in range(1, total):
            value, at = spare[i], i
            while at > 0 and spare[at - 1] > value:
                spare[at] = spare[at - 1]
                at -= 1
            spare[at] = value
        distinct = 0
        for i in range(total):
            values[distinct] = spare[i]
            distinct += int(i + 1 == total or spare[i] != spare[i + 1])
        return distinct
    return total


@kernel
def shingle_hashes(data, offsets, first, last, ready, rules, size, counts):
    """Return the sorted distinct hashes of each text's shingles, end to end; fill ``counts`` int64 ``[N]``."""
    scratch = make_scratch(offsets, first, last, rules[3])
    hashes = np.empty(len(scratch[2]), np.uint64)
    found = np.empty(len(scratch[2]), np.uint64)
    buckets = np.empty(4 * len(scratch[2]) + 8, np.int32)
    out = np.empty((offsets[last] - offsets[first]) // 4 + 1024, np.uint64)
    total = 0
    for i in range(first, last):
        text, starts, units, gap = cut(data, offsets[i], offsets[i + 1], ready[i], rules, scratch)
        count = roll(text, starts, units, gap, size, hashes, found)
        count = sort_distinct(found[:count], hashes, buckets)
        if total + count > len(out):
            grown = np.empty(max(2 * len(out), total + count), np.uint64)
            _copy(out, 0, total, grown, 0)
            out = grown
        _copy(found, 0, count, out, total)
        counts[i] = count
        total += count
    return out[:total]


@kernel
def _copy(source, first, last, target, at):
    # Assigning one slice to another compiles an error message about shapes, which takes numba seconds.
    for i in range(first, last):
        target[at + i - first] = source[i]
