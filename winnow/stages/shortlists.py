"""Which of the documents that a checkpoint was trained on an estimator looks at, where they are many."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.run import Queries
from winnow.config import Config
from winnow.home import Home
from winnow.identity import ids_as_keys, ids_to_numpy, seeded_keys
from winnow.stages.checkpoints import StoredCheckpoint
from winnow.stages.gradient_index import index_folder, likely_documents
from winnow.stages.trained_on import TrainedOn, texts_of_documents
from winnow.stages.training_run import spill_tokens

if TYPE_CHECKING:
    from winnow.stages.token_file import TokenFile
    from winnow.store.store import Connection
    from winnow.train.checkpoint import Checkpoint


def bm25_of(connection: Connection, among: TrainedOn, text: str) -> np.ndarray:
    """Return float64 ``[N]`` as the estimator of that name gives it, with the counts of the text's words alone."""
    from scipy.sparse import vstack

    from winnow.attribution.estimators.bm25 import bm25_weights
    from winnow.attribution.terms import Vocabulary, count_words

    vocabulary = Vocabulary([text])
    counts, lengths, ids = [], [], []
    for rows in texts_of_documents(connection, among.ids):
        texts = rows["text"].to_pylist()
        counts.append(vocabulary.counts(texts))
        lengths.append(count_words(texts))
        ids.append(ids_to_numpy(rows["doc_id"]))
    order = np.argsort(ids_as_keys(np.concatenate(ids)), order=("high", "low"))
    weights = bm25_weights(vstack(counts, format="csr")[order], np.concatenate(lengths)[order])
    return (vocabulary.counts([text]) @ weights.T).toarray()[0]


def ranks_of(bm25: np.ndarray) -> np.ndarray:
    """Return int64 ``[N]``, the rank from 1, 0 for documents that share no word."""
    ranks = np.empty(len(bm25), dtype=np.int64)
    ranks[np.argsort(-bm25, kind="stable")] = np.arange(1, len(bm25) + 1)
    return np.where(bm25 > 0.0, ranks, 0)


def likely_by_gradients(
    connection: Connection,
    home: Home,
    config: Config,
    checkpoint: StoredCheckpoint,
    loaded: Checkpoint,
    among: TrainedOn,
    query: np.ndarray,
    scope: str,
    most: int,
    lowest: bool,
    say: Callable[[str], None],
) -> np.ndarray:
    """Return float64 ``[N]``, the higher the likelier among those asked for, from stored projected gradients."""
    influence = config.influence
    folder = index_folder(home, checkpoint, scope, influence.seed, among.ids)

    def documents() -> TokenFile:
        home.gradients.mkdir(parents=True, exist_ok=True)
        return spill_tokens(connection, loaded, among.ids, home.gradients)

    return likely_documents(
        folder, loaded.model, documents, Queries([query]), scope, influence.damping, influence.seed, most, lowest, say
    )


def shortlist(among: TrainedOn, likely: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Return places int64, ascending: all, or the ``most`` with the highest values, ties drawn by a seeded hash."""
    if len(among) <= most:
        return np.arange(len(among))
    return np.sort(np.lexsort((seeded_keys(among.ids, seed, "influences"), -likely))[:most])
