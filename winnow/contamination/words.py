"""Words of texts as 64-bit hashes with their places: what every comparison with an evaluation set begins with.

Three ways to cut, named after the methods that use them: ``longest_run``, words are ``re.findall(r"\\w+",
text.lower())``; ``gapped``, the same, and a character of a script that is written without spaces is a word of its own;
``gpt3``, words stand between white space and lose their punctuation (Brown et al. 2020, appendix C).
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.errors import UserError

SPACELESS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF),  # Han
)  # fmt: skip
"""Code points, first and last, of scripts that put no space between words."""
BREAK, DROPPED, ALONE = -1, -2, 1 << 24
POINTS = 0x40000
PIECE_BYTES = 4 << 20


@dataclass(frozen=True, eq=False)
class Words:
    """The words of N texts, one after another.

    ``hashes`` uint64 ``[W]``; ``starts`` and ``ends`` int32 ``[W]`` are a word's characters in its text; ``bounds``
    int64 ``[N + 1]`` cuts the words into texts.
    """

    hashes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    bounds: np.ndarray

    def __len__(self) -> int:
        return len(self.bounds) - 1


def split_words(texts: pa.Array | pa.ChunkedArray, cut: str = "gapped", threads: int = 2) -> Words:
    """Return the words of texts, cut as ``cut`` says. Raises ``UserError`` for a null or a column that is no text."""
    from winnow.contamination import _kernels as kernels

    offsets, data = text_buffers(texts)
    lower = lower_table(cut)

    def work(rows: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        start, stop = rows
        return kernels.split_spans(data, offsets, start, stop, lower)

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(work, pieces(offsets, PIECE_BYTES)))
    counts = [len(hashes) for hashes, *_ in found]
    bases = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Words(
        np.concatenate([hashes for hashes, *_ in found] or [np.zeros(0, np.uint64)]),
        np.concatenate([starts for _, starts, *_ in found] or [np.zeros(0, np.int32)]),
        np.concatenate([ends for _, _, ends, _ in found] or [np.zeros(0, np.int32)]),
        np.concatenate([[0], *(base + bounds[1:] for base, (*_, bounds) in zip(bases, found, strict=False))]).astype(
            np.int64
        ),
    )


@cache
def lower_table(cut: str) -> np.ndarray:
    """Lower case of each code point as int32; ``BREAK`` where that ends a word, ``DROPPED`` where it is left out.

    ``ALONE`` is added to a character that is a word of its own. Planes 4 to 16 hold no word character. The lower case
    of U+0130 is "i" and a combining dot; the kernel ends the word there.
    """
    lowered = [chr(code).lower()[0] for code in range(POINTS)]
    points = [ord(small) if small.isalnum() or small == "_" else BREAK for small in lowered]
    if cut == "gpt3":
        points = [DROPPED if point == BREAK and not chr(code).isspace() else point for code, point in enumerate(points)]
    table = np.array(points, dtype=np.int32)
    if cut == "gapped":
        for first, last in SPACELESS:
            inside = table[first : last + 1]
            inside[inside >= 0] += ALONE
    return table


def text_buffers(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets int64 ``[N + 1]`` and UTF-8 bytes of the texts, capital sigmas settled."""
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise UserError(f"texts are {array.type}; expected string or large_string")
    if array.null_count:
        raise UserError(f"{array.null_count} of {len(array)} texts are null; quarantine them or pass empty strings")
    array = array.cast(pa.large_string())
    sigmas = pc.match_substring(array, "\u03a3")
    if pc.any(sigmas).as_py():
        settled = pa.array([_settle_sigmas(text) for text in array.filter(sigmas).to_pylist()], pa.large_string())
        array = pc.replace_with_mask(array, sigmas, settled)
    if not len(array):
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    return starts, np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)


def _settle_sigmas(text: str) -> str:
    """Lower-case the capital sigmas as their neighbours demand (final or not), and nothing else."""
    lowered = text.replace("\u0130", "I").lower()  # of the same length
    return "".join(small if large == "\u03a3" else large for large, small in zip(text, lowered, strict=True))


def pieces(offsets: np.ndarray, size: int) -> list[tuple[int, int]]:
    """Cut rows into stretches of about ``size``, ``offsets`` int64 ``[N + 1]`` being where each begins."""
    marks = np.arange(offsets[0], offsets[-1] + 1, size)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(offsets[:-1], marks), [len(offsets) - 1]]))
    return [(int(start), int(stop)) for start, stop in itertools.pairwise(cuts)]
