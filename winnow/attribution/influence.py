r"""Gradient influence of documents on a reference set, at one checkpoint.

    influence(x) = sum over layers <V, G_x>,    V = P g_ref,    <V, G_x> = sum_t d_t^T V a_t

where g_ref is the gradient of the reference loss (the mean over reference documents of each one's mean token loss), P
the estimator's preconditioner and G_x the gradient of the document's mean token loss. **Positive = helpful**: a
gradient step on x lowers the reference loss. V is formed once, so scoring costs one forward and one backward pass a
batch, and no per-document gradient is ever built.

Scores compare documents under one checkpoint, reference, scope, method and damping; their unit is arbitrary, so rank
them or standardise them, never threshold across runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.batching import batches, canonical_order, check_documents, tokens_used
from winnow.attribution.capture import Capture, capturing, gradient_shape
from winnow.attribution.curvature import Curvature, Labels, fit_curvature
from winnow.attribution.estimators import Context, make_estimator
from winnow.attribution.scores import GRADIENT_NOT_FINITE, LOSS_NOT_FINITE, TOO_SHORT, Progress, Scores
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GradientInfluence:
    """A fitted scorer; make it with :meth:`fit`, then call :meth:`score` on any number of documents.

    ``directions[name]`` float32 ``[O, I]``: V by layer; ``reference_loss`` in nats a token; ``reference_documents``
    used and ``reference_excluded`` (too short, or loss or gradient not finite).
    """

    model: nn.Module
    method: str
    scope: str
    damping: float
    context: int
    directions: dict[str, torch.Tensor]
    reference_loss: float
    reference_documents: int
    reference_excluded: int
    curvature: Curvature | None = None

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        reference_docs: Sequence[np.ndarray],
        curvature_docs: Sequence[np.ndarray] = (),
        *,
        method: str = "ekfac",
        scope: str = "blocks",
        damping: float = 0.1,
        labels: Labels = "sampled",
        optimizer_state: Mapping[str, Mapping[str, Any]] | None = None,
        beta2: float = 0.95,
        curvature: Curvature | None = None,
        seed: int = 0,
        device: str | None = None,
        progress: Progress | None = None,
    ) -> GradientInfluence:
        """Form the direction V of a model, a reference set and a method; token arrays are int ``[n]``.

        ``curvature_docs`` (training documents, a few hundred) or a ready ``curvature`` serve methods that require
        curvature; ``optimizer_state`` (by parameter name: exp_avg_sq, step) those that require Adam's second moments.
        ``device`` moves the model. Raises :class:`UserError` for an unknown method or scope, documents outside the
        vocabulary, a missing requirement, or a reference without any finite loss.
        """
        estimator = make_estimator(method)
        if damping < 0:
            raise UserError(f"damping {damping}: must not be negative")
        if device is not None:
            model.to(device)
        context = context_length(model)
        check_documents(reference_docs, vocabulary_size(model))
        check_documents(curvature_docs, vocabulary_size(model))
        with capturing(model, scope) as capture:
            if estimator.requires_curvature and curvature is None:
                if not len(curvature_docs):
                    raise UserError(f"attribution method '{method}' needs curvature_docs; give a few hundred documents")
                curvature = fit_curvature(capture, curvature_docs, context, labels=labels, seed=seed, progress=progress)
            gradients, loss, used = _reference_gradient(capture, reference_docs, context)
            moments = None
            if estimator.requires_second_moments:
                moments = _second_moments(capture.sites, optimizer_state, beta2)
        if curvature is not None and (missing := set(gradients) - set(curvature.layers)):
            raise UserError(f"the curvature has no layer {min(missing)}; fit it with scope '{scope}'")
        directions = estimator.precondition(gradients, Context(damping, curvature, moments))
        return cls(
            model=model,
            method=method,
            scope=scope,
            damping=damping,
            context=context,
            directions={name: value.float() for name, value in directions.items()},
            reference_loss=loss,
            reference_documents=used,
            reference_excluded=len(reference_docs) - used,
            curvature=curvature if estimator.requires_curvature else None,
        )

    def score(self, docs: Sequence[np.ndarray], progress: Progress | None = None) -> Scores:
        """Return the influence and loss of every document, in the order given.

        A document's values do not depend, to the bit, on the others given or on their order. Documents without a
        finite loss and gradient have no influence and a reason.
        """
        check_documents(docs, vocabulary_size(self.model))
        count = len(docs)
        influence, loss = np.full(count, np.nan), np.full(count, np.nan)
        reason: list[str | None] = [TOO_SHORT] * count
        tokens = tokens_used(docs, self.context)
        started, done, positions = time.monotonic(), int((tokens < 2).sum()), 0
        with capturing(self.model, self.scope) as capture:
            for batch in batches(docs, self.context):
                captured = capture.run(batch)
                values = self._products(captured.inputs, captured.gradients)[: len(batch.rows)].cpu().numpy()
                losses, usable = captured.losses.cpu().numpy(), captured.usable.cpu().numpy()
                loss[batch.rows] = losses
                influence[batch.rows] = np.where(usable, values, np.nan)
                for row, index in enumerate(batch.rows):
                    broken = GRADIENT_NOT_FINITE if np.isfinite(losses[row]) else LOSS_NOT_FINITE
                    reason[index] = None if np.isfinite(influence[index]) else broken
                positions += batch.inputs.size
                done += len(batch.rows)
                if progress is not None:
                    progress(done, count)
        seconds = time.monotonic() - started
        log.info("%d documents scored in %.1f s (%.0f a second)", count, seconds, count / max(seconds, 1e-9))
        lengths = np.fromiter((len(doc) for doc in docs), dtype=np.int64, count=count)
        flops = 6.0 * sum(value.numel() for value in self.directions.values()) * positions
        return Scores(influence, loss, tokens, lengths > self.context, tuple(reason), flops)

    def _products(self, inputs: dict[str, torch.Tensor], gradients: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return float64 ``[B]``: the sum over layers and positions of d_t^T V a_t."""
        import torch

        total: Any = 0.0
        with torch.no_grad():
            for name, direction in self.directions.items():
                along = gradients[name] @ direction.to(gradients[name])
                total = total + (along * inputs[name]).sum(dim=-1).double().sum(dim=-1)
        return total


def context_length(model: nn.Module) -> int:
    """Return the model's context in tokens. Raises :class:`UserError` when its configuration does not say."""
    length = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not isinstance(length, int) or length < 2:
        raise UserError(
            f"{type(model).__name__}: its configuration has no max_position_embeddings; use a causal language model"
        )
    return length


def vocabulary_size(model: nn.Module) -> int:
    """Return the number of rows of the model's input embedding."""
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    return int(embedding.weight.shape[0])


def _reference_gradient(
    capture: Capture, docs: Sequence[np.ndarray], context: int
) -> tuple[dict[str, torch.Tensor], float, int]:
    import torch

    ordered = [docs[position] for position in canonical_order(docs)]
    sums = {
        name: torch.zeros(gradient_shape(module), dtype=torch.float64, device=capture.device)
        for name, module in capture.sites.items()
    }
    loss, used = 0.0, 0
    for batch in batches(ordered, context, full=False):
        captured = capture.run(batch)
        for name, total in sums.items():
            total += captured.gradients[name].flatten(0, 1).T @ captured.inputs[name].flatten(0, 1)
        loss += float(captured.losses[captured.usable].sum())
        used += int(captured.usable.sum())
    if used == 0:
        raise UserError(
            f"none of the {len(docs)} reference documents has a finite loss and gradient over two or more tokens; "
            "check the reference set, the checkpoint and the tokenizer"
        )
    return {name: total / used for name, total in sums.items()}, loss / used, used


def _second_moments(
    sites: Mapping[str, nn.Module], state: Mapping[str, Mapping[str, Any]] | None, beta2: float
) -> dict[str, torch.Tensor]:
    moments = {}
    for name, module in sites.items():
        entry = (state or {}).get(f"{name}.weight")
        if entry is None or "exp_avg_sq" not in entry:
            raise UserError(f"the optimiser state has no exp_avg_sq of {name}.weight; save it with the checkpoint")
        moment = entry["exp_avg_sq"].double() / (1.0 - beta2 ** max(float(entry.get("step", 1)), 1.0))
        moments[name] = moment.T if type(module).__name__ == "Conv1D" else moment
    return moments
