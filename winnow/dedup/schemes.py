"""Schemes of MinHash signatures: how the hashes of a text's shingles become the K values of its signature.

In every scheme two texts agree in a position with probability equal to the Jaccard similarity of their shingle sets.

- ``winnow``: fast similarity sketching (Dahlgaard, Knudsen and Thorup, "Fast Similarity Sketching", FOCS 2017). Instead
  of K hashes, a shingle draws one of K bins and a value: bin k keeps the least value of the first round in which any
  shingle falls into it, rounds go on until no bin is empty, and after K rounds the shingles visit the empty bins in
  turn. Unbiased for sets of every size; the variance is half that of MinHash for sets below K shingles and reaches
  it from some 30 K on. Draw r of a shingle of hash ``x`` is output r of SplitMix64 started at ``x ^ mix(seed)``: the
  bin is K times its high half over 2**32, the value its low half. Rounds are not stored: signatures cannot be merged.
- ``datasketch``: datasketch 2's ``affine32``. ``a * fmix32(xxh32(shingle)) + b mod 2**32`` with odd ``a``.
- ``datasketch-legacy``: datasketch before 2. ``((a * xxh32(shingle) + b) mod (2**61 - 1)) mod 2**32``; biased upwards
  on sets of many millions of shingles.
- ``datatrove``: datatrove's. ``(a * xxh64(shingle) + b) mod (2**61 - 1)``; a text of fewer units than a shingle has no
  signature.

The product and the sum of the last two wrap at 2**64 before the remainder, as they do in numpy there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xxhash

from winnow.errors import UserError

PRIME = np.uint64((1 << 61) - 1)
GAMMA = np.uint64(0x9E3779B97F4A7C15)
LOW = np.uint64(0xFFFFFFFF)

Parameters = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Scheme:
    """One scheme. ``sign`` is the definition on numpy arrays, the kernel of ``_minhash_kernels`` the same compiled."""

    label: str  # stored with signatures: name, version, hash of the shingles
    dtype: type[np.unsignedinteger]
    kernel: str
    hash_shingle: Callable[[bytes], int] | None  # None: winnow.dedup.one_text.rolled_hashes
    parameters: Callable[[int, int], Parameters]
    sign: Callable[[np.ndarray, Parameters, int], np.ndarray]
    whole_shingles: bool = False  # a text shorter than one shingle has no signature


def scheme(name: str) -> Scheme:
    """Return a scheme by name. Raises ``UserError`` for an unknown one."""
    if name not in SCHEMES:
        raise UserError(f"the signature scheme is {name!r}; expected one of {', '.join(SCHEMES)}")
    return SCHEMES[name]


def mix(value: np.ndarray) -> np.ndarray:
    """Return the finaliser of SplitMix64 (Stafford's variant 13) of uint64 values."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _seed_mask(permutations: int, seed: int) -> Parameters:
    return mix(np.array([seed], np.uint64) + GAMMA), np.zeros(0, np.uint64)


def _sign_bins(hashes: np.ndarray, parameters: Parameters, permutations: int) -> np.ndarray:
    elements = np.unique(hashes) ^ parameters[0][0]
    empty = np.uint64(0xFFFFFFFFFFFFFFFF)
    best = np.full(permutations, empty)
    for turn in range(1, permutations + 1):
        draws = mix(elements + GAMMA * np.array(turn, np.uint64))
        places = ((draws >> np.uint64(32)) * np.uint64(permutations)) >> np.uint64(32)
        np.minimum.at(best, places.astype(np.intp), np.uint64(turn << 32) | (draws & LOW))
        if not (best == empty).any():
            break
    for place in np.flatnonzero(best == empty).tolist():
        turn = permutations + place + 1
        best[place] = (mix(elements + GAMMA * np.array(turn, np.uint64)) & LOW).min()
    return (best & LOW).astype(np.uint32)


def _affine32(permutations: int, seed: int) -> Parameters:
    random = np.random.RandomState(seed)
    a = random.randint(0, 1 << 31, permutations, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return a, random.randint(0, 1 << 32, permutations, dtype=np.uint32)


def _sign_affine32(hashes: np.ndarray, parameters: Parameters, permutations: int) -> np.ndarray:
    value = hashes.astype(np.uint32)
    value = (value ^ (value >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    value = (value ^ (value >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    value = value ^ (value >> np.uint32(16))
    return np.array([(a * value + b).min() for a, b in zip(*parameters, strict=True)], np.uint32)


def _alternating61(permutations: int, seed: int) -> Parameters:
    random = np.random.RandomState(seed)
    pairs = [
        (random.randint(1, PRIME, dtype=np.uint64), random.randint(0, PRIME, dtype=np.uint64))
        for _ in range(permutations)
    ]
    a, b = np.array(pairs, np.uint64).T
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


def _successive61(permutations: int, seed: int) -> Parameters:
    random = np.random.RandomState(seed)
    a = random.randint(1, PRIME, dtype=np.uint64, size=permutations)
    return a, random.randint(0, PRIME, dtype=np.uint64, size=permutations)


def _sign_mersenne(hashes: np.ndarray, parameters: Parameters, mask: np.uint64) -> np.ndarray:
    pairs = zip(*parameters, strict=True)
    return np.array([((a * hashes + b) % PRIME & mask).min() for a, b in pairs], np.uint64)


SCHEMES = {
    "winnow": Scheme("winnow/1/poly64", np.uint32, "fast_similarity", None, _seed_mask, _sign_bins),
    "datasketch": Scheme(
        "datasketch-affine32/1/xxh32", np.uint32, "affine32", xxhash.xxh32_intdigest, _affine32, _sign_affine32
    ),
    "datasketch-legacy": Scheme(
        "datasketch-legacy/1/xxh32",
        np.uint32,
        "mersenne",
        xxhash.xxh32_intdigest,
        _alternating61,
        lambda hashes, parameters, _: _sign_mersenne(hashes, parameters, LOW).astype(np.uint32),
    ),
    "datatrove": Scheme(
        "datatrove/1/xxh64",
        np.uint64,
        "mersenne",
        xxhash.xxh64_intdigest,
        _successive61,
        lambda hashes, parameters, _: _sign_mersenne(hashes, parameters, PRIME),
        whole_shingles=True,
    ),
}
