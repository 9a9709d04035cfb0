"""The loss on reference items, the same to the bit whichever items are measured together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow.forward import fixed_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What a batch holds, in tokens and in logits; fixed for a model, so a loss does not depend on how many items there are.
BATCH_TOKENS = 1024
BATCH_LOGITS = 2**25


@dataclass(frozen=True)
class Loss:
    """The loss of items: ``mean`` nats per predicted token over all of them, and each item's own.

    ``per_item`` is float64 ``[N]``, mean nats per token, NaN for an item of fewer than two tokens; ``tokens_per_item``
    is int64 ``[N]``, the number of predicted tokens, and ``tokens`` their sum.
    """

    mean: float
    tokens: int
    per_item: np.ndarray
    tokens_per_item: np.ndarray


def evaluate_loss(model: PreTrainedModel, items: Sequence[np.ndarray], context: int, all_windows: bool = True) -> Loss:
    """Return a causal model's loss on tokenised items, in float32 and natural logarithms.

    ``items`` are int arrays of token ids, read as given (append the end-of-text token if it is to be predicted). An
    item longer than ``context`` is read in windows that share one token, so each token but the first is predicted once;
    ``all_windows=False`` reads its first window only. The mean weighs tokens equally, not items; it is NaN when no
    token is predicted. Batches have fixed shapes, so an item's loss does not depend, to the bit, on the others.
    """
    import torch

    windows, owner = _windows(items, context, all_windows)
    lengths = np.array([len(window) for window in windows], dtype=np.int64)
    nats = np.zeros(len(windows), dtype=np.float64)
    tokens = min(BATCH_TOKENS, max(1, BATCH_LOGITS // model.config.get_text_config().vocab_size))
    training = model.training
    model.eval()
    with torch.inference_mode():
        for width, rows, members in fixed_batches(lengths, context, tokens):
            batch = np.zeros((rows, width), dtype=np.int64)  # on the right, where a causal model does not look ahead
            for row, index in enumerate(members):
                batch[row, : lengths[index]] = windows[index]
            ids = torch.from_numpy(batch)
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
            each = loss.view(rows, width - 1).double().numpy()
            for row, index in enumerate(members):
                nats[index] = each[row, : lengths[index] - 1].sum()
    model.train(training)
    count = np.bincount(owner, weights=lengths - 1, minlength=len(items)).astype(np.int64)
    total = np.bincount(owner, weights=nats, minlength=len(items))
    with np.errstate(invalid="ignore", divide="ignore"):
        per_item = total / count
    predicted = int(count.sum())
    # A sum that is exact whatever the order of the items: sorted first.
    return Loss(float(np.sort(total).sum()) / predicted if predicted else float("nan"), predicted, per_item, count)


def _windows(items: Sequence[np.ndarray], context: int, all_windows: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """Cut items into windows of 2 to ``context`` tokens; return them with the index of the item each is from."""
    if context < 2:
        raise ValueError(f"context {context} leaves no token to predict")
    windows: list[np.ndarray] = []
    owner: list[int] = []
    for index, item in enumerate(items):
        for start in range(0, len(item) - 1 if all_windows else min(1, len(item) - 1), context - 1):
            windows.append(np.asarray(item[start : start + context], dtype=np.int64))
            owner.append(index)
    return windows, np.array(owner, dtype=np.int64)
