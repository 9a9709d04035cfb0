"""Compiled loops from texts to signatures, one kernel a scheme (``winnow.dedup.schemes`` defines them).

Every kernel fills rows ``first..last`` of ``out`` ``[N, K]``, all ones on entry, and of ``present`` bool ``[N]``. Texts
with fewer than ``least`` units have no signature.
"""

from __future__ import annotations

import numpy as np

from winnow.compiled import kernel
from winnow.dedup._hash_kernels import U32, U64, xxh32_padded, xxh64
from winnow.dedup._shingle_kernels import mix, roll
from winnow.dedup._unit_kernels import cut, make_scratch

BLOCK = 1024  # shingle hashes held in the first cache before the permutations run over them
LANES = 64  # a block is padded to a multiple of this, so that the vector loop has no scalar rest
GAMMA = U64(0x9E3779B97F4A7C15)
PRIME = U64((1 << 61) - 1)
LOW = U64(0xFFFFFFFF)
NOTHING = U64(0xFFFFFFFFFFFFFFFF)


@kernel
def affine32(data, offsets, first, last, ready, rules, size, least, a, b, out, present):
    """Sign by ``a[k] * fmix32(xxh32(shingle)) + b[k] mod 2**32``, datasketch's scheme of that name."""
    scratch = make_scratch(offsets, first, last, rules[3])
    block = np.empty(BLOCK, np.uint32)
    for i in range(first, last):
        text, starts, units, gap = cut(data, offsets[i], offsets[i + 1], ready[i], rules, scratch)
        present[i] = units >= least
        if units < least:
            continue
        width, filled = min(units, size), 0
        for s in range(units - width + 1):
            block[filled] = xxh32_padded(text, starts[s], starts[s + width] - gap)
            filled += 1
            if filled == BLOCK:
                _permute32(block, a, b, out[i])
                filled = 0
        if filled:
            padded = (filled + LANES - 1) // LANES * LANES
            block[filled:padded] = block[0]  # a hash seen twice changes no minimum
            _permute32(block[:padded], a, b, out[i])


@kernel
def _permute32(hashes, a, b, signature):
    """Lower ``signature[k]`` to the least ``a[k] * fmix32(h) + b[k] mod 2**32`` over the hashes, which are overwritten.

    ``fmix32`` is the finaliser of MurmurHash3, a bijection.
    """
    for i in range(len(hashes)):
        value = hashes[i]
        value = U32(U32(value ^ U32(value >> U32(16))) * U32(0x85EBCA6B))
        value = U32(U32(value ^ U32(value >> U32(13))) * U32(0xC2B2AE35))
        hashes[i] = U32(value ^ U32(value >> U32(16)))
    for k in range(len(a)):
        factor, shift, smallest = a[k], b[k], signature[k]
        for i in range(len(hashes)):
            smallest = min(smallest, U32(factor * hashes[i] + shift))
        signature[k] = smallest


@kernel
def mersenne(data, offsets, first, last, ready, rules, size, least, a, b, out, present):
    """Sign by ``(a[k] * h + b[k] mod 2**64) mod (2**61 - 1)``: wide rows keep it whole, 32-bit rows its low half.

    ``h`` is xxh64 of the shingle for wide rows (datatrove), else xxh32 (datasketch before its version 2).
    """
    scratch = make_scratch(offsets, first, last, rules[3])
    block = np.empty(BLOCK, np.uint64)
    wide = out.itemsize == 8
    mask = PRIME if wide else LOW
    signature = np.empty(len(a), np.uint64)
    for i in range(first, last):
        text, starts, units, gap = cut(data, offsets[i], offsets[i + 1], ready[i], rules, scratch)
        present[i] = units >= least
        if units < least:
            continue
        signature[:] = PRIME
        width, filled = min(units, size), 0
        for s in range(units - width + 1):
            start, end = starts[s], starts[s + width] - gap
            block[filled] = xxh64(text, start, end, U64(0)) if wide else U64(xxh32_padded(text, start, end))
            filled += 1
            if filled == BLOCK:
                _permute61(block, a, b, mask, signature)
                filled = 0
        if filled:
            padded = (filled + LANES - 1) // LANES * LANES
            block[filled:padded] = block[0]
            _permute61(block[:padded], a, b, mask, signature)
        for k in range(len(a)):
            out[i, k] = signature[k]


@kernel
def _permute61(hashes, a, b, mask, signature):
    for k in range(len(a)):
        factor, shift, smallest = a[k], b[k], signature[k]
        for i in range(len(hashes)):
            value = factor * hashes[i] + shift
            value = (value & PRIME) + (value >> U64(61))
            value = min(value, value - PRIME)  # below the prime, the difference wraps and is larger
            smallest = min(smallest, value & mask)
        signature[k] = smallest


@kernel
def fast_similarity(data, offsets, first, last, ready, rules, size, least, a, b, out, present):
    """Sign by fast similarity sketching; ``a[0]`` is the seed's mask, ``b`` is not used."""
    scratch = make_scratch(offsets, first, last, rules[3])
    hashes = np.empty(len(scratch[2]), np.uint64)
    found = np.empty(len(scratch[2]), np.uint64)
    bins = out.shape[1]
    best = np.empty(bins, np.uint64)
    for i in range(first, last):
        text, starts, units, gap = cut(data, offsets[i], offsets[i + 1], ready[i], rules, scratch)
        present[i] = units >= least
        if units < least:
            continue
        count = roll(text, starts, units, gap, size, hashes, found)
        fill_bins(found[:count], a[0], best, hashes)
        for k in range(bins):
            out[i, k] = U32(best[k] & LOW)


@kernel
def fill_bins(elements, seed, best, draws):
    """Fill ``best`` with ``round << 32 | value`` of the first and least draw that falls into each bin."""
    bins = U64(len(best))
    best[:] = NOTHING
    for i in range(len(elements)):
        elements[i] ^= seed
    empty = len(best)
    turn = U64(0)
    while empty and turn < bins:
        turn += U64(1)
        for i in range(len(elements)):
            draws[i] = mix(elements[i] + turn * GAMMA)
        base = turn << U64(32)
        for i in range(len(elements)):
            place = ((draws[i] >> U64(32)) * bins) >> U64(32)
            empty -= int(best[place] == NOTHING)
            best[place] = min(best[place], base | (draws[i] & LOW))
    for k in range(len(best)):
        if best[k] == NOTHING:
            turn = bins + U64(k + 1)
            for i in range(len(elements)):
                value = mix(elements[i] + turn * GAMMA) & LOW
                best[k] = min(best[k], (turn << U64(32)) | value)
