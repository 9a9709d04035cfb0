"""Packing tokenised documents into the windows that training reads."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# Fills the last window; neither read nor predicted.
PADDING = -1


def pack(token_lists: Iterable[np.ndarray], context: int, eos: int) -> np.ndarray:
    """Lay documents end to end, each followed by ``eos``, and cut the stream: int32 ``[W, context]``.

    The order is the given one and no token is lost: a document runs on into the next window, and what the last window
    lacks is -1. Within a window a document sees those before it. Raises ValueError when a token id is negative.
    """
    end = np.array([eos], dtype=np.int32)
    parts = [piece for tokens in token_lists for piece in (np.asarray(tokens, dtype=np.int32), end)]
    if not parts:
        return np.empty((0, context), dtype=np.int32)
    stream = np.concatenate(parts)
    if stream.min() < 0:
        raise ValueError(f"token id {stream.min()} is negative")
    windows = np.full((-(-len(stream) // context), context), PADDING, dtype=np.int32)
    windows.reshape(-1)[: len(stream)] = stream
    return windows
