"""The settings of AdamW that a checkpoint was reached with, and its state by parameter name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

    from winnow.attribution.run import Settings, TrainingRun

ADAMW_OPTIONS = frozenset({"learning_rate", "beta1", "beta2", "weight_decay", "clip"})
"""Those of an estimator's options that :func:`run_optimizer` reads."""


@dataclass(frozen=True)
class AdamW:
    """The training run's optimiser settings at the checkpoint; the defaults are MATES's.

    ``no_decay`` names the parameters that the run exempts from weight decay; None exempts those of one dimension
    (gains and biases), as :mod:`winnow.train` does.
    """

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    no_decay: frozenset[str] | None = None

    @classmethod
    def recorded(cls, record: Mapping[str, Any] | None, learning_rate: float) -> AdamW:
        """Return what a checkpoint recorded of its optimiser, see :meth:`winnow.train.loop.TrainSettings.record`.

        Where it recorded nothing, or only the rate: the usual settings, at ``learning_rate``. Raises
        :class:`UserError` for a record that is not one.
        """
        record = record or {}
        usual = cls(learning_rate)
        try:
            first, second = record.get("betas", usual.betas)
            return cls(
                float(record.get("learning_rate", learning_rate)),
                (float(first), float(second)),
                float(record.get("epsilon", usual.eps)),
                float(record.get("weight_decay", usual.weight_decay)),
                float(record.get("clip", usual.clip)),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"the checkpoint's record of its optimizer cannot be read ({error}); mend or remove `optimizer` in its "
                "winnow.json (`log_history` in trainer_state.json)"
            ) from error

    def decay(self, name: str, parameter: torch.Tensor) -> float:
        """Return the weight decay of one parameter."""
        exempt = parameter.ndim < 2 if self.no_decay is None else name in self.no_decay
        return 0.0 if exempt else self.weight_decay


def run_optimizer(run: TrainingRun, settings: Settings) -> AdamW:
    """Return AdamW as a run's last checkpoint was reached with it.

    Taken from ``settings.options`` where there: ``learning_rate`` (else that of the checkpoint's step), ``beta1``,
    ``beta2``, ``weight_decay``, ``clip``; else what the checkpoint recorded, else the usual. Raises
    :class:`UserError` on a rate that moves nothing.
    """
    given = settings.options
    rate = given.get("learning_rate")
    rate = run.final.known_rate if rate is None else rate
    usual = run.final.adamw or AdamW(rate)
    if not rate > 0.0:
        raise UserError(f"learning rate {rate} of {run.final.name} takes no step; set the option learning_rate")
    betas = (given.get("beta1", usual.betas[0]), given.get("beta2", usual.betas[1]))
    decay, clip = given.get("weight_decay", usual.weight_decay), given.get("clip", usual.clip)
    return AdamW(rate, betas=betas, eps=usual.eps, weight_decay=decay, clip=clip, no_decay=usual.no_decay)


def optimizer_state(
    step: int, exp_avg: Mapping[str, torch.Tensor], exp_avg_sq: Mapping[str, torch.Tensor]
) -> dict[str, dict[str, Any]]:
    """Return the state by parameter name that this package takes, from a checkpoint's moments and step count."""
    return {name: {"exp_avg": exp_avg[name], "exp_avg_sq": exp_avg_sq[name], "step": step} for name in exp_avg}
