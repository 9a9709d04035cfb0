"""One byte of flags a code point, read from Python's own ``str`` methods and ``unicodedata``.

The kernels and plain Python then agree on what a letter, a digit or white space is, and both follow the Unicode version
of the interpreter (``unicodedata.unidata_version``).
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np

CODE_POINTS = 0x40000  # planes 4 to 16 hold no letter, digit, symbol or white space

SPACE, ALPHA, ALNUM, DIGIT, UPPER, LOWER, PUNCTUATION, SYMBOL = (1 << bit for bit in range(8))


@lru_cache(maxsize=1)
def class_table() -> np.ndarray:
    """Return uint8 ``[CODE_POINTS]``: the sum of the class constants that hold for each code point.

    ``SPACE`` is ``str.isspace``, ``ALPHA`` ``isalpha``, ``ALNUM`` ``isalnum``, ``DIGIT`` ``isdecimal``, ``UPPER``
    ``isupper``, ``LOWER`` ``islower``; ``PUNCTUATION`` and ``SYMBOL`` are the general categories P* and S*.
    """
    characters = [chr(code) for code in range(CODE_POINTS)]
    table = np.zeros(CODE_POINTS, dtype=np.uint8)
    methods = (str.isspace, str.isalpha, str.isalnum, str.isdecimal, str.isupper, str.islower)
    for flag, method in zip((SPACE, ALPHA, ALNUM, DIGIT, UPPER, LOWER), methods, strict=True):
        table |= np.fromiter(map(method, characters), dtype=np.bool_, count=CODE_POINTS) * np.uint8(flag)
    categories = np.array(list(map(unicodedata.category, characters)), dtype="U2").astype("U1")
    table |= (categories == "P") * np.uint8(PUNCTUATION) | (categories == "S") * np.uint8(SYMBOL)
    table.setflags(write=False)
    return table
