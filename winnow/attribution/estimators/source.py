r"""SOURCE: influence through the segments of training, each with its own curvature, learning rate and gradients.

Training is cut into L segments; the checkpoints of segment l give its mean curvature H_l, its mean gradient g_i,l of
every document and its mean learning rate e_l, over K_l steps. With u_L = g_q at the last checkpoint, backwards,

    score += <f(H_l) u_l, g_i,l> / N,      f(s) = (1 - exp(-e_l K_l s)) / s,   e_l K_l at s = 0
    u_{l-1} = b(H_l) u_l,                  b(s) = exp(-e_l K_l s),

f being what is left of the segment's steps and b what later steps undo of earlier ones, both taken in the EK-FAC
eigenbasis of the segment. Small e K gives TracIn's sum, large e K the inverse curvature product of the last segment.
The method has no damping: directions of no curvature are bounded by e K.

H is the Fisher of the mean token loss: Lambda times the mean positions of a document, since Lambda holds whole
documents' sampled gradients. Under AdamW a layer's step is eta / sqrt(v) times the gradient: where the checkpoints
kept their optimiser's state, e of a layer is the learning rate over the layer's mean sqrt(v); ``options["sgd"] = 1``
leaves it alone, and ``options["momentum"]`` (0) divides it by 1 - momentum. ``options["segments"]`` (3);
``options["beta2"]`` of the optimiser (as recorded, else 0.95).

Source: Bae et al. 2024 (SOURCE), section 3.2 and algorithm 1; the scalar for Adam's preconditioner is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.estimators import Estimator, Fitted
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

    from winnow.attribution.kronecker import Curvature
    from winnow.attribution.run import Queries, RunCheckpoint, Settings, TrainingRun

SEGMENTS = 3


@dataclass(frozen=True)
class Segment:
    """``checkpoints`` of one segment, its ``curvature``, and e K by site."""

    checkpoints: tuple[RunCheckpoint, ...]
    curvature: Curvature
    travelled: dict[str, float]


@dataclass(frozen=True)
class FittedSource(Fitted):
    """The run and its segments, oldest first; models are loaded one at a time."""

    run: TrainingRun
    scope: str
    segments: tuple[Segment, ...]

    def score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import in_blocks

        # What a segment is asked along, and what the one before it will be.
        numbers = sum(layer.eigenvalues.numel() for layer in self.segments[-1].curvature.layers.values())
        return in_blocks(queries, numbers, self._score, held=2)

    def _score(self, queries: Queries) -> np.ndarray:
        from winnow.attribution.directional import query_gradients, score_along

        documents = self.run.documents
        total = np.zeros((len(queries), len(documents)))
        ahead = query_gradients(self.run.final.load(), queries.tokens, self.scope)
        for segment in reversed(self.segments):
            directions = {}
            for name, layer in segment.curvature.layers.items():
                curved = layer.eigenvalues.double() * _mean_positions(segment.curvature)
                inner, outer = segment_factors(curved, segment.travelled[name])
                rotated = layer.rotate(ahead[name])
                directions[name] = layer.rotate_back(rotated * inner).float()
                ahead[name] = layer.rotate_back(rotated * outer).float()
            for checkpoint in segment.checkpoints:
                found = score_along(checkpoint.load(), documents, directions, self.scope).influence
                total += found / (len(segment.checkpoints) * len(documents))
        return total


class Source(Estimator, name="source", needs=frozenset({"checkpoints"})):
    """Unrolled training, approximated segment by segment."""

    uses = frozenset({"scope"})
    options = frozenset({"segments", "momentum", "sgd", "beta2"})

    def _fit(self, run: TrainingRun, settings: Settings) -> FittedSource:
        count = min(int(settings.options.get("segments", SEGMENTS)), len(run.checkpoints))
        if count < 1:
            raise UserError(f"source with {count} segments; give at least 1")
        parts = np.array_split(np.arange(len(run.checkpoints)), count)
        segments = [_fit_segment(run, [run.checkpoints[place] for place in part], settings) for part in parts]
        return FittedSource(run, settings.scope, tuple(segments))


def segment_factors(curvature: torch.Tensor, travelled: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return f(s) = (1 - exp(-x s)) / s and b(s) = exp(-x s) of eigenvalues s >= 0, float64, for x = ``travelled``."""
    import torch

    spent = travelled * curvature
    inner = torch.where(spent > 0.0, -torch.expm1(-spent) / curvature.clamp(min=1e-300), travelled)
    return inner, torch.exp(-spent)


def _fit_segment(run: TrainingRun, checkpoints: Sequence[RunCheckpoint], settings: Settings) -> Segment:
    """Measure the factors over all checkpoints of a segment: one basis, two passes a checkpoint."""
    import torch

    from winnow.attribution.capture import capturing, context_length
    from winnow.attribution.curvature import Covariances, add_covariances, add_moments, assemble, eigenbases
    from winnow.attribution.second_moments import adam_second_moments

    momentum = settings.options.get("momentum", 0.0)
    if not 0.0 <= momentum < 1.0:
        raise UserError(f"source's momentum {momentum}: it lies between 0 and 1")
    sums, moments, rates = Covariances(), dict[str, torch.Tensor](), list[dict[str, float]]()
    for checkpoint in checkpoints:
        model = checkpoint.load()
        with capturing(model, settings.scope) as capture:
            add_covariances(sums, capture, run.documents, context_length(model), seed=settings.seed)
            scales = dict.fromkeys(capture.sites, 1.0)
            if checkpoint.optimizer is not None and not settings.options.get("sgd", 0):
                beta2 = settings.options.get("beta2", checkpoint.betas[1])
                second = adam_second_moments(capture.sites, checkpoint.optimizer, beta2)
                scales = {name: max(float(value.sqrt().mean()), 1e-12) for name, value in second.items()}
            rates.append({name: checkpoint.known_rate / (scale * (1 - momentum)) for name, scale in scales.items()})
    bases = eigenbases(sums)
    for checkpoint in checkpoints:
        model = checkpoint.load()
        with capturing(model, settings.scope) as capture:
            add_moments(moments, bases, capture, run.documents, context_length(model), seed=settings.seed)
    steps = sum(checkpoint.steps for checkpoint in checkpoints)
    travelled = {name: steps * float(np.mean([rate[name] for rate in rates])) for name in bases}
    return Segment(tuple(checkpoints), assemble(sums, bases, moments, "sampled", settings.seed), travelled)


def _mean_positions(curvature: Curvature) -> float:
    return curvature.positions / curvature.documents
