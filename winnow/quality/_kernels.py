"""Counts of one document after another over Arrow's UTF-8 bytes (numba); imported only when signals are computed.

A word, a line and a paragraph are compared by 64-bit hashes of their code points; an n-gram by a hash of its words'
hashes. Two different ones in one document meet with a chance of about (their number squared) / 2**65.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from winnow.compiled import kernel
from winnow.quality import unicode_classes as classes

# Columns of the int64 matrix of counts.
(
    BYTES, CHARACTERS, WORDS, WORD_CHARACTERS, LINES, PARAGRAPHS, NEWLINES,
    LINES_ELLIPSIS, LINES_BULLET, LINES_TERMINAL, LINES_SHORT,
    DUP_LINES, DUP_LINE_CHARACTERS, DUP_PARAGRAPHS, DUP_PARAGRAPH_CHARACTERS,
    HASHES, ELLIPSES, WORDS_ALPHA, WORDS_CAPS, STOP_WORDS, STOP_WORDS_DISTINCT, DISTINCT_WORDS,
    DIGITS, UPPERS, PUNCTUATIONS, SYMBOLS, SPACES, CURLIES,
    TOP_2, TOP_3, TOP_4,
    DUP_RPV2_5, DUP_RPV2_6, DUP_RPV2_7, DUP_RPV2_8, DUP_RPV2_9, DUP_RPV2_10,
    DUP_DATATROVE_5, DUP_DATATROVE_6, DUP_DATATROVE_7, DUP_DATATROVE_8, DUP_DATATROVE_9, DUP_DATATROVE_10,
    N_COUNTS,
) = range(44)  # fmt: skip

SPACE, ALPHA, ALNUM, DIGIT = classes.SPACE, classes.ALPHA, classes.ALNUM, classes.DIGIT
UPPER, LOWER, PUNCTUATION, SYMBOL = classes.UPPER, classes.LOWER, classes.PUNCTUATION, classes.SYMBOL
CODE_POINTS = classes.CODE_POINTS
SHORT_LINE = 30  # characters; FineWeb

# The eight stop words, each as its lower-case ASCII letters in one integer (big-endian base 256).
STOP_CODES = np.array(
    [int.from_bytes(word, "big") for word in b"the be to of and that have with".split()], dtype=np.int64
)
BULLETS = np.array([ord(mark) for mark in "\u2022\u2023\u25e6\u2043\u25aa\u25cf\u25cb-*"], dtype=np.int64)
TERMINALS = np.array([ord(mark) for mark in ".!?\"'\u2026\u201d"], dtype=np.int64)

SEED = np.uint64(0xCBF29CE484222325)
STEP = np.uint64(0x9E3779B97F4A7C15)
NGRAM = np.uint64(0xD6E8FEB86659FD93)


@njit(nogil=True, inline="always")
def _mix(key):
    key ^= key >> np.uint64(33)
    key *= np.uint64(0xFF51AFD7ED558CCD)
    key ^= key >> np.uint64(33)
    key *= np.uint64(0xC4CEB9FE1A85EC53)
    return key ^ (key >> np.uint64(33))


@njit(nogil=True, inline="always")
def _member(values, value):
    for candidate in values:  # noqa: SIM110 - numba compiles no generator expression
        if candidate == value:
            return True
    return False


@kernel
def _slot(keys, stamps, mask, epoch, key):
    """Slot of ``key`` in the open-addressing table, or the free slot for it (its stamp is not ``epoch``)."""
    slot = np.int64(_mix(key) & np.uint64(mask))
    while stamps[slot] == epoch and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@kernel
def _duplicates(hashes, sizes, count, keys, stamps, mask, epoch):
    """Second and later occurrences: how many, and their characters."""
    number, characters = 0, 0
    for i in range(count):
        slot = _slot(keys, stamps, mask, epoch, hashes[i])
        if stamps[slot] == epoch:
            number += 1
            characters += sizes[i]
        else:
            stamps[slot] = epoch
            keys[slot] = hashes[i]
    return number, characters


@kernel
def _scan(text, table, counts, word_hash, word_ends, line_hash, line_size, paragraph_hash, paragraph_size):
    """First pass: decode UTF-8, count classes, cut words, lines and paragraphs.

    ``word_ends[k]`` is the number of word characters in the first k words. A line is a stretch between line feeds that
    is not only white space, without the white space at its ends; a paragraph is a run of such lines.
    """
    size = text.shape[0]
    characters = words = word_characters = lines = paragraphs = newlines = 0
    lines_ellipsis = lines_bullet = lines_terminal = lines_short = 0
    hashes = ellipses = words_alpha = words_caps = stop_words = stop_set = 0
    digits = uppers = punctuations = symbols = spaces = curlies = 0
    word, word_flags, word_size = SEED, np.int64(0), 0
    core, core_kept, core_size, core_kept_size = (
        np.int64(0),
        np.int64(0),
        0,
        0,
    )  # the word from its first to its last letter or digit
    line, line_kept, size_now, size_kept, last, dots, dots_kept = SEED, SEED, 0, 0, np.int64(0), 0, 0
    run = 0  # full stops in a row, for "..." counted without overlap
    paragraph, paragraph_characters = SEED, 0
    word_ends[0] = 0
    position = 0
    while position <= size:
        if position == size:
            code, flags = np.int64(10), np.int64(SPACE)  # the end closes the word, the line and the paragraph
        else:
            code = byte = np.int64(text[position])
            width = 1
            if byte >= 0xF0:
                code = (byte & 0x07) << 18 | (np.int64(text[position + 1]) & 0x3F) << 12
                code |= (np.int64(text[position + 2]) & 0x3F) << 6 | (np.int64(text[position + 3]) & 0x3F)
                width = 4
            elif byte >= 0xE0:
                code = (byte & 0x0F) << 12 | (np.int64(text[position + 1]) & 0x3F) << 6
                code |= np.int64(text[position + 2]) & 0x3F
                width = 3
            elif byte >= 0xC0:
                code = (byte & 0x1F) << 6 | (np.int64(text[position + 1]) & 0x3F)
                width = 2
            flags = np.int64(table[code]) if code < CODE_POINTS else np.int64(0)
            position += width - 1
            characters += 1
            digits += (flags & DIGIT) != 0
            uppers += (flags & UPPER) != 0
            punctuations += (flags & PUNCTUATION) != 0
            symbols += (flags & SYMBOL) != 0
            spaces += (flags & SPACE) != 0
            if code == 46:
                run += 1
                if run == 3:
                    ellipses += 1
                    run = 0
            else:
                run = 0
                if code == 0x2026:
                    ellipses += 1
                elif code == 35:
                    hashes += 1
                elif code == 123 or code == 125:
                    curlies += 1
                elif code == 10:
                    newlines += 1
        position += 1
        line = (line ^ np.uint64(code)) * STEP
        size_now += 1
        if not flags & SPACE:
            if word_size == 0:
                word, word_flags = SEED, np.int64(0)
                core, core_kept, core_size, core_kept_size = np.int64(0), np.int64(0), 0, 0
            if size_kept == 0:  # the line's first visible character starts it anew
                line, size_now = (SEED ^ np.uint64(code)) * STEP, 1
                lines_bullet += _member(BULLETS, code)
            word = (word ^ np.uint64(code)) * STEP
            word_flags |= flags
            word_size += 1
            if flags & ALNUM or core_size:
                core_size += 1
                letter = code | 32 if 65 <= code <= 90 else code
                core = core << 8 | letter if core_size <= 4 and code < 128 else np.int64(-1)
                if flags & ALNUM:
                    core_kept, core_kept_size = core, core_size
            dots = dots + 1 if code == 46 else 0
            line_kept, size_kept, last, dots_kept = line, size_now, code, dots
            continue
        dots = 0
        if word_size:
            word_hash[words] = _mix(word)
            words += 1
            word_characters += word_size
            word_ends[words] = word_characters
            words_alpha += (word_flags & ALPHA) != 0
            words_caps += (word_flags & UPPER) != 0 and (word_flags & LOWER) == 0
            if 2 <= core_kept_size <= 4:
                for k in range(STOP_CODES.shape[0]):
                    if STOP_CODES[k] == core_kept:
                        stop_words += 1
                        stop_set |= 1 << k
            word_size = 0
        if code != 10:
            continue
        if size_kept:
            line_hash[lines], line_size[lines] = _mix(line_kept), size_kept
            lines += 1
            lines_ellipsis += last == 0x2026 or dots_kept >= 3
            lines_terminal += _member(TERMINALS, last)
            lines_short += size_kept <= SHORT_LINE
            paragraph = (paragraph ^ _mix(line_kept)) * STEP
            paragraph_characters += size_kept
        if paragraph_characters and (size_kept == 0 or position > size):
            paragraph_hash[paragraphs], paragraph_size[paragraphs] = _mix(paragraph), paragraph_characters
            paragraphs += 1
            paragraph, paragraph_characters = SEED, 0
        line, size_now, size_kept = SEED, 0, 0
    distinct_stop_words = 0
    for k in range(STOP_CODES.shape[0]):
        distinct_stop_words += stop_set >> k & 1
    counts[BYTES], counts[CHARACTERS], counts[WORDS], counts[WORD_CHARACTERS] = size, characters, words, word_characters
    counts[LINES], counts[PARAGRAPHS], counts[NEWLINES] = lines, paragraphs, newlines
    counts[LINES_ELLIPSIS], counts[LINES_BULLET] = lines_ellipsis, lines_bullet
    counts[LINES_TERMINAL], counts[LINES_SHORT] = lines_terminal, lines_short
    counts[HASHES], counts[ELLIPSES] = hashes, ellipses
    counts[WORDS_ALPHA], counts[WORDS_CAPS] = words_alpha, words_caps
    counts[STOP_WORDS], counts[STOP_WORDS_DISTINCT] = stop_words, distinct_stop_words
    counts[DIGITS], counts[UPPERS], counts[PUNCTUATIONS] = digits, uppers, punctuations
    counts[SYMBOLS], counts[SPACES], counts[CURLIES] = symbols, spaces, curlies


@kernel
def _unigrams(hashes, words, keys, stamps, values, mask, epoch, where, repeated):
    """Entropy in nats and the number of distinct words; marks the words that occur more than once."""
    distinct = 0
    for i in range(words):
        slot = _slot(keys, stamps, mask, epoch, hashes[i])
        where[i] = slot
        if stamps[slot] == epoch:
            values[slot] += 1
        else:
            stamps[slot], keys[slot], values[slot] = epoch, hashes[i], 1
            distinct += 1
    logarithms = 0.0
    for i in range(words):
        count = values[where[i]]
        repeated[i] = count > 1
        if count > 1:
            logarithms += np.log(np.float64(count))
    entropy = np.log(np.float64(words)) - logarithms / words if words else 0.0
    return max(entropy, 0.0), distinct


@kernel
def _ngrams(n, hashes, ends, words, keys, stamps, values, firsts, walked, mask, epoch, where, repeated):
    """Word characters in the top n-gram, in all repeated n-grams (rpv2), and in datatrove's walk over repeats.

    ``repeated`` comes in with the positions whose (n-1)-gram occurs twice and goes out with those of the n-gram: an
    n-gram can only repeat where its two (n-1)-grams do, so unique text costs one look at two flags a word.
    """
    walk, datatrove, found = 0, 0, False
    for i in range(words):
        candidate = repeated[i] and i + 1 < words and repeated[i + 1]
        repeated[i] = False
        where[i] = -1
        if not candidate:
            continue
        key = np.uint64(n)
        for k in range(i, i + n):
            key = (key ^ hashes[k]) * NGRAM
        slot = _slot(keys, stamps, mask, epoch, key)
        where[i] = slot
        if stamps[slot] == epoch:
            values[slot] += 1
            repeated[i] = repeated[firsts[slot]] = found = True
        else:
            stamps[slot], keys[slot], values[slot], firsts[slot], walked[slot] = epoch, key, 1, i, False
        if i >= walk:  # datatrove looks at this position: a hit skips the n-gram's words
            if walked[slot]:
                datatrove += ends[i + n] - ends[i]
                walk = i + n
            walked[slot] = True
    if not found:
        return 0, 0, 0
    best, best_count, best_size = -1, 1, 0
    covered, rpv2 = 0, 0
    for i in range(words):
        if repeated[i]:
            rpv2 += ends[i + n] - ends[max(i, covered)]
            covered = i + n
            count, size = values[where[i]], ends[i + n] - ends[i]
            if count > best_count or (count == best_count and size > best_size):
                best, best_count, best_size = where[i], count, size
    covered, top = 0, 0
    for i in range(words):
        if where[i] == best:
            top += ends[i + n] - ends[max(i, covered)]
            covered = i + n
    return top, rpv2, datatrove


@kernel
def count_signals(data, offsets, start, stop, table, counts, entropies):
    """Fill rows ``start:stop`` of ``counts`` (int64 ``[N, N_COUNTS]``) and ``entropies`` (float64 ``[N]``, nats).

    ``data`` uint8 and ``offsets`` int64 ``[N + 1]`` are the buffers of an Arrow large_string array without nulls.
    """
    longest = 0
    for row in range(start, stop):
        longest = max(longest, offsets[row + 1] - offsets[row])
    room = longest // 2 + 2
    word_hash, line_hash, paragraph_hash = (
        np.empty(room, np.uint64),
        np.empty(room, np.uint64),
        np.empty(room, np.uint64),
    )
    word_ends, line_size, paragraph_size = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    where, repeated = np.empty(room, np.int64), np.empty(room, np.bool_)
    capacity, epoch = 1024, 0
    keys, stamps, values = np.empty(capacity, np.uint64), np.zeros(capacity, np.int64), np.empty(capacity, np.int64)
    firsts, walked = np.empty(capacity, np.int64), np.empty(capacity, np.bool_)
    for row in range(start, stop):
        count = counts[row]
        text = data[offsets[row] : offsets[row + 1]]
        _scan(text, table, count, word_hash, word_ends, line_hash, line_size, paragraph_hash, paragraph_size)
        words, lines, paragraphs = count[WORDS], count[LINES], count[PARAGRAPHS]
        need = 64
        while need < 2 * max(words, lines):
            need *= 2
        if need > capacity:
            capacity, epoch = need, 0
            keys, stamps, values = np.empty(need, np.uint64), np.zeros(need, np.int64), np.empty(need, np.int64)
            firsts, walked = np.empty(need, np.int64), np.empty(need, np.bool_)
        mask = need - 1
        count[DUP_LINES], count[DUP_LINE_CHARACTERS] = _duplicates(
            line_hash, line_size, lines, keys, stamps, mask, epoch + 1
        )
        count[DUP_PARAGRAPHS], count[DUP_PARAGRAPH_CHARACTERS] = _duplicates(
            paragraph_hash, paragraph_size, paragraphs, keys, stamps, mask, epoch + 2
        )
        epoch += 3
        entropies[row], count[DISTINCT_WORDS] = _unigrams(
            word_hash, words, keys, stamps, values, mask, epoch, where, repeated
        )
        for n in range(2, 11):
            epoch += 1
            top, rpv2, datatrove = _ngrams(
                n, word_hash, word_ends, words, keys, stamps, values, firsts, walked, mask, epoch, where, repeated
            )
            if n <= 4:
                count[TOP_2 + n - 2] = top
            else:
                count[DUP_RPV2_5 + n - 5] = rpv2
                count[DUP_DATATROVE_5 + n - 5] = datatrove
            if rpv2 == 0:
                break
