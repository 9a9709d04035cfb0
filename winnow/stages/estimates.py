"""How an influence is estimated, by which name its measurements are stored, and the model that they are made with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from winnow.config import Config
from winnow.identity import digest
from winnow.stages.checkpoints import StoredCheckpoint, adamw_of, optimizer_digest, require_unchanged

if TYPE_CHECKING:
    from winnow.train.checkpoint import Checkpoint

GRADIENT_VERSION = "2"
ORACLE_VERSION = "2"
FIT_SETTINGS = {"estimator", "scope", "damping", "curvature_documents", "reference_tokens", "seed"}


@dataclass(frozen=True)
class Estimate:
    """How an influence is estimated: the columns of that name in ``probes``, ``influence_models`` and ``scores``."""

    estimator: str
    scope: str
    projection: int
    damping: float | None

    def columns(self, count: int) -> dict[str, pa.Array]:
        """Return the four columns for ``count`` rows."""
        return {
            "estimator": pa.array([self.estimator] * count, pa.string()),
            "scope": pa.array([self.scope] * count, pa.string()),
            "projection": pa.array([self.projection] * count, pa.int64()),
            "damping": pa.array([self.damping] * count, pa.float64()),
        }


ORACLE = Estimate("oracle", "all", 0, None)


def gradient_estimate(config: Config) -> Estimate:
    """Return how gradient influence is estimated under this configuration; directions are not projected."""
    return Estimate(config.influence.estimator, config.influence.scope, 0, config.influence.damping)


def gradient_measure(config: Config) -> str:
    """Return how gradient influence is measured at any checkpoint: estimator, scope, damping, fit and version."""
    fit = digest([config.influence.model_dump(mode="json", include=FIT_SETTINGS), GRADIENT_VERSION])[:8]
    return f"{config.influence.estimator}/{config.influence.scope}/{config.influence.damping:g}/{fit}"


def gradient_method(config: Config, checkpoint: StoredCheckpoint) -> str:
    """Return the name under which gradient influence at a checkpoint is stored.

    It is :func:`gradient_measure`, and after another slash the optimizer's state where the estimator reads it: a
    registered checkpoint is known by its weights and config.json, beside which the moments can be others.
    """
    from winnow.attribution.estimators import make_directional

    measure = gradient_measure(config)
    if not make_directional(config.influence.estimator).requires_second_moments:
        return measure
    return f"{measure}/{(optimizer_digest(checkpoint) or 'none')[:8]}"


def oracle_method(config: Config, checkpoint: StoredCheckpoint) -> str:
    """Return the name under which one-step oracle measurements at a checkpoint are stored."""
    from winnow.attribution.adamw import AdamW

    adamw = adamw_of(checkpoint, config)
    settings: list[Any] = [
        adamw.learning_rate,
        config.influence.oracle_reference_tokens,
        config.influence.seed,
        optimizer_digest(checkpoint),
        ORACLE_VERSION,
    ]
    if adamw != AdamW(adamw.learning_rate):
        settings.append([*adamw.betas, adamw.eps, adamw.weight_decay, adamw.clip])
    return f"oracle/{digest(settings)[:8]}"


def load_for_attribution(checkpoint: StoredCheckpoint) -> Checkpoint:
    """Return a checkpoint with attention that hooks can follow.

    Raises :class:`UserError` when weights or tokenizer changed after it was registered, the tokenizer does not fit the
    model, or the model is no causal one.
    """
    from winnow.attribution.causal import require_causal
    from winnow.train.checkpoint import load_checkpoint

    require_unchanged(checkpoint)
    loaded = load_checkpoint(checkpoint.path, attention="eager")
    require_causal(loaded.model)
    return loaded
