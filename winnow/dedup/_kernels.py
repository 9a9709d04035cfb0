"""Compiled loops of duplicate detection: words, hashes, signatures, bands, Jaccard, union-find.

Imported only inside functions, because numba is slow to import. Every kernel is serial and releases the GIL; callers
spread ranges of documents over threads (``shingles.over_ranges``), so no numba threading layer is involved and several
callers may run at once. Little-endian machines only, as Arrow's own buffers are in practice.

Text kernels see one buffer ``data`` of UTF-8 bytes and ``offsets`` int64 ``[N + 1]`` into it; ``table`` int32
``[0x110000]`` maps a code point to its lower-cased word character, or to 0 where that is no word character.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

U32, U64 = np.uint32, np.uint64

# Multipliers of xxHash, as its specification names them: P32_1 .. P32_5, P64_1 .. P64_5.
P32_1, P32_2, P32_3, P32_4, P32_5 = U32(2654435761), U32(2246822519), U32(3266489917), U32(668265263), U32(374761393)
P64_1, P64_2, P64_3 = U64(0x9E3779B185EBCA87), U64(0xC2B2AE3D27D4EB4F), U64(0x165667B19E3779F9)
P64_4, P64_5 = U64(0x85EBCA77C2B2AE63), U64(0x27D4EB2F165667C5)

BLOCK = 1024  # shingle hashes held (4 KiB, in the first cache) before the permutations run over them
LANES = 64  # a block is padded to a multiple of this, so that the vector loop has no scalar rest
SPACE = 32


def _load(width: int, result: types.Integer) -> Any:
    """Make an unaligned little-endian load of ``width`` bits from a byte array."""

    @intrinsic
    def load(_typing, data, position):
        def generate(context, builder, signature, args):
            array = context.make_array(signature.args[0])(context, builder, args[0])
            pointer = builder.gep(array.data, [args[1]], inbounds=True)
            return builder.load(builder.bitcast(pointer, ir.IntType(width).as_pointer()), align=1)

        return result(data, position), generate

    return load


_load32 = _load(32, types.uint32)
_load64 = _load(64, types.uint64)
_load8 = _load(8, types.uint8)


@njit(nogil=True, inline="always")
def _rotate32(value, bits):
    return U32(U32(value << U32(bits)) | U32(value >> U32(32 - bits)))


@njit(nogil=True, inline="always")
def _round32(accumulator, lane):
    return U32(_rotate32(U32(accumulator + U32(lane * P32_2)), 13) * P32_1)


@njit(nogil=True, cache=True)
def xxh32(data, start, end):
    """Return xxHash-32 (seed 0) of ``data[start:end]``, equal to ``xxhash.xxh32_intdigest``."""
    at = start
    if end - start >= 16:
        a, b, c, d = U32(P32_1 + P32_2), P32_2, U32(0), U32(U32(0) - P32_1)
        while at <= end - 16:
            a = _round32(a, _load32(data, at))
            b = _round32(b, _load32(data, at + 4))
            c = _round32(c, _load32(data, at + 8))
            d = _round32(d, _load32(data, at + 12))
            at += 16
        value = U32(_rotate32(a, 1) + _rotate32(b, 7) + _rotate32(c, 12) + _rotate32(d, 18))
    else:
        value = P32_5
    value = U32(value + U32(end - start))
    while at <= end - 4:
        value = U32(_rotate32(U32(value + U32(_load32(data, at) * P32_3)), 17) * P32_4)
        at += 4
    while at < end:
        value = U32(_rotate32(U32(value + U32(U32(_load8(data, at)) * P32_5)), 11) * P32_1)
        at += 1
    value = U32(U32(value ^ U32(value >> U32(15))) * P32_2)
    value = U32(U32(value ^ U32(value >> U32(13))) * P32_3)
    return U32(value ^ U32(value >> U32(16)))


@njit(nogil=True, inline="always")
def _rotate64(value, bits):
    return (value << U64(bits)) | (value >> U64(64 - bits))


@njit(nogil=True, inline="always")
def _round64(accumulator, lane):
    return _rotate64(accumulator + lane * P64_2, 31) * P64_1


@njit(nogil=True, cache=True)
def xxh64(data, start, end, seed):
    """Return xxHash-64 of ``data[start:end]`` under a uint64 ``seed``, equal to ``xxhash.xxh64_intdigest``."""
    at = start
    if end - start >= 32:
        a, b, c, d = seed + P64_1 + P64_2, seed + P64_2, seed, seed - P64_1
        while at <= end - 32:
            a = _round64(a, _load64(data, at))
            b = _round64(b, _load64(data, at + 8))
            c = _round64(c, _load64(data, at + 16))
            d = _round64(d, _load64(data, at + 24))
            at += 32
        value = _rotate64(a, 1) + _rotate64(b, 7) + _rotate64(c, 12) + _rotate64(d, 18)
        for lane in (a, b, c, d):
            value = (value ^ _round64(U64(0), lane)) * P64_1 + P64_4
    else:
        value = seed + P64_5
    value += U64(end - start)
    while at <= end - 8:
        value = _rotate64(value ^ _round64(U64(0), _load64(data, at)), 27) * P64_1 + P64_4
        at += 8
    if at <= end - 4:
        value = _rotate64(value ^ (U64(_load32(data, at)) * P64_1), 23) * P64_2 + P64_3
        at += 4
    while at < end:
        value = _rotate64(value ^ (U64(_load8(data, at)) * P64_5), 11) * P64_1
        at += 1
    value = (value ^ (value >> U64(33))) * P64_2
    value = (value ^ (value >> U64(29))) * P64_3
    return value ^ (value >> U64(32))


@njit(nogil=True, cache=True)
def needs_python_lower(data, offsets, first, last, out):
    """Set ``out[i]`` where text i holds 'İ' or 'Σ', whose lower case is two characters or depends on the context."""
    for i in range(first, last):
        text = data[offsets[i] : offsets[i + 1]]
        hits = 0
        for at in range(len(text) - 1):
            hits |= ((text[at] == 0xC4) & (text[at + 1] == 0xB0)) | ((text[at] == 0xCE) & (text[at + 1] == 0xA3))
        out[i] = hits != 0


@njit(nogil=True, cache=True)
def normalise(data, start, end, table, out, starts):
    """Write the lower-cased words of ``data[start:end]`` to ``out``, one space between; return (words, bytes).

    ``starts[w]`` becomes where word w begins, ``starts[words]`` one past the space that would follow the last word,
    so words i..j are ``out[starts[i] : starts[j + 1] - 1]``.
    """
    at, size, words, inside = start, 0, 0, 0
    while at < end:
        byte = np.int32(_load8(data, at))
        if byte < 0x80:
            at += 1
            lower = table[U32(byte)]
            # Without branches: word ends come every few bytes and would be mispredicted each time.
            word = int(lower != 0)
            starts[U64(words)] = size
            words += word & (1 - inside)
            out[U64(size)] = lower if word else SPACE
            size += word | inside
            inside = word
            continue
        if byte < 0xE0:
            width, code = 2, byte & 0x1F
        elif byte < 0xF0:
            width, code = 3, byte & 0x0F
        else:
            width, code = 4, byte & 0x07
        if at + width > end:  # cut inside a character: no valid text, but never read past it
            break
        for i in range(1, width):
            code = (code << 6) | (np.int32(_load8(data, at + i)) & 0x3F)
        at += width
        lower = table[U32(code)] if code < 0x110000 else 0
        if lower == 0:
            out[size] = SPACE
            size += inside
            inside = 0
            continue
        if not inside:
            starts[words] = size
            words += 1
            inside = 1
        if lower < 0x80:
            out[size] = lower
            size += 1
        elif lower < 0x800:
            out[size] = 0xC0 | (lower >> 6)
            out[size + 1] = 0x80 | (lower & 0x3F)
            size += 2
        elif lower < 0x10000:
            out[size] = 0xE0 | (lower >> 12)
            out[size + 1] = 0x80 | ((lower >> 6) & 0x3F)
            out[size + 2] = 0x80 | (lower & 0x3F)
            size += 3
        else:
            out[size] = 0xF0 | (lower >> 18)
            out[size + 1] = 0x80 | ((lower >> 12) & 0x3F)
            out[size + 2] = 0x80 | ((lower >> 6) & 0x3F)
            out[size + 3] = 0x80 | (lower & 0x3F)
            size += 4
    if words and not inside:
        size -= 1  # the space after the last word
    starts[words] = size + 1
    return words, size


@njit(nogil=True, cache=True)
def scratch(offsets, first, last):
    """Return buffers for :func:`normalise` that fit the longest text of a range."""
    longest = 0
    for i in range(first, last):
        longest = max(longest, offsets[i + 1] - offsets[i])
    # Lower-casing turns at most 2 bytes into 3; a word takes at least 2 bytes with what separates it.
    return np.empty(longest + longest // 2 + 8, np.uint8), np.empty(longest // 2 + 4, np.int64)


@njit(nogil=True, cache=True)
def _permute(hashes, a, b, signature):
    """Lower ``signature[k]`` to the least ``a[k] * fmix(h) + b[k] mod 2**32`` over the hashes, which are overwritten.

    ``fmix`` is the finaliser of MurmurHash3 (a bijection), which the affine32 scheme applies before its permutations.
    """
    for i in range(len(hashes)):
        value = hashes[i]
        value = U32(U32(value ^ U32(value >> U32(16))) * U32(0x85EBCA6B))
        value = U32(U32(value ^ U32(value >> U32(13))) * U32(0xC2B2AE35))
        hashes[i] = U32(value ^ U32(value >> U32(16)))
    for k in range(len(a)):
        factor, shift, least = a[k], b[k], signature[k]
        for i in range(len(hashes)):
            least = min(least, U32(factor * hashes[i] + shift))
        signature[k] = least


@njit(nogil=True, cache=True)
def signatures(data, offsets, first, last, table, shingle_words, a, b, out, present):
    """Fill rows ``first..last`` of ``out`` uint32 ``[N, K]`` (all ones on entry) and of ``present`` bool ``[N]``."""
    text, starts = scratch(offsets, first, last)
    block = np.empty(BLOCK, np.uint32)
    for i in range(first, last):
        words, _ = normalise(data, offsets[i], offsets[i + 1], table, text, starts)
        present[i] = words > 0
        if words == 0:
            continue
        shingles = max(1, words - shingle_words + 1)
        width = min(words, shingle_words)
        filled = 0
        for s in range(shingles):
            block[filled] = xxh32(text, starts[s], starts[s + width] - 1)
            filled += 1
            if filled == BLOCK:
                _permute(block, a, b, out[i])
                filled = 0
        if filled:
            padded = (filled + LANES - 1) // LANES * LANES
            block[filled:padded] = block[0]  # a hash seen twice changes no minimum
            _permute(block[:padded], a, b, out[i])


@njit(nogil=True, cache=True)
def shingle_hashes(data, offsets, first, last, table, shingle_words, counts):
    """Return the sorted distinct xxh64 hashes of each text's shingles, end to end; fill ``counts`` int64 ``[N]``."""
    text, starts = scratch(offsets, first, last)
    out = np.empty((offsets[last] - offsets[first]) // 2 + (last - first) + 1, np.uint64)
    total = 0
    for i in range(first, last):
        words, _ = normalise(data, offsets[i], offsets[i + 1], table, text, starts)
        if words == 0:
            counts[i] = 0
            continue
        width = min(words, shingle_words)
        found = out[total : total + max(1, words - shingle_words + 1)]
        for s in range(len(found)):
            found[s] = xxh64(text, starts[s], starts[s + width] - 1, U64(0))
        found.sort()
        distinct = 1
        for s in range(1, len(found)):
            if found[s] != found[distinct - 1]:
                found[distinct] = found[s]
                distinct += 1
        counts[i] = distinct
        total += distinct
    return out[:total].copy()


@njit(nogil=True, cache=True)
def band_keys(rows, width, first, last, out):
    """Fill ``out`` uint64 ``[N, B]`` with the xxh64 of each band's bytes, seeded with the band's number.

    ``rows`` are the signatures' bytes, uint8 ``[N, 4 * K]``; a band is ``width`` bytes, the rest of a row is unused.
    """
    for i in range(first, last):
        for band in range(out.shape[1]):
            out[i, band] = xxh64(rows[i], band * width, (band + 1) * width, U64(band))


@njit(nogil=True, cache=True)
def jaccard(left, right, offsets, hashes, first, last, out):
    """Fill ``out`` float64 ``[P]`` by merging the two sorted hash lists of every pair; two empty lists give 0."""
    for pair in range(first, last):
        a, end_a = offsets[left[pair]], offsets[left[pair] + 1]
        b, end_b = offsets[right[pair]], offsets[right[pair] + 1]
        total, shared = end_a - a + end_b - b, 0
        while a < end_a and b < end_b:
            # Without branches: which list advances is a coin toss.
            shared += int(hashes[a] == hashes[b])
            step_a, step_b = int(hashes[a] <= hashes[b]), int(hashes[b] <= hashes[a])
            a += step_a
            b += step_b
        out[pair] = shared / (total - shared) if total else 0.0
