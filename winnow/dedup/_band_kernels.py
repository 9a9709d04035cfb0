"""Compiled loops of banding: the key of every band of every signature, and whether two signatures agree enough.

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


@kernel
def alike(rows, codes, least, out):
    """Set ``out[i]`` where the rows of a pair, uint8 ``[N, K]``, have at least ``least`` equal bytes.

    The upper half of a code is one row, the lower half the other. A pair of which the first half tells that it cannot
    reach ``least`` costs no look at the second: rows lie anywhere in memory.
    """
    width = rows.shape[1]
    half = width // 2
    for i in range(len(codes)):
        one, other = rows[codes[i] >> U64(32)], rows[codes[i] & U64(0xFFFFFFFF)]
        same = 0
        for place in range(half):
            same += int(one[place] == other[place])
        if same + width - half < least:
            out[i] = False
            continue
        for place in range(half, width):
            same += int(one[place] == other[place])
        out[i] = same >= least
