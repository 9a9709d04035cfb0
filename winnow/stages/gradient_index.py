"""Stored projected gradients of what a checkpoint was trained on: a shortlist for any text that needs no shared word.

The store of gradients is made once for a checkpoint, a scope and a set of documents, part by part, so that a killed
run goes on where it stood; it lies in ``store/gradients`` of the home and may be deleted at any time. A takedown
deletes all of them (:func:`winnow.store.leftovers.remove_gradients`), ``winnow gc`` the old ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.run import Queries
from winnow.home import Home
from winnow.identity import digest, digest_ids
from winnow.stages.checkpoints import StoredCheckpoint

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

PROJECTION = 16
"""Rows and columns that a layer's gradient is projected to."""
VERSION = "1"


def index_folder(home: Home, checkpoint: StoredCheckpoint, scope: str, seed: int, ids: np.ndarray) -> Path:
    """Return where the gradients of these documents (uint8 ``[N, 16]``) at a checkpoint lie."""
    made_of = [VERSION, checkpoint.weights_digest, checkpoint.tokenizer, scope, PROJECTION, seed, digest_ids(ids)]
    return home.gradients / digest(made_of)[:16]


def indexed_scores(
    folder: Path,
    model: nn.Module,
    documents: Callable[[], Sequence[np.ndarray]],
    query: Queries,
    scope: str,
    damping: float,
    seed: int,
    say: Callable[[str], None] = log.info,
) -> np.ndarray:
    """Return LoGra's influence of all documents on the query, float64 ``[N]``, NaN where there is none.

    ``documents`` reads their token arrays, in the order of the store; it is called where gradients are missing.
    """
    from winnow.attribution.estimators.logra import FittedLogra
    from winnow.attribution.gradient_store import GradientStore
    from winnow.attribution.projected import Making, store_gradients
    from winnow.attribution.projection import Projection

    making = Making(scope, Projection(PROJECTION, seed))
    store = GradientStore.open(folder) if (folder / "index.json").exists() else None
    if store is None or store.missing():
        tokens = documents()
        say(f"storing the projected gradients of {len(tokens):,} documents in {folder}, once")
        store = store_gradients(folder, model, tokens, making)
    return FittedLogra.from_rows(model, making, store, damping).score(query)[0]
