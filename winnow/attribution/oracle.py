r"""The one-step oracle: take the optimiser's step on one document, and measure the reference again.

    I(x) = L(ref | theta) - L(ref | AdamWStep(theta, x))        **positive = helpful**

with the checkpoint's own AdamW state, learning rate, weight decay and gradient clipping
(:mod:`winnow.attribution.stepping`). L(ref) is the mean over reference documents of each one's mean token loss (nats);
the step is on the document's mean token loss.

Momentum and weight decay move theta even when g = 0, alike for every document; that share is measured once as
``drift`` = L(ref | theta) - L(ref | AdamWStep(theta, g = 0)). It changes no ranking; subtract it to ask what the
document itself did.

Cost: (6 document tokens + 2 reference tokens) x parameters a probe, so the size of the reference is the cost. Source:
Yu et al. 2024 (MATES), section 3.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.adamw import AdamW
from winnow.attribution.batching import canonical_order, check_documents, tokens_used
from winnow.attribution.capture import context_length, frozen, vocabulary_size
from winnow.attribution.scores import (
    GRADIENT_NOT_FINITE,
    INFLUENCE_NOT_FINITE,
    LOSS_NOT_FINITE,
    TOO_SHORT,
    Progress,
    Scores,
)
from winnow.attribution.stepping import Steps, document_losses, in_batches
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)


class OneStepOracle:
    """Probes documents at one checkpoint.

    ``reference_loss`` is L(ref | theta), ``drift`` as above; ``reference_used`` int64 ``[R]``: positions in
    ``reference_docs`` of the documents measured, drawn by ``seed`` and their own tokens up to ``reference_tokens`` in
    all (None: all of them); ``reference_losses`` and ``drifts`` float64 ``[R]``: the same of each of them. ``state``
    maps a parameter name to its exp_avg, exp_avg_sq and step; absent entries are zeros, as at the start of training.
    ``steps`` moves the model, for experiments of more than one step.
    """

    def __init__(
        self,
        model: nn.Module,
        reference_docs: Sequence[np.ndarray],
        optimizer: AdamW,
        state: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        reference_tokens: int | None = 4000,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        """Measure the reference.

        Raises :class:`UserError` when its loss is not finite, ``state`` does not fit, or the learning rate is not
        positive.
        """
        if not optimizer.learning_rate > 0.0:
            raise UserError(f"learning rate {optimizer.learning_rate} takes no step; give that of the run's last steps")
        if device is not None:
            model.to(device)
        self.model, self.optimizer = model, optimizer
        self.context = context_length(model)
        check_documents(reference_docs, vocabulary_size(model))
        self.reference_used = _capped(reference_docs, self.context, reference_tokens, seed)
        if not len(self.reference_used):
            raise UserError("no reference document has two or more tokens; check the reference set and the tokenizer")
        self.steps = Steps(model, optimizer, state)
        self._reference = in_batches([reference_docs[index] for index in self.reference_used], self.context)
        with self.steps.running():
            self.reference_losses = self.measure()
            self.reference_loss = float(self.reference_losses.mean())
            if not np.isfinite(self.reference_loss):
                raise UserError("the reference loss is not finite at this checkpoint; check the checkpoint's weights")
            self.steps.set_gradients({})
            self.steps.step()
            self.drifts = self.reference_losses - self.measure()
            self.drift = float(self.drifts.mean())

    def probe(self, docs: Sequence[np.ndarray], progress: Progress | None = None) -> Scores:
        """Return I(x) of every document (token arrays), in the order given; each is probed from the same theta.

        A document without a finite loss, gradient or influence has none, and a reason.
        """
        return self.probe_each(docs, progress)[0]

    def probe_each(self, docs: Sequence[np.ndarray], progress: Progress | None = None) -> tuple[Scores, np.ndarray]:
        """Return the probes, and each one's share by reference document: float64 ``[N, R]``, whose mean is I(x)."""
        check_documents(docs, vocabulary_size(self.model))
        count = len(docs)
        shares, loss = np.full((count, len(self.reference_used)), np.nan), np.full(count, np.nan)
        tokens = tokens_used(docs, self.context)
        reason: list[str | None] = []
        started = time.monotonic()
        with self.steps.running():
            for index, doc in enumerate(docs):
                shares[index], loss[index], why = self._probe(np.asarray(doc)[: self.context])
                reason.append(why)
                if progress is not None:
                    progress(index + 1, count)
        seconds = time.monotonic() - started
        log.info("%d documents probed in %.1f s (%.1f a second)", count, seconds, count / max(seconds, 1e-9))
        measured = sum(batch.inputs.size for batch in self._reference)
        flops = float(self.steps.size) * (6.0 * float(tokens.sum()) + 2.0 * measured * count)
        lengths = np.fromiter((len(doc) for doc in docs), dtype=np.int64, count=count)
        scores = Scores(shares.mean(axis=1), loss, tokens, lengths > self.context, tuple(reason), flops)
        return scores, shares

    def step(self, gradients: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return new tensors by name, the parameters after one AdamW step on these gradients; absent ones are zeros."""
        with self.steps.running():
            self.steps.set_gradients(gradients)
            self.steps.step()
            return self.steps.parameters()

    def gradients(self, doc: np.ndarray) -> tuple[float, dict[str, torch.Tensor]]:
        """Return the mean token loss of one document (int ``[n]``, n >= 2) and its gradient by parameter name."""
        with self.steps.running():
            return self.steps.differentiate([doc]), self.steps.gradients()

    def _probe(self, doc: np.ndarray) -> tuple[np.ndarray, float, str | None]:
        nothing = np.full(len(self.reference_used), np.nan)
        if len(doc) < 2:
            return nothing, np.nan, TOO_SHORT
        self.steps.rewind()
        loss = self.steps.differentiate([doc])
        if not np.isfinite(loss):
            return nothing, loss, LOSS_NOT_FINITE
        if not self.steps.gradient_is_finite:
            return nothing, loss, GRADIENT_NOT_FINITE
        self.steps.step()
        shares = self.reference_losses - self.measure()
        return (shares, loss, None) if np.isfinite(shares).all() else (nothing, loss, INFLUENCE_NOT_FINITE)

    def measure(self) -> np.ndarray:
        """Return the loss of every reference document at the present parameters, float64 ``[R]``."""
        return document_losses(self.model, self._reference, len(self.reference_used))


def _capped(docs: Sequence[np.ndarray], context: int, limit: int | None, seed: int) -> np.ndarray:
    """Return the documents, in seeded order, until the next would pass ``limit`` tokens; always at least one."""
    order = canonical_order(docs, seed)
    used = tokens_used(docs, context)[order]
    order, used = order[used >= 2], used[used >= 2]
    if limit is None:
        return order
    keep = np.cumsum(used) <= limit
    keep[:1] = True
    return order[keep]


def measurable(model: nn.Module, docs: Sequence[np.ndarray]) -> np.ndarray:
    """Return int64: the places of the documents whose loss is finite, so that they can be a reference."""
    check_documents(docs, vocabulary_size(model))
    with frozen(model):
        losses = document_losses(model, in_batches(docs, context_length(model)), len(docs))
    return np.flatnonzero(np.isfinite(losses))
