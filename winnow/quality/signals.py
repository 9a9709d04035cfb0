"""Heuristic signals of documents: one pass over the UTF-8 bytes, one column a signal.

A *word* is a stretch without white space (``str.split``). A *line* is a stretch between line feeds, without the white
space at its ends and not empty; a *paragraph* is a run of lines with no blank line between. Characters are code points;
classes of characters are Python's (``str.isalpha`` and so on, see :mod:`winnow.quality.unicode_classes`). Every
fraction lies in [0, 1]; what has a zero denominator is 0. Where the field knows several definitions, the column's name
carries the variant: ``rpv2`` counts as RedPajama v2 does (on words as written), ``datatrove`` as datatrove does,
``gopher`` as Rae et al. 2021 (appendix A.1) word it.
"""

from __future__ import annotations

import itertools
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa

from winnow.errors import UserError

COMPRESSION_LEVEL = 6

COLUMNS: dict[str, str] = {
    "words": "words: stretches without white space",
    "characters": "characters: code points, white space included",
    "mean_word_length": "characters of the words / words",
    "lines": "lines that are not blank",
    "paragraphs": "paragraphs: runs of lines with no blank line between",
    "frac_lines_end_ellipsis": "lines that end in '...' or '…' / lines",
    "frac_lines_bullet": "lines that start with one of • ‣ ◦ ⁃ ▪ ● ○ - * / lines",
    "frac_lines_end_punctuation": "lines that end in one of . ! ? … \" ' ” / lines",
    "frac_lines_short": "lines of at most 30 characters / lines (FineWeb)",
    "newline_word_ratio": "line feeds / words, not bounded by 1 (FineWeb)",
    "frac_dup_lines": "second and later occurrences of a line / lines",
    "frac_dup_line_chars": "characters of the second and later occurrences of a line / characters",
    "frac_dup_paragraphs": "second and later occurrences of a paragraph / paragraphs",
    "frac_dup_paragraph_chars": "characters of the second and later occurrences of a paragraph, "
    "line ends left out / characters",
    **{
        f"frac_chars_top_{n}gram_gopher": f"word characters inside the {n} words in a row that occur most "
        "often (twice or more; ties: the longer, then the earlier; overlaps counted once) / word characters"
        for n in (2, 3, 4)
    },
    **{
        f"frac_chars_dup_{n}gram_rpv2": f"word characters inside any {n} words in a row that occur twice or "
        "more, all occurrences, overlaps counted once / word characters"
        for n in range(5, 11)
    },
    **{
        f"frac_chars_dup_{n}gram_datatrove": f"word characters of {n} words in a row already met, {n} words "
        "skipped after each hit / characters"
        for n in range(5, 11)
    },
    "hash_symbol_ratio": "'#' / words, not bounded by 1",
    "ellipsis_word_ratio": "'...' (without overlap) and '…' / words, not bounded by 1",
    "frac_words_alpha": "words with at least one letter / words",
    "frac_words_all_caps": "words with an upper-case and no lower-case letter / words",
    "stop_words_distinct": "how many of the, be, to, of, and, that, have, with occur "
    "(punctuation around a word and case ignored)",
    "frac_stop_words": "occurrences of those eight stop words / words",
    "frac_unique_words": "distinct words, as written / words",
    "unigram_entropy": "entropy of the distribution of the words as written, nats",
    "compression_ratio": "bytes after zlib level 6 / UTF-8 bytes, above 1 for very short texts",
    "frac_digits": "decimal digits (category Nd) / characters",
    "frac_upper": "upper-case letters / characters",
    "frac_punctuation": "punctuation (categories P*) / characters",
    "frac_symbols": "symbols (categories S*) / characters",
    "frac_space": "white space / characters",
    "frac_curly_brackets": "{ and } / characters",
}
INTEGER_COLUMNS = ("words", "characters", "lines", "paragraphs", "stop_words_distinct")


def compute_signals(texts: pa.Array | pa.ChunkedArray, threads: int = 2) -> pa.Table:
    """Return the signals of N texts as a table of N rows and the columns of :data:`COLUMNS`, in that order.

    ``texts``: string or large_string without nulls. Counts are int64, the rest float64, never null, NaN or infinite. A
    row depends on its own text alone, so neither order nor batches nor ``threads`` change it. ``compression_ratio``
    follows the zlib that Python was built with. Raises ``UserError`` for a null or another type.

    Sources: Rae et al. 2021 (Gopher), appendix A.1; Weber et al. 2024 (RedPajama v2); Penedo et al. 2024 (FineWeb).
    """
    from winnow.quality import _kernels as k
    from winnow.quality.unicode_classes import class_table

    array = _large_string(texts)
    offsets, data = _buffers(array)
    counts = np.zeros((len(array), k.N_COUNTS), dtype=np.int64)
    entropies = np.zeros(len(array))
    compressed = np.zeros(len(array), dtype=np.int64)

    def work(bounds: tuple[int, int]) -> None:
        k.count_signals(data, offsets, *bounds, class_table(), counts, entropies)
        compress = partial(zlib.compress, level=COMPRESSION_LEVEL)
        view = data.data
        for row in range(*bounds):
            compressed[row] = len(compress(view[offsets[row] : offsets[row + 1]]))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, _pieces(offsets)))
    counts[:, k.BYTES] = offsets[1:] - offsets[:-1]

    ratios: dict[str, tuple[int, int]] = {
        "mean_word_length": (k.WORD_CHARACTERS, k.WORDS),
        "frac_lines_end_ellipsis": (k.LINES_ELLIPSIS, k.LINES),
        "frac_lines_bullet": (k.LINES_BULLET, k.LINES),
        "frac_lines_end_punctuation": (k.LINES_TERMINAL, k.LINES),
        "frac_lines_short": (k.LINES_SHORT, k.LINES),
        "newline_word_ratio": (k.NEWLINES, k.WORDS),
        "frac_dup_lines": (k.DUP_LINES, k.LINES),
        "frac_dup_line_chars": (k.DUP_LINE_CHARACTERS, k.CHARACTERS),
        "frac_dup_paragraphs": (k.DUP_PARAGRAPHS, k.PARAGRAPHS),
        "frac_dup_paragraph_chars": (k.DUP_PARAGRAPH_CHARACTERS, k.CHARACTERS),
        **{f"frac_chars_top_{n}gram_gopher": (k.TOP_2 + n - 2, k.WORD_CHARACTERS) for n in (2, 3, 4)},
        **{f"frac_chars_dup_{n}gram_rpv2": (k.DUP_RPV2_5 + n - 5, k.WORD_CHARACTERS) for n in range(5, 11)},
        **{f"frac_chars_dup_{n}gram_datatrove": (k.DUP_DATATROVE_5 + n - 5, k.CHARACTERS) for n in range(5, 11)},
        "hash_symbol_ratio": (k.HASHES, k.WORDS),
        "ellipsis_word_ratio": (k.ELLIPSES, k.WORDS),
        "frac_words_alpha": (k.WORDS_ALPHA, k.WORDS),
        "frac_words_all_caps": (k.WORDS_CAPS, k.WORDS),
        "frac_stop_words": (k.STOP_WORDS, k.WORDS),
        "frac_unique_words": (k.DISTINCT_WORDS, k.WORDS),
        "frac_digits": (k.DIGITS, k.CHARACTERS),
        "frac_upper": (k.UPPERS, k.CHARACTERS),
        "frac_punctuation": (k.PUNCTUATIONS, k.CHARACTERS),
        "frac_symbols": (k.SYMBOLS, k.CHARACTERS),
        "frac_space": (k.SPACES, k.CHARACTERS),
        "frac_curly_brackets": (k.CURLIES, k.CHARACTERS),
    }
    integers = (k.WORDS, k.CHARACTERS, k.LINES, k.PARAGRAPHS, k.STOP_WORDS_DISTINCT)
    columns: dict[str, np.ndarray] = {
        name: counts[:, column] for name, column in zip(INTEGER_COLUMNS, integers, strict=True)
    }
    columns |= {name: _ratio(counts[:, above], counts[:, below]) for name, (above, below) in ratios.items()}
    columns["unigram_entropy"] = entropies
    columns["compression_ratio"] = _ratio(compressed, counts[:, k.BYTES])
    return pa.table({name: pa.array(columns[name]) for name in COLUMNS})


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient of two counts; 0 where the denominator is 0."""
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), 0.0)


def _large_string(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks() if texts.num_chunks != 1 else texts.chunk(0)
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise UserError(f"texts are {texts.type}; expected string or large_string")
    if texts.null_count:
        raise UserError(f"{texts.null_count} of {len(texts)} texts are null; quarantine them or pass empty strings")
    return texts.cast(pa.large_string())


def _buffers(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Offsets int64 ``[N + 1]`` and bytes uint8 of a large_string array, without a copy."""
    _, offsets, data = array.buffers()
    if not len(array):
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    starts = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    return starts, np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)


def _pieces(offsets: np.ndarray, size: int = 4 << 20) -> list[tuple[int, int]]:
    """Cut the rows into stretches of about ``size`` bytes."""
    marks = np.arange(offsets[0], offsets[-1] + 1, size)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(offsets[:-1], marks), [len(offsets) - 1]]))
    return [(int(start), int(stop)) for start, stop in itertools.pairwise(cuts)]
