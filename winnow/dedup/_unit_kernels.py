"""Compiled loops from texts to the units of shingles: words, their characters or their tokens.

Imported only inside functions, because numba is slow to import. The rules of a normalisation and a unit
(``winnow.dedup.normalizations.Rules``) come as a tuple: ``table`` and ``expansions`` as ``_text_kernels`` has them;
``classes`` uint8 ``[0x110000]``, 1 for letters and marks, 2 for numbers, else 0, read for tokens only; ``unit``; and
``ascii_words``, whether ASCII is lower-cased and split as ``\\w+`` does, which has a fast path.
"""

from __future__ import annotations

import numpy as np

from winnow.compiled import kernel
from winnow.dedup._intrinsics import LANES, load8
from winnow.dedup._text_kernels import GROWTH, SLACK, SPACE, decode, normalise, normalise_words

WORDS, CHARACTERS, TOKENS = 0, 1, 2


@kernel
def make_scratch(offsets, first, last, unit):
    """Return buffers for :func:`cut` that fit the longest text of a range."""
    longest = 0
    for i in range(first, last):
        longest = max(longest, offsets[i + 1] - offsets[i])
    # A word takes at least 2 bytes with what separates it.
    units = longest // 2 if unit == WORDS else GROWTH * longest
    tokens = 2 * GROWTH * longest if unit == TOKENS else 0
    return (
        np.empty(GROWTH * longest + SLACK, np.uint8),
        np.empty(tokens + SLACK, np.uint8),
        np.empty(units + 4, np.int64),
        np.zeros(2 * LANES + SLACK, np.uint8),
    )


@kernel
def cut(data, start, end, ready, rules, scratch):
    """Return (bytes, starts, units, gap) of one text: unit u is ``bytes[starts[u] : starts[u + 1] - gap]``.

    A ``ready`` text is normalised already, with one space between words.
    """
    table, expansions, classes, unit, ascii_words = rules
    out, spaced, starts, block = scratch
    if ready:
        words, size = _split_ready(data, start, end, out, starts)
    elif ascii_words:
        words, size = normalise_words(data, start, end, table, expansions, out, starts, block)
    else:
        words, size = normalise(data, start, end, table, expansions, out, starts)
    if unit == CHARACTERS:
        return out, starts, _split_characters(out, size, starts), 0
    if unit == TOKENS:
        return spaced, starts, _split_tokens(out, size, classes, spaced, starts), 1
    return out, starts, words, 1


@kernel
def _split_ready(data, start, end, out, starts):
    words, inside = 0, 0
    for at in range(start, end):
        byte = load8(data, at)
        word = int(byte != SPACE)
        starts[words] = at - start
        words += word & (1 - inside)
        out[at - start] = byte
        inside = word
    starts[words] = end - start + 1
    return words, end - start


@kernel
def _split_characters(out, size, starts):
    characters = 0
    for at in range(size):
        starts[characters] = at
        characters += int((out[at] & 0xC0) != 0x80)
    starts[characters] = size
    return characters


@kernel
def _split_tokens(text, size, classes, out, starts):
    """Write the tokens of a text of single spaces to ``out``, one space between; return their number."""
    at, written, tokens, run = 0, 0, 0, np.int64(0)
    while at < size:
        code, width = decode(text, at, size)
        kind = np.int64(classes[code])
        if code == SPACE:
            run = np.int64(0)
        else:
            if kind == 0 or kind != run:
                if tokens:
                    out[written] = SPACE
                    written += 1
                starts[tokens] = written
                tokens += 1
            for i in range(width):
                out[written + i] = text[at + i]
            written += width
            run = kind
        at += width
    starts[tokens] = written + 1
    return tokens
