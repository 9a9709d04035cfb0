"""Shingles, hashes and signature of one text in plain Python and numpy, equal to the compiled loops bit for bit.

For a single question compiling is slower than answering; this module starts at once. It is the definition besides:
what the kernels have to give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from winnow.dedup.normalizations import units
from winnow.dedup.schemes import mix, scheme

if TYPE_CHECKING:
    from winnow.dedup.minhash import Sketching
    from winnow.dedup.shingles import Shingling

UNIT_SEED, UNIT_FACTOR = 0xFFC2B2AE3D27D4EB, 0xFF9E3779B185EBCB
BASE = 0xD1342543DE82EF95
_MASK = (1 << 64) - 1


def shingle_list(text: str, shingling: Shingling) -> list[tuple[str, ...]]:
    """Return the shingles of a text in their order, repeats included; a text shorter than a shingle is one shingle."""
    found = units(text, shingling.normalization, shingling.unit)
    width = min(shingling.size, len(found))
    return [tuple(found[s : s + width]) for s in range(len(found) - width + 1)] if found else []


def joined_shingles(text: str, shingling: Shingling) -> list[bytes]:
    """Return the shingles as UTF-8, units joined by one space (characters by nothing), as the peers hash them."""
    between = "" if shingling.unit == "characters" else " "
    return [between.join(shingle).encode() for shingle in shingle_list(text, shingling)]


def hash_text(text: str, shingling: Shingling) -> np.ndarray:
    """Return the sorted distinct hashes uint64 of a text's shingles, as ``winnow.dedup.shingles.shingle_hashes``."""
    return np.unique(rolled_hashes(units(text, shingling.normalization, shingling.unit), shingling.size))


def sign_text(text: str, sketching: Sketching) -> np.ndarray | None:
    """Return the signature ``[K]`` of one text, as ``winnow.dedup.minhash.signatures``; None if it has none."""
    rule, shingling = scheme(sketching.scheme), sketching.shingling
    found = units(text, shingling.normalization, shingling.unit)
    if not found or (rule.whole_shingles and len(found) < shingling.size):
        return None
    if rule.hash_shingle is None:
        hashes = rolled_hashes(found, shingling.size)
    else:
        hashes = np.array([rule.hash_shingle(shingle) for shingle in joined_shingles(text, shingling)], np.uint64)
    return rule.sign(hashes, rule.parameters(sketching.permutations, sketching.seed), sketching.permutations)


def rolled_hashes(found: list[str], size: int) -> np.ndarray:
    """Return the hash uint64 of every shingle of a text's units, in order."""
    if not found:
        return np.zeros(0, np.uint64)
    hashes = {unit: unit_hash(unit.encode()) for unit in set(found)}
    width = min(size, len(found))
    out, value, power = [], 0, pow(BASE, width, 1 << 64)
    for place, unit in enumerate(found):
        value = value * BASE + hashes[unit]
        if place >= width:
            value -= hashes[found[place - width]] * power
        value &= _MASK
        if place >= width - 1:
            out.append(value)
    return mix(np.array(out, np.uint64))


def unit_hash(unit: bytes) -> int:
    """Return the 64-bit hash of one unit's bytes: 16 at a time, by the two halves of a 128-bit product."""
    value = UNIT_SEED ^ len(unit)
    for at in range(0, len(unit), 16):
        low, high = (int.from_bytes(unit[start : start + 8], "little") for start in (at, at + 8))
        product = (low ^ UNIT_FACTOR) * (high ^ value)
        value = (product ^ (product >> 64)) & _MASK
    return value
