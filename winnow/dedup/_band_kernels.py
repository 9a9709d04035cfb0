"""Compiled loop of banding: the key of every band of every signature.

Imported only inside functions, because numba is slow to import. Serial, releases the GIL; callers spread ranges of
documents over threads (``shingles.over_ranges``).
"""

from __future__ import annotations

import numpy as np

from winnow.compiled import kernel
from winnow.dedup._hash_kernels import xxh64

U64 = np.uint64


@kernel
def band_keys(rows, width, first, last, out):
    """Fill ``out`` uint64 ``[N, B]`` with the xxh64 of each band's bytes, seeded with the band's number.

    ``rows`` are the signatures' bytes, uint8 ``[N, 4 * K]`` or ``[N, 8 * K]``; a band is ``width`` bytes, the rest of a
    row is unused.
    """
    for i in range(first, last):
        for band in range(out.shape[1]):
            out[i, band] = xxh64(rows[i], band * width, (band + 1) * width, U64(band))
