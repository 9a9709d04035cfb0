"""Measurements of influence, kept: one document is measured once per checkpoint, reference and method.

The direction that documents are scored along (reference gradient through the inverse curvature) is fitted once for a
checkpoint and reference and saved as safetensors, so a document that arrives later meets the same measure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from winnow.attribution.batching import within_tokens
from winnow.config import Config
from winnow.errors import UserError
from winnow.identity import digest, ids_as_keys, ids_from_numpy, ids_to_numpy, seeded_keys
from winnow.stages.checkpoints import StoredCheckpoint, adamw_of
from winnow.stages.estimates import (
    ORACLE,
    Estimate,
    gradient_estimate,
    gradient_method,
    load_for_attribution,
    oracle_method,
)
from winnow.stages.pool import Pool
from winnow.stages.references import StoredSet
from winnow.store.judgements import all_texts
from winnow.store.store import Store, insert, load

if TYPE_CHECKING:
    from winnow.attribution.influence import GradientInfluence
    from winnow.store.store import Connection

log = logging.getLogger(__name__)

Scorer = Callable[[list[np.ndarray]], Any]
"""Token arrays to :class:`~winnow.attribution.scores.Scores`."""


class Prober:
    """Measures documents at one checkpoint on one reference, asking the store first.

    ``pool`` gives the curvature documents when the direction is not fitted yet. New measurements collect in ``rows``
    until :meth:`write` puts them into the store. ``flops`` counts the model operations spent.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        checkpoint: StoredCheckpoint,
        reference: StoredSet,
        pool: Pool,
        say: Callable[[str], None] = log.info,
    ) -> None:
        self.store, self.config, self.checkpoint, self.reference = store, config, checkpoint, reference
        self.pool, self.say = pool, say
        self.method = gradient_method(config, checkpoint)
        self.rows: list[pa.Table] = []
        self.flops = 0.0
        self._gradient: GradientInfluence | None = None
        self._loaded: Any = None

    def gradient(self, ids: np.ndarray, phase: str) -> np.ndarray:
        """Return the gradient influence of documents (uint8 ``[N, 16]``) as float64 ``[N]``, NaN where excluded."""
        estimate = gradient_estimate(self.config)
        return self._measure(ids, phase, self.method, estimate, lambda docs: self._direction().score(docs))

    def oracle(self, ids: np.ndarray) -> np.ndarray:
        """Return the one-step oracle's influence of documents as float64 ``[N]``, NaN where excluded."""
        return self._measure(ids, "oracle", oracle_method(self.config, self.checkpoint), ORACLE, self._probe)

    def write(self, connection: Connection) -> int:
        """Store the new measurements and return how many there are."""
        for rows in self.rows:
            insert(connection, "probes", rows)
        count = sum(len(rows) for rows in self.rows)
        self.rows.clear()
        return count

    def _measure(self, ids: np.ndarray, phase: str, method: str, estimate: Estimate, scorer: Scorer) -> np.ndarray:
        known = self.store.arrow(
            "SELECT doc_id, influence FROM probes"
            " WHERE checkpoint = $checkpoint AND reference = $reference AND method = $method ORDER BY doc_id",
            {"checkpoint": self.checkpoint.name, "reference": self.reference.digest, "method": method},
        )
        fresh_rows = [rows.select(["doc_id", "influence"]) for rows in self.rows if rows["method"][0].as_py() == method]
        known = pa.concat_tables([known, *fresh_rows])
        measured = dict(zip(_hex(ids_to_numpy(known["doc_id"])), _nan(known["influence"]), strict=True))
        missing = [index for index, key in enumerate(_hex(ids)) if key not in measured]
        if missing:
            rows = self._score(ids[missing], phase, method, estimate, scorer)
            self.rows.append(rows)
            measured |= zip(_hex(ids_to_numpy(rows["doc_id"])), _nan(rows["influence"]), strict=True)
        return np.array([measured[key] for key in _hex(ids)], np.float64)

    def _score(self, ids: np.ndarray, phase: str, method: str, estimate: Estimate, scorer: Scorer) -> pa.Table:
        ids = ids[np.argsort(ids_as_keys(ids), order=("high", "low"))]
        scores = scorer(self._tokens(ids_from_numpy(ids)))
        self.flops += scores.flops
        found = scores.to_arrow()
        count = len(ids)
        return pa.table(
            {
                "doc_id": ids_from_numpy(ids),
                "checkpoint": pa.array([self.checkpoint.name] * count, pa.string()),
                "reference": pa.array([self.reference.digest] * count, pa.string()),
                "method": pa.array([method] * count, pa.string()),
                **estimate.columns(count),
                "phase": pa.array([phase] * count, pa.string()),
                "influence": found["influence"],
                "loss": found["loss"],
                "tokens": found["tokens"],
                "reason": found["reason"],
            }
        )

    # -- the model and what is fitted to it -------------------------------------------------------------------------

    def _checkpoint(self) -> Any:
        if self._loaded is None:
            self._loaded = load_for_attribution(self.checkpoint)
        return self._loaded

    def _tokens(self, ids: pa.Array) -> list[np.ndarray]:
        """Return the tokens of documents (ids sorted), each followed by the end-of-text token as in training."""
        from winnow.train.tokenizer import tokenise

        tokenizer = self._checkpoint().tokenizer
        texts = all_texts(self.store, pa.table({"doc_id": ids}))
        end = np.int32(tokenizer.eos_token_id)
        tokens = [np.append(found, end) for found in tokenise(tokenizer, texts["text"])]
        self._require_counted(ids, np.array([len(found) for found in tokens]))
        return tokens

    def _require_counted(self, ids: pa.Array, lengths: np.ndarray) -> None:
        """Raise :class:`UserError` when a document (ids sorted) has other tokens than ``token_counts`` says."""
        with self.store.read() as connection:
            load(connection, "tokenised", pa.table({"doc_id": ids, "found": lengths}))
            wrong = connection.execute(
                "SELECT doc_id, found, tokens FROM tokenised JOIN token_counts USING (doc_id)"
                " WHERE tokenizer = $tokenizer AND found <> tokens ORDER BY doc_id LIMIT 1",
                {"tokenizer": self.checkpoint.tokenizer},
            ).fetchone()
        if wrong is not None:
            raise UserError(
                f"checkpoint '{self.checkpoint.name}': its tokenizer makes {wrong[1]} tokens of document {wrong[0]}, "
                f"token_counts has {wrong[2]}: the two are of different tokenizers; put the tokenizer back that the "
                "documents were counted with, or register the checkpoint under another name"
            )

    def _reference_tokens(self) -> list[np.ndarray]:
        """Return the tokens of the reference's selecting items, in order."""
        from winnow.train.tokenizer import tokenise

        texts = self.reference.texts("selecting")
        if not any(text.strip() for text in texts):
            raise UserError(
                f"the selecting part of reference '{self.reference.name}' is empty, so nothing can help or harm it: "
                "give reference.path a file with more text"
            )
        return tokenise(self._checkpoint().tokenizer, texts)

    def _moments(self) -> Any:
        """Return AdamW's state by parameter name, as the estimators and the oracle take it."""
        from winnow.attribution.adamw import optimizer_state

        state = self._checkpoint().optimizer_state
        return None if state is None else optimizer_state(state.step, state.exp_avg, state.exp_avg_sq)

    @property
    def _saved(self) -> Path:
        name = digest([self.checkpoint.weights_digest, self.reference.digest, self.method])[:16]
        return self.store.home.artifacts / f"influence-direction-{name}.safetensors"

    def _direction(self) -> GradientInfluence:
        from winnow.attribution.persist import load_influence, save_influence

        if self._gradient is None:
            model = self._checkpoint().model
            if self._saved.exists():
                self._gradient = load_influence(self._saved, model)
            else:
                self._gradient = self._fit(model)
                save_influence(self._gradient, self._saved)
        return self._gradient

    def _fit(self, model: Any) -> GradientInfluence:
        from winnow.attribution.influence import GradientInfluence

        settings = self.config.influence
        ids = self.pool.ids
        drawn = np.sort(
            np.argsort(seeded_keys(ids, settings.seed, "curvature"), kind="stable")[: settings.curvature_documents]
        )
        items = self._reference_tokens()
        reference = [items[position] for position in sorted(within_tokens(items, settings.reference_tokens))]
        self.say(
            f"fitting {settings.estimator} ({settings.scope}) on {len(drawn)} documents "
            f"and {len(reference)} reference items"
        )
        return GradientInfluence.fit(
            model,
            reference,
            self._tokens(ids_from_numpy(ids[drawn])),
            method=settings.estimator,
            scope=settings.scope,
            damping=settings.damping,
            optimizer_state=self._moments(),
            seed=settings.seed,
        )

    def _probe(self, docs: list[np.ndarray]) -> Any:
        from winnow.attribution.oracle import OneStepOracle

        loaded = self._checkpoint()
        oracle = OneStepOracle(
            loaded.model,
            self._reference_tokens(),
            adamw_of(self.checkpoint, self.config),
            self._moments(),
            reference_tokens=self.config.influence.oracle_reference_tokens,
            seed=self.config.influence.seed,
        )
        return oracle.probe(
            docs, lambda done, total: self.say(f"{done} of {total} oracle probes") if done % 24 == 0 else None
        )


def _hex(ids: np.ndarray) -> list[bytes]:
    raw = np.ascontiguousarray(ids, np.uint8).tobytes()
    return [raw[start : start + 16] for start in range(0, len(raw), 16)]


def _nan(column: pa.ChunkedArray) -> list[float]:
    return [np.nan if value is None else value for value in column.to_pylist()]
