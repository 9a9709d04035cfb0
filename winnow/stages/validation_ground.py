"""What the validations of attribution at a checkpoint share: its model, a sample of documents, queries and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from winnow.attribution.capture import context_length
from winnow.attribution.estimators import make_estimator
from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun
from winnow.attribution.validation.fact_tracing import Fact
from winnow.config import Config
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import ids_as_keys, ids_to_numpy, seeded_keys
from winnow.stages.checkpoints import StoredCheckpoint
from winnow.stages.estimates import load_for_attribution
from winnow.stages.trained_on import texts_of_documents, trained_on
from winnow.stages.training_run import line_of, run_checkpoint, tokens_of

if TYPE_CHECKING:
    from winnow.store.store import Connection
    from winnow.train.checkpoint import Checkpoint

QUERIES = 8
LEAST_TOKENS = 8
PROJECTION = 16

REFERENCE = """
SELECT text FROM reference_items SEMI JOIN (SELECT digest FROM reference_sets WHERE kind = 'reference') USING (digest)
WHERE part = 'selecting' ORDER BY text
"""
"""The part that influence is measured on; the judging part stays unseen by what is chosen."""


def projection_of(name: str) -> int:
    """Return what an estimator projects gradients to here, 0 for one that does not."""
    return PROJECTION if make_estimator(name).projects else 0


@dataclass(frozen=True)
class Ground:
    """The checkpoint, its model, and the documents and queries that all checks share."""

    connection: Connection
    home: Home
    config: Config
    stored: StoredCheckpoint
    count: int
    facts: tuple[Fact, ...]

    @cached_property
    def references(self) -> tuple[str, ...]:
        """Digests of the reference sets that the queries are items of."""
        asked = "SELECT digest FROM reference_sets WHERE kind = 'reference' ORDER BY digest"
        return tuple(digest for (digest,) in self.connection.execute(asked).fetchall())

    @property
    def measured(self) -> dict[str, Any]:
        """How everything is measured here."""
        own = self.config.influence
        told = {"scope": own.scope, "damping": own.damping, "seed": own.seed}
        return {"checkpoint": self.stored.name, "reference": ",".join(self.references), **told}

    @cached_property
    def loaded(self) -> Checkpoint:
        return load_for_attribution(self.stored)

    @cached_property
    def context(self) -> int:
        return context_length(self.loaded.model)

    @cached_property
    def ids(self) -> np.ndarray:
        """uint8 ``[N, 16]``, sorted: a seeded sample of what the checkpoint was trained on."""
        return self.drawn(trained_on(self.connection, self.config, self.stored).ids, self.count)

    @cached_property
    def run(self) -> TrainingRun:
        texts = self.texts(self.ids)
        return TrainingRun(self.tokens(texts), (self.state(self.stored, self.loaded),), texts)

    @cached_property
    def queries(self) -> Queries:
        """Selecting items of the reference, evenly spaced from the shortest of :data:`LEAST_TOKENS` to the longest."""
        texts = [text for (text,) in self.connection.execute(REFERENCE).fetchall()]
        tokens = [ids[: self.context] for ids in self.tokens(texts)]
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        order = order[lengths[order] >= LEAST_TOKENS]
        if not len(order):
            raise UserError(f"no item of the reference set has {LEAST_TOKENS} tokens; the queries are taken from it")
        chosen = np.unique(order[np.linspace(0, len(order) - 1, QUERIES).round().astype(np.int64)]).tolist()
        return Queries([tokens[place] for place in chosen], [texts[place] for place in chosen])

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """Float64 ``[Q, N]`` by the configured estimator and by BM25."""
        name = self.config.influence.estimator
        return {one: self.score(one, self.run, self.queries) for one in dict.fromkeys((name, "bm25"))}

    @property
    def settings(self) -> Settings:
        own = self.config.influence
        return Settings(scope=own.scope, damping=own.damping, projection=PROJECTION, seed=own.seed)

    def score(self, name: str, run: TrainingRun, queries: Queries) -> np.ndarray:
        estimator = make_estimator(name)
        lacking = estimator.missing(run)
        if lacking is not None:
            raise UserError(f"estimator '{name}' needs the run's {lacking}, which this checkpoint has not")
        return estimator.fit(run, self.settings).score(queries)

    def drawn(self, ids: np.ndarray, count: int) -> np.ndarray:
        """Return the ``count`` ids with the lowest seeded keys, sorted."""
        chosen = ids[np.argsort(seeded_keys(ids, self.config.influence.seed, "validation"), kind="stable")[:count]]
        return chosen[np.argsort(ids_as_keys(chosen), order=("high", "low"))]

    def texts(self, ids: np.ndarray) -> list[str]:
        """Return the texts of sorted ids."""
        found = pa.concat_tables(list(texts_of_documents(self.connection, ids)))
        order = np.argsort(ids_as_keys(ids_to_numpy(found["doc_id"])), order=("high", "low"))
        return found["text"].take(pa.array(order)).to_pylist()

    def tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return tokens with the end-of-text token, as training reads them."""
        end = np.int32(self.loaded.tokenizer.eos_token_id)
        return [np.append(ids, end) for ids in tokens_of(self.loaded, texts)]

    def losses(self, checkpoint: StoredCheckpoint, documents: Sequence[np.ndarray]) -> np.ndarray:
        from winnow.train.evaluate import evaluate_loss

        model = self.loaded.model if checkpoint == self.stored else load_for_attribution(checkpoint).model
        return evaluate_loss(model, documents, self.context, all_windows=False).per_item

    def state(self, checkpoint: StoredCheckpoint, loaded: Checkpoint | None = None) -> RunCheckpoint:
        return run_checkpoint(checkpoint, self.config, loaded)

    def line(self) -> list[StoredCheckpoint]:
        """Return the checkpoints of the line that are still there, the oldest first, the present one last."""
        return line_of(self.connection, self.home, self.stored)
