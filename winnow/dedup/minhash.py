"""Signatures of texts under one of the schemes of ``winnow.dedup.schemes``, in one compiled pass.

A signature has K values; two texts agree in a position with probability equal to the Jaccard similarity of their
shingle sets (Broder 1997).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.dedup.normalizations import rules
from winnow.dedup.schemes import scheme
from winnow.dedup.shingles import DEFAULT_SHINGLING, Shingling, normalising_buffers, over_ranges
from winnow.errors import UserError

if TYPE_CHECKING:
    from datasketch import LeanMinHash


@dataclass(frozen=True)
class Sketching:
    """How a text becomes a signature: its shingles, the scheme of the values, their number and the seed.

    Raises ``UserError`` for an unknown scheme, fewer than 1 permutation or a seed outside 0 .. 2**32 - 1.
    """

    shingling: Shingling = DEFAULT_SHINGLING
    scheme: str = "winnow"
    permutations: int = 128
    seed: int = 1

    def __post_init__(self) -> None:
        scheme(self.scheme)
        if self.permutations < 1 or not 0 <= self.seed < 1 << 32:
            raise UserError(
                f"permutations is {self.permutations} and the seed {self.seed}; a signature has at least 1 permutation "
                "(128 is usual), and a seed is below 2**32"
            )

    @property
    def name(self) -> str:
        """Everything that two comparable signatures share; stored with them, since the values do not tell."""
        return f"{scheme(self.scheme).label}/{self.shingling.name}/{self.permutations}x{self.seed}"

    @property
    def dtype(self) -> np.dtype:
        """The type of a signature's values: uint32, or uint64 for ``datatrove``."""
        return np.dtype(scheme(self.scheme).dtype)


DEFAULT_SKETCHING = Sketching()


def signatures(
    texts: pa.Array | pa.ChunkedArray, sketching: Sketching = DEFAULT_SKETCHING, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the signatures of texts and which texts have one.

    ``texts``: string or large_string, N rows. Returns ``signatures`` ``[N, K]`` of ``sketching.dtype`` and ``present``
    bool ``[N]``; a null, a text without units, or under ``datatrove`` one shorter than a shingle is not present, its
    row is all ones and must not be banded. ``datasketch`` equals ``datasketch.MinHash(K, seed,
    hashfunc=xxhash.xxh32_intdigest, scheme="affine32")`` updated with the shingles of ``one_text.joined_shingles``,
    ``datasketch-legacy`` the same with ``scheme="legacy"``, ``datatrove`` the signature stage of datatrove with xxhash
    of 64 bits over the same words.
    Raises ``UserError`` for another Arrow type.
    """
    from winnow.dedup import _minhash_kernels

    rule, size = scheme(sketching.scheme), sketching.shingling.size
    compiled = rules(sketching.shingling.normalization, sketching.shingling.unit).compiled
    kernel = getattr(_minhash_kernels, rule.kernel)
    a, b = rule.parameters(sketching.permutations, sketching.seed)
    least = size if rule.whole_shingles else 1
    out = np.full((len(texts), sketching.permutations), np.iinfo(rule.dtype).max, rule.dtype)
    present = np.zeros(len(texts), np.bool_)
    done = 0
    for data, offsets, ready in normalising_buffers(texts, sketching.shingling, threads):
        rows = slice(done, done + len(offsets) - 1)

        def part(
            first: int,
            last: int,
            data: np.ndarray = data,
            offsets: np.ndarray = offsets,
            ready: np.ndarray = ready,
            rows: slice = rows,
        ) -> None:
            kernel(data, offsets, first, last, ready, compiled, size, least, a, b, out[rows], present[rows])

        over_ranges(part, offsets, threads)
        done = rows.stop
    return out, present


def to_lean(signature: np.ndarray, seed: int = 1) -> LeanMinHash:
    """Wrap one signature uint32 ``[K]`` of scheme ``datasketch`` as a ``LeanMinHash``, e.g. to query an LSH index."""
    from datasketch import LeanMinHash

    return LeanMinHash(seed=seed, hashvalues=np.asarray(signature, np.uint32), scheme="affine32")


def from_lean(lean: LeanMinHash) -> np.ndarray:
    """Return the signature uint32 ``[K]`` of a datasketch sketch. Raises ``UserError`` for another scheme."""
    if lean.scheme != "affine32":
        raise UserError(
            f"the sketch uses datasketch's scheme {lean.scheme!r}; expected 'affine32' (sign the texts again)"
        )
    return np.array(lean.hashvalues, np.uint32)
