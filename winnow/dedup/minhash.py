"""MinHash signatures, bit-identical to datasketch 2's, from text in one compiled pass.

A signature keeps, for each of K permutations, the least permuted hash of a text's shingles; two texts agree in a
position with probability equal to the Jaccard similarity of their shingle sets (Broder 1997). Shingles are hashed by
xxh32 with seed 0; permutation k maps ``h`` to ``a[k] * fmix32(h) + b[k] mod 2**32`` with ``a[k]`` odd, which is
datasketch's scheme ``affine32``, parameters included.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.dedup.shingles import SHINGLE_WORDS, check_shingle_words, over_ranges, text_buffers, word_table
from winnow.errors import UserError

if TYPE_CHECKING:
    from datasketch import LeanMinHash

# Stored with every signature: signatures of different schemes must never be compared.
SCHEME = "datasketch-affine32/xxh32/words5/1"
NUM_PERM = 128
SEED = 1


def signatures(
    texts: pa.Array | pa.ChunkedArray,
    num_perm: int = NUM_PERM,
    seed: int = SEED,
    shingle_words: int = SHINGLE_WORDS,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the MinHash signatures of texts and which texts have one.

    ``texts``: string or large_string, N rows. Returns ``signatures`` uint32 ``[N, num_perm]`` and ``present`` bool
    ``[N]``; a null or a text without words is not present, its row is all ones and must not be banded. Equal to
    ``datasketch.MinHash(num_perm, seed, hashfunc=xxhash.xxh32_intdigest, scheme="affine32")`` updated with the shingles
    of ``winnow.dedup.shingles``. ``SCHEME`` names the result for the default ``shingle_words`` only.
    Raises ``UserError`` for another Arrow type, or for ``num_perm`` or ``shingle_words`` below 1.
    """
    from winnow.dedup import _kernels

    check_shingle_words(shingle_words)
    if num_perm < 1:
        raise UserError(f"num_perm is {num_perm}; a signature has at least 1 permutation (128 is usual)")
    a, b = permutations(num_perm, seed)
    table = word_table()
    out = np.full((len(texts), num_perm), 0xFFFFFFFF, np.uint32)
    present = np.zeros(len(texts), np.bool_)
    done = 0
    for data, offsets in text_buffers(texts, threads):
        rows = slice(done, done + len(offsets) - 1)

        def part(
            first: int, last: int, data: np.ndarray = data, offsets: np.ndarray = offsets, rows: slice = rows
        ) -> None:
            _kernels.signatures(data, offsets, first, last, table, shingle_words, a, b, out[rows], present[rows])

        over_ranges(part, offsets, threads)
        done = rows.stop
    return out, present


@lru_cache(maxsize=8)
def permutations(num_perm: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return datasketch's multipliers and shifts for a seed, each uint32 ``[num_perm]``."""
    from datasketch import MinHash

    a, b = MinHash(num_perm=num_perm, seed=seed, scheme="affine32").permutations
    return np.ascontiguousarray(a, np.uint32), np.ascontiguousarray(b, np.uint32)


def to_lean(signature: np.ndarray, seed: int = SEED) -> LeanMinHash:
    """Wrap one signature uint32 ``[K]`` as a datasketch ``LeanMinHash``, e.g. to query an existing LSH index."""
    from datasketch import LeanMinHash

    return LeanMinHash(seed=seed, hashvalues=np.asarray(signature, np.uint32), scheme="affine32")


def from_lean(lean: LeanMinHash) -> np.ndarray:
    """Return the signature uint32 ``[K]`` of a datasketch sketch. Raises ``UserError`` for another scheme."""
    if lean.scheme != "affine32":
        raise UserError(
            f"the sketch uses datasketch's scheme {lean.scheme!r}; expected 'affine32' (sign the texts again)"
        )
    return np.array(lean.hashvalues, np.uint32)
