"""Whether a model predicts every token from those before it alone, which the loss of a document takes for granted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from winnow.attribution.capture import context_length, frozen
from winnow.errors import UserError

if TYPE_CHECKING:
    from torch import nn

TOKENS = 8
TOLERANCE = 1e-5
"""Of the largest logit: what rounding may move, and no attention to a later token stays below."""


def require_causal(model: nn.Module) -> None:
    """Raise :class:`UserError` unless the model is a causal language model, which it is asked by one forward pass.

    Two inputs that differ in their last token alone must get the same logits before it. A model that attends to later
    tokens (BERT and its kin, which load as causal ones too) sees the token that it is to predict, so that its loss and
    gradients say nothing.
    """
    import torch

    name = type(model).__name__
    mend = "use one that AutoModelForCausalLM loads and that was trained to predict the next token"
    embedding: Any = getattr(model, "get_input_embeddings", lambda: None)()
    rows = 0 if embedding is None else int(embedding.weight.shape[0])
    if rows < 2:
        raise UserError(f"{name} has no input embedding of tokens, so it is no causal language model; {mend}")
    tokens = min(TOKENS, context_length(model))
    inputs = (torch.arange(tokens, device=embedding.weight.device) % rows).repeat(2, 1)
    inputs[1, -1] = (inputs[1, -1] + 1) % rows
    try:
        with frozen(model), torch.no_grad():
            logits = getattr(model(input_ids=inputs, use_cache=False), "logits", None)
    except (TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{name} is no causal language model ({reason}); {mend}") from error
    if logits is None or logits.ndim != 3 or logits.shape[:2] != inputs.shape:
        raise UserError(f"{name} gives no logits for every token, so it is no causal language model; {mend}")
    first, second = logits[:, :-1].float()
    moved, largest = (first - second).abs().max(), first.abs().max()
    if bool(moved > TOLERANCE * largest):  # never true where the weights are broken: that is told document by document
        raise UserError(
            f"{name} predicts a token from the ones after it too, so it is no causal language model; {mend}"
        )
