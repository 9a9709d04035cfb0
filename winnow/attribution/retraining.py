"""Training a small model on any subset of a few hundred documents, for ground truth; repeatable to the bit.

Every document is one window: its first ``context`` tokens, padded, so its loss is its own. The order of an epoch
hashes the documents' tokens with the seed: a subset is trained in the order of the whole, whatever the order given.
A model is trained on one thread. These models are so small that two threads on one of them wait for each other longer
than they compute; trainings side by side, a process each, use the cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from winnow.attribution.batching import canonical_order
from winnow.train.batches import PADDING
from winnow.train.loop import AdamWState, TrainSettings, learning_rate, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Recipe:
    """The model and how it is trained: AdamW, cosine to a tenth, float32, ``batch`` documents a step.

    ``gpt2`` has learned positions and biases and an MLP of four times ``hidden``, ``llama`` rotary positions and a
    gated MLP of ``intermediate``. Embeddings and head have weights of their own (untied) in both.
    """

    family: Literal["gpt2", "llama"]
    vocab: int
    hidden: int
    layers: int
    heads: int
    context: int
    intermediate: int = 0
    learning_rate: float = 2e-3
    warmup_steps: int = 10
    epochs: int = 8
    batch: int = 16

    def build(self, seed: int) -> PreTrainedModel:
        """Return a freshly initialised model; the global random state is left as it was."""
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        from winnow.train.model import ModelConfig, build_model

        if self.family == "llama":
            sizes = (self.vocab, self.hidden, self.layers, self.heads, self.intermediate, self.context)
            return build_model(ModelConfig(*sizes, tie_embeddings=False), seed)
        config = GPT2Config(
            vocab_size=self.vocab,
            n_positions=self.context,
            n_embd=self.hidden,
            n_layer=self.layers,
            n_head=self.heads,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return GPT2LMHeadModel(config)

    def settings(self, documents: int) -> TrainSettings:
        """Return the settings of a whole training on so many documents."""
        return TrainSettings(
            lr=self.learning_rate,
            warmup_steps=self.warmup_steps,
            batch_windows=self.batch,
            schedule="cosine",
            total_steps=-(-documents * self.epochs // self.batch),
            dtype="float32",
        )


@dataclass(frozen=True)
class Stop:
    """A state that a training passes: how many steps were taken, since the stop before and the learning rate there."""

    model: PreTrainedModel
    optimizer: AdamWState
    steps: int
    learning_rate: float


def retrain(recipe: Recipe, documents: Sequence[np.ndarray], seed: int, stops: int = 1) -> Iterator[Stop]:
    """Train a model on ``documents`` (token arrays) and yield it ``stops`` times, evenly spaced, at the end at last.

    The model is the same object each time, still training on when asked for the next. ``seed`` is that of the
    initial weights and of the order of the documents.
    """
    model = recipe.build(seed)
    order = [canonical_order(documents, seed=(seed << 16) + epoch) for epoch in range(recipe.epochs)]
    windows = _windows(documents, recipe.context)[np.concatenate(order)]
    settings = recipe.settings(len(documents))
    total = settings.total_steps or 0
    state: AdamWState | None = None
    first = 0
    for stop in range(1, stops + 1):
        last = total * stop // stops
        if last == first:
            continue
        part = windows[first * recipe.batch : last * recipe.batch]
        with one_thread():
            state = train(model, part, replace(settings, first_step=first), state).optimizer_state
        yield Stop(model, state, last - first, learning_rate(settings, last - 1, total))
        first = last


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread within the block: the same bits wherever it runs."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def losses(model: PreTrainedModel, documents: Sequence[np.ndarray], context: int) -> np.ndarray:
    """Return each document's mean loss over the predicted tokens of its first window, nats, float64 ``[N]``."""
    from winnow.train.evaluate import evaluate_loss

    with one_thread():
        return evaluate_loss(model, documents, context, all_windows=False).per_item


def _windows(documents: Sequence[np.ndarray], context: int) -> np.ndarray:
    windows = np.full((len(documents), context), PADDING, dtype=np.int32)
    for row, document in enumerate(documents):
        cut = document[:context]
        windows[row, : len(cut)] = cut
    return windows
