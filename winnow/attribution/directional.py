r"""Influence of documents on any number of queries at once, streamed: one forward and one backward pass a batch.

    influence(q, x) = sum over sites <V_q, G_x>,    V_q = P g_q

where g_q is the gradient of the query's mean token loss, P the estimator's preconditioner and G_x the gradient of the
document's mean token loss. **Positive = helpful**: a gradient step on x lowers the loss of q. The products are taken in
the backward pass, site by site, and what the site saw is freed at once: memory is that of the model's own training step
and the directions, 4 bytes x parameters x queries, whatever the number of documents.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.batching import batches, check_documents, packed_batches, tokens_used
from winnow.attribution.capture import Capture, capturing, context_length, vocabulary_size
from winnow.attribution.curvature import Labels, fit_curvature
from winnow.attribution.estimators import Context, Directional, Fitted
from winnow.attribution.ghost import SiteGradients, finite_rows
from winnow.attribution.run import Queries, Settings, TrainingRun, require_queries
from winnow.attribution.scores import GRADIENT_NOT_FINITE, LOSS_NOT_FINITE, TOO_SHORT, Progress
from winnow.attribution.second_moments import adam_second_moments
from winnow.attribution.sites import Site
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from winnow.attribution.kronecker import Curvature

log = logging.getLogger(__name__)
DIRECTION_BYTES = 2 << 30
"""Of the queries' gradients that are held at once, by every estimator; more queries take more passes over documents."""
_QUERIES_AT_ONCE = 16  # preconditioned together in float64


@dataclass(frozen=True)
class MultiScores:
    """Influence of N documents on Q queries at one checkpoint; **positive = helpful**.

    ``influence`` float64 ``[Q, N]``, NaN where there is none: for a document with a ``reason`` (else None) and for a
    query whose direction is not finite. ``loss``, ``tokens``, ``truncated`` and ``flops`` as in
    :class:`winnow.attribution.scores.Scores`.
    """

    influence: np.ndarray
    loss: np.ndarray
    tokens: np.ndarray
    truncated: np.ndarray
    reason: tuple[str | None, ...]
    flops: float = 0.0


def query_gradients(
    model: nn.Module, docs: Sequence[np.ndarray], scope: str = "blocks", *, dtype: str = "float32"
) -> dict[str, torch.Tensor]:
    """Return the gradient of every query's mean token loss, float32 ``[Q, O, I]`` by site.

    ``docs``: token arrays int ``[n]``, cut to the model's context. A query without a finite loss and gradient (or of
    fewer than two tokens) has NaN. Raises :class:`UserError` for tokens outside the vocabulary, an unknown scope, no
    queries at all, or a model that is not causal.
    """
    import torch

    require_queries(docs)
    check_documents(docs, vocabulary_size(model))
    with capturing(model, scope, dtype=dtype) as capture:
        found = {
            name: torch.full((len(docs), *site.shape), torch.nan, device=capture.device)
            for name, site in capture.sites.items()
        }
        for batch in batches(docs, context_length(model)):
            rows = torch.from_numpy(batch.rows).to(capture.device)
            usable = torch.ones(len(rows), dtype=torch.bool, device=capture.device)

            def keep(site: Site, gradients: SiteGradients, rows: Any = rows, usable: Any = usable) -> None:
                for start, stop in gradients.chunks():
                    part = gradients.rows(start, stop)[: len(rows)]
                    found[site.name][rows, start:stop] = part
                    usable &= finite_rows(part)

            usable &= torch.isfinite(capture.stream(batch, keep, hide=True))
            for value in found.values():
                value[rows[~usable]] = torch.nan
    return found


def score_along(
    model: nn.Module,
    docs: Sequence[np.ndarray],
    directions: Mapping[str, torch.Tensor],
    scope: str = "blocks",
    dtype: str = "float32",
    *,
    packed: bool = False,
    attention: str | None = None,
    progress: Progress | None = None,
) -> MultiScores:
    """Return <V_q, G_i> summed over sites for every query and document, in the order given.

    ``directions``: float32 ``[Q, O, I]`` by site of ``scope``. Unless ``packed`` (several documents in a window, less
    padding), a document's values do not depend, to the bit, on the others given or on their order. ``dtype`` and
    ``attention`` as in :func:`winnow.attribution.capture.capturing`. Raises :class:`UserError` for tokens outside the
    vocabulary, or directions that are not those of the scope.
    """
    import torch

    check_documents(docs, vocabulary_size(model))
    context, count = context_length(model), len(docs)
    queries = len(next(iter(directions.values()))) if directions else 0
    influence, loss = np.full((queries, count), np.nan), np.full(count, np.nan)
    reason: list[str | None] = [TOO_SHORT] * count
    tokens = tokens_used(docs, context)
    started, done, positions = time.monotonic(), int((tokens < 2).sum()), 0
    with capturing(model, scope, dtype=dtype, attention=attention) as capture:
        _require_same(capture.sites, directions, scope)
        # In mixed precision the directions are too, or their products would cost more than both passes.
        product = torch.bfloat16 if capture.dtype == "bfloat16" else torch.float32
        directions = {name: value.to(capture.device, product) for name, value in directions.items()}
        for batch in (packed_batches if packed else batches)(docs, context):
            losses, values = _products(capture, batch, directions)
            rows = batch.rows
            broken = _broken(values, directions) | ~np.isfinite(losses)
            influence[:, rows], loss[rows] = np.where(broken, np.nan, values.T), losses
            for row, index in enumerate(rows):
                why = GRADIENT_NOT_FINITE if np.isfinite(losses[row]) else LOSS_NOT_FINITE
                reason[index] = why if broken[row] else None
            positions += batch.inputs.size
            done += len(rows)
            if progress is not None:
                progress(done, count)
    seconds = time.monotonic() - started
    log.info("%d documents scored in %.1f s (%.0f a second)", count, seconds, count / max(seconds, 1e-9))
    lengths = np.fromiter((len(doc) for doc in docs), dtype=np.int64, count=count)
    flops = 6.0 * sum(value[0].numel() for value in directions.values()) * positions if queries else 0.0
    return MultiScores(influence, loss, tokens, lengths > context, tuple(reason), flops)


def fit_directional(
    estimator: Directional, run: TrainingRun, settings: Settings, curvature: Curvature | None = None
) -> Fitted:
    """Fit what the preconditioner requires at the run's last checkpoint; scoring then streams over its documents.

    Curvature is measured on the run's documents unless it is given, second moments are the optimiser's.
    """
    model = run.final.load()
    check_documents(run.documents, vocabulary_size(model))
    moments = None
    with capturing(model, settings.scope) as capture:
        if estimator.requires_curvature and curvature is None:
            labels: Labels = "text" if settings.options.get("empirical") else "sampled"
            curvature = fit_curvature(capture, run.documents, context_length(model), labels=labels, seed=settings.seed)
        if estimator.requires_second_moments:
            beta2 = settings.options.get("beta2", run.final.betas[1])
            moments = adam_second_moments(capture.sites, run.final.optimizer, beta2, capture.device)
    context = Context(settings.damping, curvature, moments)
    return _FittedDirectional(estimator, run.documents, model, settings.scope, context)


@dataclass(frozen=True)
class _FittedDirectional(Fitted):
    estimator: Directional
    documents: Sequence[np.ndarray]
    model: nn.Module
    scope: str
    context: Context

    def score(self, queries: Queries) -> np.ndarray:
        return in_blocks(queries, scope_size(self.model, self.scope), self._score)

    def _score(self, queries: Queries) -> np.ndarray:
        return score_along(self.model, self.documents, self.directions(queries.tokens), self.scope).influence

    def _damped(self, damping: float) -> Fitted:
        return replace(self, context=replace(self.context, damping=damping))

    def directions(self, docs: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """Return V, float32 ``[Q, O, I]`` by site; NaN for a query that has no finite gradient."""
        found = query_gradients(self.model, docs, self.scope)
        for start in range(0, len(docs), _QUERIES_AT_ONCE):
            part = slice(start, start + _QUERIES_AT_ONCE)
            turned = self.estimator.precondition({name: g[part].double() for name, g in found.items()}, self.context)
            for name, value in turned.items():
                found[name][part] = value.float()
        return found


def in_blocks(queries: Queries, numbers: int, score: Callable[[Queries], np.ndarray], held: int = 1) -> np.ndarray:
    """Return ``score`` of all queries, float64 ``[Q, N]``, asked of as many at a time as ``DIRECTION_BYTES`` hold.

    A query takes ``held`` times 4 bytes x ``numbers``, the parameters of the scope, and at least one is asked.
    """
    height = max(1, DIRECTION_BYTES // (4 * held * numbers))
    return np.concatenate([score(queries.part(slice(at, at + height))) for at in range(0, len(queries), height)])


def scope_size(model: nn.Module, scope: str) -> int:
    """Return how many numbers a gradient of the scope's parameters has."""
    from winnow.attribution.sites import find_sites

    return sum(site.shape[0] * site.shape[1] for site in find_sites(model, scope).values())


def _products(capture: Capture, batch: Any, directions: Mapping[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses float64 ``[R]`` and the products float64 ``[R, Q]`` of one batch."""
    total: Any = 0.0

    def visit(site: Site, gradients: SiteGradients) -> None:
        nonlocal total
        total = total + gradients.along(directions[site.name])

    losses = capture.stream(batch, visit, in_parts=True)
    return losses.cpu().numpy(), total[: len(batch.rows)].cpu().numpy()


def _broken(values: np.ndarray, directions: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Return bool ``[R]``: a product ``[R, Q]`` of the document is not finite though the query's direction is."""
    import torch

    if np.isfinite(values).all():
        return np.zeros(len(values), dtype=bool)
    sound: Any = True
    for value in directions.values():
        sound = sound & torch.isfinite(value.flatten(1).sum(dim=1)).cpu().numpy()
    return ~np.isfinite(values[:, sound]).all(axis=1)


def _require_same(sites: Mapping[str, Site], directions: Mapping[str, torch.Tensor], scope: str) -> None:
    if set(sites) != set(directions):
        odd = min(set(sites) ^ set(directions))
        raise UserError(f"scope '{scope}' and the directions do not hold the same layers: {odd}; fit them anew")
    for name, site in sites.items():
        if tuple(directions[name].shape[1:]) != site.shape:
            raise UserError(f"the direction of {name} has shape {tuple(directions[name].shape[1:])}, not {site.shape}")
