"""Stored projected gradients of what a checkpoint was trained on: a shortlist for any text that needs no shared word.

The store of gradients is made once for a checkpoint, a scope and a set of documents, part by part, so that a killed
run goes on where it stood; it lies in ``store/gradients`` of the home and may be deleted at any time. Beside it are
kept, made at the first question: the eigenvectors that LoGra weighs gradients by, and of many documents an index by
faiss. A takedown deletes all of them (:func:`winnow.store.leftovers.remove_gradients`), ``winnow gc`` the old ones.

Memory is bounded whatever the number of documents: their tokens pass through a file, their gradients are mapped.
"""

from __future__ import annotations

import logging
import os
import shutil
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

    from winnow.attribution.autocorrelation import Spectrum
    from winnow.attribution.gradient_store import GradientStore
    from winnow.attribution.retrieval import GradientIndex

log = logging.getLogger(__name__)

PROJECTION = 16
"""Rows and columns that a layer's gradient is projected to."""
INDEXED_FROM = 100_000
"""Documents from which on an approximate index is asked; of fewer all products are taken."""
SAMPLE_BYTES = 1 << 28
"""Of the gradients that the index's lists are fitted to, 40 a list, which bounds the number of lists."""
VERSION = "1"


def index_folder(home: Home, checkpoint: StoredCheckpoint, scope: str, seed: int, ids: np.ndarray) -> Path:
    """Return where the gradients of these documents (uint8 ``[N, 16]``) at a checkpoint lie."""
    made_of = [VERSION, checkpoint.weights_digest, checkpoint.tokenizer, scope, PROJECTION, seed, digest_ids(ids)]
    return home.gradients / digest(made_of)[:16]


def likely_documents(
    folder: Path,
    model: nn.Module,
    documents: Callable[[], Sequence[np.ndarray]],
    query: Queries,
    scope: str,
    damping: float,
    seed: int,
    most: int,
    lowest: bool = False,
    say: Callable[[str], None] = log.info,
) -> np.ndarray:
    """Return float64 ``[N]``, the higher the likelier among the ``most`` with the highest (lowest) LoGra influence.

    -inf where there is none or, of ``INDEXED_FROM`` documents or more, where the index did not name the document.
    ``documents`` gives their token arrays, in the order of the store; it is called where gradients are missing.
    """
    from winnow.attribution.autocorrelation import products
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
    everyone = np.arange(store.index.documents)
    directions, asked = FittedLogra(model, making, store, everyone, _spectra(store), damping).directions(query)
    likely = np.full(len(everyone), -np.inf)
    if not asked[0]:
        return likely
    directions = -directions if lowest else directions
    if len(everyone) < INDEXED_FROM:
        scores = products(directions, store)[0]
        return np.where(np.isfinite(scores), scores, -np.inf)
    values, places = _index(store, seed, say).top(directions, most, store)
    found = places[0] >= 0
    likely[places[0][found]] = values[0][found]
    return likely


def _spectra(store: GradientStore) -> dict[str, Spectrum]:
    """Return R's eigenvectors by layer, read or, the first time, made and kept."""
    from winnow.attribution.autocorrelation import autocorrelations, load_spectra, save_spectra

    path = store.path / "spectra.safetensors"
    if path.exists():
        return load_spectra(path)
    store.verify()  # once, as it is read whole anyhow
    made = {name: block.spectrum() for name, block in autocorrelations(store, store.layout.blocks).items()}
    save_spectra(made, path)
    return made


def _index(store: GradientStore, seed: int, say: Callable[[str], None]) -> GradientIndex:
    """Return the index of a store, read or, the first time, made and kept."""
    from winnow.attribution.retrieval import TRAINED_ON, GradientIndex

    folder = store.path / "nearest"
    if not folder.exists():
        most = SAMPLE_BYTES // (4 * TRAINED_ON * store.layout.width)
        lists = max(1, min(int(store.index.documents**0.5), most))
        say(f"indexing the gradients of {store.index.documents:,} documents in {lists} lists, once")
        made = store.path / f"nearest-{os.getpid()}.tmp"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        GradientIndex.write(made / "index.faiss", store, lists=lists, seed=seed)
        try:
            made.rename(folder)
        except OSError:  # another question was faster
            shutil.rmtree(made, ignore_errors=True)
    return GradientIndex.load(folder / "index.faiss")
