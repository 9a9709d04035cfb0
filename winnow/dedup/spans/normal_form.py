"""What becomes of a character before lines are compared: CCNet's rule (Wenzek et al. 2020, and its code)."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np

PUNCTUATION = "，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►"
"""The marks that CCNet drops; those of ASCII stay."""
CONTROL_SPACE = -1
"""In the table: white space that is dropped wherever it stands."""


@lru_cache(maxsize=1)
def normal_form() -> np.ndarray:
    """Return int32 ``[0x110000]``: a code point's normal form, 0 where it is dropped, below 0 for white space.

    A line is stripped, lower-cased, its decimal digits become 0, :data:`PUNCTUATION` and the control characters U+0000
    to U+001F and U+007F to U+009F are dropped; accents stay. White space is minus its code point, or
    ``CONTROL_SPACE``. One difference from ``str.lower``: 'İ' becomes i, 'Σ' and 'ς' become σ wherever they stand, as
    their lower case is two characters or depends on the context.
    """
    every = "".join(map(chr, range(0x110000))).replace("İ", "i").replace("Σ", "σ").replace("ς", "σ")
    table = np.frombuffer(every.lower().encode("utf-32-le", "surrogatepass"), np.int32).copy()
    dropped = np.array([*map(ord, PUNCTUATION), *range(0x20), *range(0x7F, 0xA0)])
    table[dropped] = 0
    # Digits go first in CCNet, so that the full-width 1 among its marks is a digit.
    table[[code for code in range(0x110000) if unicodedata.category(chr(code)) == "Nd"]] = ord("0")
    spaces = np.array([code for code in range(0x3001) if chr(code).isspace()])
    table[spaces] = np.where(np.isin(spaces, dropped), CONTROL_SPACE, -spaces)
    return table
