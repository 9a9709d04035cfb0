"""Token arrays into padded batches whose shapes do not depend on which documents share them.

A matrix product may round differently when its shape changes, so a document's bits may depend on its company. Here
they do not: a document's length alone decides its bucket, and every batch of a bucket has the same rows and columns;
missing rows repeat the batch's last document with weight zero. Padding repeats the document's own first token, so
nothing of another document (nor a broken pad embedding) enters its row. Padding is on the right, and attention is
causal, so no position that counts ever sees a padded one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from winnow.errors import UserError

BATCH_TOKENS = 2048  # positions in a batch; part of the promise of equal bits, so a constant and not a setting


@dataclass(frozen=True)
class Packing:
    """How ``R`` documents share the rows of a packed batch.

    ``owner`` int64 ``[B, T]``: which document (its place in the batch's ``rows``) a position belongs to, -1 none;
    ``position`` int64 ``[B, T]``: its place within the document; ``places`` int64 ``[R, T']``: where (row by row) the
    document's positions are, -1 after its last.
    """

    owner: np.ndarray
    position: np.ndarray
    places: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Documents of one bucket: ``B`` rows of ``T`` positions, of which the first ``len(rows)`` are documents.

    ``rows`` int64 ``[R]``: their positions in the list given; ``inputs``, ``targets`` int64 ``[B, T]``; ``weights``
    float32 ``[B, T]``: 1 / predicted tokens where a token is predicted, else 0, so that a row's weighted token losses
    sum to the document's mean loss. With ``packing`` a row is a window of several documents.
    """

    rows: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    packing: Packing | None = None


def tokens_used(docs: Sequence[np.ndarray], context: int) -> np.ndarray:
    """Return int64 ``[N]``: how many tokens of each document are used, its first window of ``context`` at most."""
    return np.minimum(np.fromiter((len(doc) for doc in docs), dtype=np.int64, count=len(docs)), context)


def check_documents(docs: Sequence[np.ndarray], vocabulary: int) -> None:
    """Raise :class:`UserError` unless every document is a one-dimensional array of token ids below ``vocabulary``."""
    for position, doc in enumerate(docs):
        if np.ndim(doc) != 1 or not np.issubdtype(np.asarray(doc).dtype, np.integer):
            raise UserError(f"document {position}: expected a one-dimensional array of integer token ids")
        if len(doc) and (int(np.min(doc)) < 0 or int(np.max(doc)) >= vocabulary):
            worst = int(np.max(doc)) if int(np.min(doc)) >= 0 else int(np.min(doc))
            raise UserError(
                f"document {position}: token id {worst} is outside the model's vocabulary of {vocabulary}; "
                "tokenise with the tokenizer that the model was trained with"
            )


def canonical_order(docs: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Return int64 ``[N]``, an order of the documents by their tokens and the seed, whatever their places."""
    keys = [xxhash.xxh3_128_digest(_token_bytes(doc), seed=seed) for doc in docs]
    return np.array(sorted(range(len(docs)), key=lambda position: keys[position]), dtype=np.int64)


def uniforms(doc: np.ndarray, seed: int, count: int) -> np.ndarray:
    """Return float64 ``[count]`` uniform draws in [0, 1) that depend on the document's tokens and the seed alone."""
    key = int.from_bytes(xxhash.xxh3_128_digest(_token_bytes(doc), seed=seed), "big")
    return np.random.Generator(np.random.Philox(key=key)).random(count)


def batches(
    docs: Sequence[np.ndarray], context: int, *, full: bool = True, batch_tokens: int = BATCH_TOKENS
) -> Iterator[Batch]:
    """Yield every document of at least two tokens once, bucket by bucket, cut to its first ``context`` tokens.

    A document of n tokens has n - 1 positions, each predicting the next token. Documents of fewer than two tokens have
    no loss and are in no batch. ``full=False`` leaves the last batch of a bucket short: for a set that is only ever
    summed as a whole, in an order of its own.
    """
    positions = tokens_used(docs, context) - 1
    bucket_of = np.array([_bucket(count, context) for count in positions.tolist()], dtype=np.int64)
    for width in np.unique(bucket_of[positions > 0]).tolist():
        members = np.flatnonzero((bucket_of == width) & (positions > 0))
        height = max(1, batch_tokens // width)
        for start in range(0, len(members), height):
            rows = members[start : start + height]
            yield _batch(docs, rows, positions, height if full else len(rows), width)


def packed_batches(docs: Sequence[np.ndarray], context: int, *, batch_tokens: int = BATCH_TOKENS) -> Iterator[Batch]:
    """Yield every document of at least two tokens once, several in a window of ``context`` positions, longest first.

    Fewer positions are wasted than in :func:`batches` where lengths differ, but a document's last bits depend on the
    documents beside it. Documents are cut to their first ``context`` tokens; none is split.
    """
    positions = tokens_used(docs, context) - 1
    width = max(1, context - 1)
    order = np.argsort(-positions, kind="stable")
    windows: list[list[int]] = []
    room: list[int] = []
    for index in order[positions[order] > 0].tolist():
        count = int(positions[index])
        place = next((place for place, left in enumerate(room) if left >= count), len(room))
        if place == len(room):
            windows.append([])
            room.append(width)
        windows[place].append(index)
        room[place] -= count
    height = max(1, batch_tokens // width)
    for start in range(0, len(windows), height):
        yield _packed(docs, windows[start : start + height], positions, width)


def _packed(docs: Sequence[np.ndarray], windows: list[list[int]], positions: np.ndarray, width: int) -> Batch:
    rows = np.array([index for window in windows for index in window], dtype=np.int64)
    shape = (len(windows), width)
    inputs, targets, position = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    weights, owner = np.zeros(shape, dtype=np.float32), np.full(shape, -1, dtype=np.int64)
    places = np.full((len(rows), int(positions[rows].max())), -1, dtype=np.int64)
    document = 0
    for row, window in enumerate(windows):
        start = 0
        inputs[row], targets[row] = docs[window[0]][0], docs[window[0]][0]
        for index in window:
            doc, count = docs[index], int(positions[index])
            part = slice(start, start + count)
            inputs[row, part], targets[row, part] = doc[:count], doc[1 : count + 1]
            weights[row, part], owner[row, part], position[row, part] = 1.0 / count, document, np.arange(count)
            places[document, :count] = row * width + np.arange(start, start + count)
            start, document = start + count, document + 1
    return Batch(rows, inputs, targets, weights, Packing(owner, position, places))


def _batch(docs: Sequence[np.ndarray], rows: np.ndarray, positions: np.ndarray, height: int, width: int) -> Batch:
    inputs = np.empty((height, width), dtype=np.int64)
    targets = np.empty((height, width), dtype=np.int64)
    weights = np.zeros((height, width), dtype=np.float32)
    for row, index in enumerate(rows):
        doc, count = docs[index], int(positions[index])
        inputs[row], targets[row] = doc[0], doc[0]
        inputs[row, :count], targets[row, :count] = doc[:count], doc[1 : count + 1]
        weights[row, :count] = 1.0 / count
    inputs[len(rows) :], targets[len(rows) :] = inputs[len(rows) - 1], targets[len(rows) - 1]
    return Batch(rows, inputs, targets, weights)


def _bucket(positions: int, context: int) -> int:
    """Return the smallest of 32, 64, 96, 128, 192, 256, 384, 512, ... that holds so many positions, or the context.

    Padding must not pass the context: learned positions end there, and dynamic rotary ones change for the whole batch.
    """
    if positions <= 128:
        return min(max(32, -(-positions // 32) * 32), context)
    power = 1 << (positions - 1).bit_length()
    return min(power * 3 // 4 if positions <= power * 3 // 4 else power, context)


def within_tokens(docs: Sequence[np.ndarray], tokens: int) -> np.ndarray:
    """Return int64 positions of documents in canonical order until ``tokens`` would be passed; at least one."""
    order = canonical_order(docs)
    total = np.cumsum([len(docs[position]) for position in order])
    return order[: max(1, int(np.searchsorted(total, tokens, side="right")))]


def _token_bytes(doc: np.ndarray) -> bytes:
    return np.asarray(doc, dtype="<i8").tobytes()
