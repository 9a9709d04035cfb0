"""An estimator's influence of documents on one text, with the curvature of a checkpoint measured once and kept.

The factors lie in ``store/gradients`` of the home, as stored gradients do (:mod:`winnow.stages.gradient_index`), and go
with them: at a takedown, and by ``winnow gc`` when they are old.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.estimators import Directional, Estimator
from winnow.attribution.run import Queries, Settings, TrainingRun
from winnow.attribution.scores import TOO_SHORT
from winnow.config import Config
from winnow.home import Home
from winnow.identity import digest, digest_ids, seeded_keys
from winnow.stages.checkpoints import StoredCheckpoint
from winnow.stages.estimates import GRADIENT_VERSION
from winnow.stages.trained_on import TrainedOn

if TYPE_CHECKING:
    from winnow.attribution.kronecker import Curvature

NOT_FINITE = "the loss or the gradient is not finite"


def drawn_for_curvature(among: TrainedOn, config: Config) -> np.ndarray:
    """Return places int64, ascending, of the documents that curvature is measured on, whatever the shortlist."""
    keys = seeded_keys(among.ids, config.influence.seed, "curvature")
    return np.sort(np.argsort(keys, kind="stable")[: config.influence.curvature_documents])


def curvature_file(home: Home, checkpoint: StoredCheckpoint, scope: str, seed: int, ids: np.ndarray) -> Path:
    """Return where the factors measured on documents (uint8 ``[N, 16]``) at a checkpoint lie."""
    made_of = ["curvature", GRADIENT_VERSION, checkpoint.weights_digest, checkpoint.tokenizer, scope, seed]
    return home.gradients / digest([*made_of, digest_ids(ids)])[:16] / "curvature.safetensors"


def influence_on(
    estimator: Estimator,
    run: TrainingRun,
    query: Queries,
    settings: Settings,
    fitted_on: Callable[[], Sequence[np.ndarray]],
    kept: Path,
) -> tuple[np.ndarray, Sequence[str | None]]:
    """Return the influence of the run's documents, float64 ``[N]``, NaN where there is none, and then the reason.

    What streams is fitted to the documents ``fitted_on`` alone, so that the curvature costs the same in any corpus; it
    is read from the file ``kept``, or written there.
    """
    if isinstance(estimator, Directional):
        from winnow.attribution.directional import fit_directional, score_along

        known = _known_curvature(kept) if estimator.requires_curvature else None
        needed = estimator.requires_curvature and known is None
        fitted: Any = fit_directional(estimator, replace(run, documents=fitted_on() if needed else ()), settings, known)
        if needed:
            _keep(fitted.context.curvature, kept)
        found = score_along(fitted.model, run.documents, fitted.directions(query.tokens), settings.scope)
        return found.influence[0], found.reason
    influence = estimator.fit(run, settings).score(query)[0]
    lengths = [len(tokens) for tokens in run.documents]
    short = [TOO_SHORT if length < 2 else NOT_FINITE for length in lengths]
    return influence, [None if np.isfinite(value) else why for value, why in zip(influence, short, strict=True)]


def _known_curvature(path: Path) -> Curvature | None:
    from winnow.attribution.kronecker import Curvature

    return Curvature.load(path) if path.exists() else None


def _keep(curvature: Curvature, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    curvature.save(temporary)
    temporary.replace(path)
