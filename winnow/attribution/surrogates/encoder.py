"""A sentence encoder fine-tuned to predict influence, with a linear head on its vector and the signals.

The head begins as the ridge on the frozen encoder's vectors, then encoder and head are trained together: a head that
begins anywhere else first tears apart what the encoder knows (Kumar et al. 2022, "Fine-tuning can distort pretrained
features", section 3). AdamW, linear warm-up and decay, a fixed number of epochs. Yu et al. 2024 (MATES), section 3.2,
fine-tune BERT with a squared loss on z-scored labels; a loss on the order works as well.

Dropout is drawn from the seed, so the same probes give the same bits on the same number of threads. A prediction is
made by ``winnow.embed.encoder.encode``, whose vector of a text does not depend on its batch, and the ridge's row-wise
head. Where training starts from an earlier checkpoint's encoder, the head does too, as a ridge towards the earlier one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from winnow.attribution.surrogates.interface import Features, Predictor, Surrogate
from winnow.attribution.surrogates.losses import gradients, is_ranking, line
from winnow.attribution.surrogates.ridge import RidgePredictor, fit_ridge
from winnow.attribution.surrogates.scaling import FEATURE_LIMIT
from winnow.errors import UserError

EPOCHS, BATCH = 3, 32
RATE, DECAY, WARMUP, CLIP = 5e-5, 0.01, 0.1, 1.0
WEIGHTS = "encoder."


@dataclass(frozen=True)
class EncoderPredictor(Predictor, kind="encoder", reads_texts=True, encodes=True):
    """``head`` on the vectors of the fine-tuned encoder: ``weights`` by parameter name over those in ``location``."""

    head: RidgePredictor
    weights: dict[str, np.ndarray]
    location: str
    digest: str
    max_tokens: int

    @property
    def target_mean(self) -> float:
        return self.head.mean

    def centred(self, features: Features) -> np.ndarray:
        return self.head.centred(_read_by(self.encoder(), features))

    def encoder(self) -> Any:
        """Return the fine-tuned encoder. Raises :class:`UserError` when that in ``location`` is another one now."""
        import torch

        loaded = _load(self.location, self.max_tokens)
        if loaded.digest != self.digest:
            raise UserError(f"encoder '{self.location}' has changed since the influence model was fitted: fit it again")
        loaded.model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in self.weights.items()})
        return loaded

    def tensors(self) -> dict[str, np.ndarray]:
        return {**self.head.tensors(), **{WEIGHTS + name: value for name, value in self.weights.items()}}

    def facts(self) -> dict[str, Any]:
        return {"head": self.head.facts(), "digest": self.digest, "max_tokens": self.max_tokens}

    @classmethod
    def restore(cls, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> EncoderPredictor:
        weights = {name.removeprefix(WEIGHTS): value for name, value in tensors.items() if name.startswith(WEIGHTS)}
        rest = {name: value for name, value in facts.items() if name != "head"}
        return cls(RidgePredictor.restore(tensors, facts["head"]), weights, **rest)


@dataclass(frozen=True)
class Encoder(Surrogate, name="encoder"):
    """For many probes: it reads the texts anew, so it can find what the frozen vector lost. By far the dearest."""

    folds = 1
    reads_texts = True

    def fit(self, features: Features, targets: np.ndarray, previous: Predictor | None = None) -> EncoderPredictor:
        if features.texts is None:
            raise UserError("influence model 'encoder' reads texts: give the texts of the documents")
        if isinstance(previous, EncoderPredictor):
            loaded, before = previous.encoder(), previous.head
        else:
            loaded, before = _load(self.encoder, self.max_tokens), None
        read = _read_by(loaded, features)
        ridge = fit_ridge(read, targets, before)
        trained, weights = self._train(loaded, features, ridge.features, ridge.labels.values, ridge.predictor)
        head = replace(ridge.predictor, weights=weights)
        if is_ranking(self.loss):
            slope, intercept = line(head.centred(_read_by(trained, features)) / head.std, ridge.labels.values)
            head = replace(head, weights=slope * weights, mean=head.mean + intercept * head.std)
        state = {name: value.numpy().copy() for name, value in trained.model.state_dict().items()}
        return EncoderPredictor(head, state, self.encoder, loaded.digest, self.max_tokens)

    def _train(
        self, encoder: Any, features: Features, standard: np.ndarray, labels: np.ndarray, head: RidgePredictor
    ) -> tuple[Any, np.ndarray]:
        """Return the fine-tuned encoder and the head's weights, float64 ``[P]``."""
        import torch

        from winnow.embed.encoder import forward, padded, tokenise

        assert features.texts is not None
        model = copy.deepcopy(encoder.model).train()
        tokens = tokenise(encoder, list(features.texts))
        width = features.embeddings.shape[1]
        mean, scale = (torch.from_numpy(values[:width]).float() for values in (head.scaling.mean, head.scaling.scale))
        signals = torch.from_numpy(standard[:, width:].astype(np.float32))
        weights = torch.tensor(head.weights, dtype=torch.float32, requires_grad=True)
        optimizer = torch.optim.AdamW([*model.parameters(), weights], lr=RATE, weight_decay=DECAY)
        batches = -(-len(labels) // BATCH)
        steps, warmup = EPOCHS * batches, max(1, round(WARMUP * EPOCHS * batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
        )
        draw = np.random.default_rng(self.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for _ in range(EPOCHS):
                for rows in np.array_split(draw.permutation(len(labels)), batches):
                    longest = max(len(tokens[row]) for row in rows)
                    inputs = padded(encoder, [tokens[row] for row in rows], len(rows), longest)
                    vectors = ((forward(model, inputs) - mean) / scale).clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
                    found = torch.cat([vectors, signals[torch.from_numpy(rows)]], dim=1) @ weights
                    gradient = gradients(self.loss, found.detach().double().numpy(), labels[rows])[0] / len(rows)
                    optimizer.zero_grad()
                    found.backward(torch.from_numpy(gradient).float())
                    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                    optimizer.step()
                    schedule.step()
        return replace(encoder, model=model.eval()), weights.detach().double().numpy()


def _load(location: str, max_tokens: int) -> Any:
    from winnow.embed.encoder import load_encoder

    return load_encoder(location, "float32", max_tokens)


def _read_by(encoder: Any, features: Features) -> Features:
    """Return the features with the encoder's vectors in place of the embeddings."""
    from winnow.embed.encoder import encode

    if features.texts is None:
        raise UserError("influence model 'encoder' reads texts: give the texts of the documents")
    return replace(features, embeddings=encode(encoder, list(features.texts)))
