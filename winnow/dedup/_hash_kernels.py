"""xxHash-32 and xxHash-64 of ranges of bytes and unaligned loads, compiled.

Imported only inside functions or by other kernel modules, because numba is slow to import. Little-endian machines only,
as Arrow's own buffers are in practice.
"""

from __future__ import annotations

import numpy as np

from winnow.compiled import kernel
from winnow.dedup._intrinsics import load8, load32, load64

__all__ = ["load8", "load32", "load64", "xxh32", "xxh32_padded", "xxh64"]

U32, U64 = np.uint32, np.uint64

# Multipliers of xxHash, as its specification names them: P32_1 .. P32_5, P64_1 .. P64_5.
P32_1, P32_2, P32_3, P32_4, P32_5 = U32(2654435761), U32(2246822519), U32(3266489917), U32(668265263), U32(374761393)
P64_1, P64_2, P64_3 = U64(0x9E3779B185EBCA87), U64(0xC2B2AE3D27D4EB4F), U64(0x165667B19E3779F9)
P64_4, P64_5 = U64(0x85EBCA77C2B2AE63), U64(0x27D4EB2F165667C5)


@kernel
def _rotate32(value, bits):
    return U32(U32(value << U32(bits)) | U32(value >> U32(32 - bits)))


@kernel
def _round32(accumulator, lane):
    return U32(_rotate32(U32(accumulator + U32(lane * P32_2)), 13) * P32_1)


@kernel
def xxh32(data, start, end):
    """Return xxHash-32 (seed 0) of ``data[start:end]``, equal to ``xxhash.xxh32_intdigest``."""
    at = start
    if end - start >= 16:
        a, b, c, d = U32(P32_1 + P32_2), P32_2, U32(0), U32(U32(0) - P32_1)
        while at <= end - 16:
            a = _round32(a, load32(data, at))
            b = _round32(b, load32(data, at + 4))
            c = _round32(c, load32(data, at + 8))
            d = _round32(d, load32(data, at + 12))
            at += 16
        value = U32(_rotate32(a, 1) + _rotate32(b, 7) + _rotate32(c, 12) + _rotate32(d, 18))
    else:
        value = P32_5
    value = U32(value + U32(end - start))
    while at <= end - 4:
        value = U32(_rotate32(U32(value + U32(load32(data, at) * P32_3)), 17) * P32_4)
        at += 4
    while at < end:
        value = U32(_rotate32(U32(value + U32(U32(load8(data, at)) * P32_5)), 11) * P32_1)
        at += 1
    value = U32(U32(value ^ U32(value >> U32(15))) * P32_2)
    value = U32(U32(value ^ U32(value >> U32(13))) * P32_3)
    return U32(value ^ U32(value >> U32(16)))


@kernel
def xxh32_padded(data, start, end):
    """Return the same as :func:`xxh32`; ``data`` must be readable 16 bytes past ``end``.

    The rest below 16 bytes, whose length is random, is hashed without branches: shingles are short and many.
    """
    at = start
    if end - start >= 16:
        a, b, c, d = U32(P32_1 + P32_2), P32_2, U32(0), U32(U32(0) - P32_1)
        while at <= end - 16:
            a = _round32(a, load32(data, at))
            b = _round32(b, load32(data, at + 4))
            c = _round32(c, load32(data, at + 8))
            d = _round32(d, load32(data, at + 12))
            at += 16
        value = U32(_rotate32(a, 1) + _rotate32(b, 7) + _rotate32(c, 12) + _rotate32(d, 18))
    else:
        value = P32_5
    value = U32(value + U32(end - start))
    rest = end - at
    for i in range(3):
        word = load32(data, at + 4 * i)
        mixed = U32(_rotate32(U32(value + U32(word * P32_3)), 17) * P32_4)
        value = mixed if rest >= 4 * i + 4 else value
    last = load32(data, at + (rest & ~3))
    for i in range(3):
        mixed = U32(_rotate32(U32(value + U32(U32(U32(last >> U32(8 * i)) & U32(0xFF)) * P32_5)), 11) * P32_1)
        value = mixed if (rest & 3) > i else value
    value = U32(U32(value ^ U32(value >> U32(15))) * P32_2)
    value = U32(U32(value ^ U32(value >> U32(13))) * P32_3)
    return U32(value ^ U32(value >> U32(16)))


@kernel
def _rotate64(value, bits):
    return (value << U64(bits)) | (value >> U64(64 - bits))


@kernel
def _round64(accumulator, lane):
    return _rotate64(accumulator + lane * P64_2, 31) * P64_1


@kernel
def xxh64(data, start, end, seed):
    """Return xxHash-64 of ``data[start:end]`` under a uint64 ``seed``, equal to ``xxhash.xxh64_intdigest``."""
    at = start
    if end - start >= 32:
        a, b, c, d = seed + P64_1 + P64_2, seed + P64_2, seed, seed - P64_1
        while at <= end - 32:
            a = _round64(a, load64(data, at))
            b = _round64(b, load64(data, at + 8))
            c = _round64(c, load64(data, at + 16))
            d = _round64(d, load64(data, at + 24))
            at += 32
        value = _rotate64(a, 1) + _rotate64(b, 7) + _rotate64(c, 12) + _rotate64(d, 18)
        for lane in (a, b, c, d):
            value = (value ^ _round64(U64(0), lane)) * P64_1 + P64_4
    else:
        value = seed + P64_5
    value += U64(end - start)
    while at <= end - 8:
        value = _rotate64(value ^ _round64(U64(0), load64(data, at)), 27) * P64_1 + P64_4
        at += 8
    if at <= end - 4:
        value = _rotate64(value ^ (U64(load32(data, at)) * P64_1), 23) * P64_2 + P64_3
        at += 4
    while at < end:
        value = _rotate64(value ^ (U64(load8(data, at)) * P64_5), 11) * P64_1
        at += 1
    value = (value ^ (value >> U64(33))) * P64_2
    value = (value ^ (value >> U64(29))) * P64_3
    return value ^ (value >> U64(32))
