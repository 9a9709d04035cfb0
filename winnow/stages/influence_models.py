"""The influence model of a checkpoint: fitted to its opening probes, compared with the one of the checkpoint before."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from winnow.config import Config
from winnow.errors import UserError
from winnow.identity import digest_file, ids_to_numpy
from winnow.stages.estimates import gradient_estimate, gradient_measure, gradient_method, oracle_method
from winnow.stages.features import SIGNALS, features, floats
from winnow.stages.influence import model_path, opening_round, texts_in_order
from winnow.stages.loop import Loop
from winnow.store.store import Store, insert_row

if TYPE_CHECKING:
    from winnow.attribution.surrogates.interface import Surrogate
    from winnow.attribution.surrogates.model import InfluenceModel
    from winnow.store.store import Connection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedModel:
    """An influence model with what it is called, where it lies, and whether selection may rank by it.

    ``former``: the model of the checkpoint before, which it was compared with; None where there is none.
    """

    name: str
    loop: Loop
    model: InfluenceModel
    path: Path
    oracle_probes: int
    oracle_spearman: float
    former: str | None = None

    @property
    def used(self) -> bool:
        return self.why_not is None

    @property
    def why_not(self) -> str | None:
        floor = self.loop.config.influence.spearman_floor
        if self.model.reason:
            return self.model.reason
        if self.model.spearman < floor:
            return f"held-out Spearman {self.model.spearman:.3f} is below the floor {floor:g}"
        return None

    @property
    def stale(self) -> bool | None:
        """Whether the former model ranks this checkpoint's probes too badly beside its own, both on the same documents.

        None where there is none to compare, or the own model is itself of no use.
        """
        former = self.model.former
        if former is None or not self.used:
            return None
        return former.spearman < self.loop.config.influence.stale_below * former.own

    @property
    def summary(self) -> str:
        interval = f"[{self.model.spearman_low:.3f}, {self.model.spearman_high:.3f}]"
        verdict = "used" if self.used else f"not used: {self.why_not}"
        former = self.model.former
        compared = "" if former is None else f"; the former model reaches {former.spearman:.3f}, stale: {self.stale}"
        return (
            f"influence model {self.name} ({self.model.surrogate}): "
            f"held-out Spearman {self.model.spearman:.3f} {interval} on {self.model.probes} probes ({verdict}); "
            f"gradient against oracle {self.oracle_spearman:.3f} on {self.oracle_probes}{compared}"
        )

    def write(self, connection: Connection) -> None:
        former, interval = self.model.former, self.model.interval
        connection.execute("DELETE FROM influence_models WHERE model = $name", {"name": self.name})
        insert_row(
            connection,
            "influence_models",
            model=self.name,
            checkpoint=self.loop.checkpoint.name,
            reference=self.loop.reference.digest,
            method=gradient_method(self.loop.config, self.loop.checkpoint),
            **asdict(gradient_estimate(self.loop.config)),
            surrogate=self.model.surrogate,
            loss=self.model.loss,
            probes=self.model.probes,
            held_out=self.model.held_out,
            spearman=self.model.spearman,
            spearman_low=self.model.spearman_low,
            spearman_high=self.model.spearman_high,
            interval=interval if np.isfinite(interval) else None,
            former=self.former if former else None,
            warm=self.model.warm,
            former_spearman=former.spearman if former else None,
            former_low=former.low if former else None,
            former_high=former.high if former else None,
            former_own=former.own if former else None,
            stale=self.stale,
            oracle_probes=self.oracle_probes,
            oracle_spearman=self.oracle_spearman,
            used=self.used,
            reason=self.why_not,
            path=f"artifacts/{self.path.name}",
        )


def fit_model(store: Store, loop: Loop, encoder: str = "") -> FittedModel:
    """Fit the influence model to the opening probes of the loop's checkpoint and save it under its digest.

    ``encoder`` is where the configured one lies, for a model that fine-tunes it.
    """
    from winnow.attribution.correlation import spearman
    from winnow.attribution.surrogates.files import load_model, save_model
    from winnow.attribution.surrogates.model import fit_influence_model

    measured = opening_round(store, loop, gradient_method(loop.config, loop.checkpoint))
    oracle = opening_round(store, loop, oracle_method(loop.config, loop.checkpoint))
    embeddings, signals = features(store, loop.clustering.model, measured)
    surrogate, former = surrogate_of(loop.config, encoder), former_model(store, loop)
    previous = None
    if former is not None:
        try:
            previous = load_model(model_path(store, former), encoder)
        except UserError as error:  # one of an older Winnow, say: there is nothing to start from
            log.warning("the former influence model is left aside: %s", error)
    reads = surrogate.reads_texts or (previous is not None and previous.reads_texts)
    model = fit_influence_model(
        ids_to_numpy(measured["doc_id"]),
        embeddings,
        signals,
        floats(measured["influence"]),
        surrogate=surrogate,
        signal_names=SIGNALS,
        texts=texts_in_order(store, measured) if reads else None,
        encoder=loop.clustering.model,
        previous=previous,
        warm=loop.config.influence.warm_start,
    )
    by_gradient = dict(zip(measured["doc_id"].to_pylist(), floats(measured["influence"]), strict=True))
    by_oracle = dict(zip(oracle["doc_id"].to_pylist(), floats(oracle["influence"]), strict=True))
    pairs = [
        (by_gradient[doc], value) for doc, value in by_oracle.items() if np.isfinite([by_gradient[doc], value]).all()
    ]
    agreement = spearman(*map(np.array, zip(*pairs, strict=True))) if len(pairs) > 2 else 0.0
    store.home.artifacts.mkdir(parents=True, exist_ok=True)
    temporary = store.home.artifacts / f".influence-model-{os.getpid()}.tmp"
    save_model(model, temporary)
    name = digest_file(temporary)[:16]
    path = model_path(store, name)
    temporary.replace(path)
    return FittedModel(name, loop, model, path, len(pairs), agreement, former)


def surrogate_of(config: Config, encoder: str) -> Surrogate:
    """Return the configured method of influence models. Raises :class:`UserError` for a loss that it does not have."""
    from winnow.attribution.surrogates import make_surrogate

    settings = config.influence
    return make_surrogate(
        settings.surrogate,
        settings.surrogate_loss,
        seed=settings.seed,
        encoder=encoder,
        max_tokens=config.encoder.max_tokens,
    )


FORMER = """
SELECT m.checkpoint, m.model
FROM influence_models m LEFT JOIN stage_keys k ON k.stage = 'influence_models' AND k.output = m.model
WHERE m.reference = $reference AND (m.method = $measure OR starts_with(m.method, $measure || '/'))
ORDER BY coalesce(m.surrogate = $surrogate, false), k.finished_at NULLS FIRST, m.model
"""
"""Of the models of a checkpoint, the last one is the best to start from."""


def former_model(store: Store, loop: Loop) -> str | None:
    """Return the influence model of the nearest checkpoint that the loop's was trained from, or None.

    It must be of the same reference and the same measure of influence. Of several, one of the configured method comes
    first, then the one fitted last.
    """
    parents = dict(store.query("SELECT checkpoint, parent FROM checkpoints"))
    known = dict(
        store.query(
            FORMER,
            {
                "reference": loop.reference.digest,
                "measure": gradient_measure(loop.config),
                "surrogate": loop.config.influence.surrogate,
            },
        )
    )
    seen, checkpoint = {loop.checkpoint.name}, parents.get(loop.checkpoint.name)
    while checkpoint is not None and checkpoint not in seen:
        if checkpoint in known and model_path(store, known[checkpoint]).exists():
            return str(known[checkpoint])
        seen.add(checkpoint)
        checkpoint = parents.get(checkpoint)
    return None


@dataclass(frozen=True)
class Freshness:
    """How the former model ranked the probes of the newest checkpoint that has an influence model."""

    model: str
    former: str
    spearman: float
    low: float
    high: float
    own: float
    stale: bool

    @property
    def told(self) -> str:
        """What a person is to do about it."""
        found = (
            f"the model of the checkpoint before ranks this one's probes by {self.spearman:.3f} "
            f"[{self.low:.3f}, {self.high:.3f}], a model fitted to them by {self.own:.3f}"
        )
        if not self.stale:
            return found
        return f"{found}: influence moves faster than checkpoints follow each other; train shorter stages"


FRESHNESS = """
SELECT model, former, former_spearman, former_low, former_high, former_own, stale
FROM influence_models m JOIN checkpoints c USING (checkpoint)
LEFT JOIN stage_keys k ON k.stage = 'influence_models' AND k.output = m.model
ORDER BY c.sequence DESC, k.finished_at DESC NULLS LAST, m.model LIMIT 1
"""


def freshness(store: Store) -> Freshness | None:
    """Return that of the newest checkpoint with a model, or None where it had no former one to compare."""
    rows = store.query(FRESHNESS)
    return Freshness(*rows[0]) if rows and rows[0][-1] is not None else None
