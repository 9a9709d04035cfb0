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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.batching import batches, canonical_order, check_documents
from winnow.attribution.capture import Capture, capturing, context_length, vocabulary_size
from winnow.attribution.curvature import Curvature, Labels, fit_curvature
from winnow.attribution.directional import score_along
from winnow.attribution.estimators import Context, make_directional
from winnow.attribution.run import require_damping
from winnow.attribution.scores import Progress, Scores
from winnow.attribution.second_moments import BETA2, adam_second_moments
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


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
        beta2: float = BETA2,
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
        estimator = make_directional(method)
        require_damping(damping)
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
                moments = adam_second_moments(capture.sites, optimizer_state, beta2, capture.device)
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
        directions = {name: value[None] for name, value in self.directions.items()}
        found = score_along(self.model, docs, directions, self.scope, progress=progress)
        return Scores(found.influence[0], found.loss, found.tokens, found.truncated, found.reason, found.flops)


def _reference_gradient(
    capture: Capture, docs: Sequence[np.ndarray], context: int
) -> tuple[dict[str, torch.Tensor], float, int]:
    import torch

    ordered = [docs[position] for position in canonical_order(docs)]
    sums = {
        name: torch.zeros(site.shape, dtype=torch.float64, device=capture.device)
        for name, site in capture.sites.items()
    }
    loss, used = 0.0, 0
    for batch in batches(ordered, context, full=False):
        captured = capture.run(batch)
        for name, total in sums.items():
            total += captured.sites[name].total()
        loss += float(captured.losses[captured.usable].sum())
        used += int(captured.usable.sum())
    if used == 0:
        raise UserError(
            f"none of the {len(docs)} reference documents has a finite loss and gradient over two or more tokens; "
            "check the reference set, the checkpoint and the tokenizer"
        )
    return {name: total / used for name, total in sums.items()}, loss / used, used
