"""Small models trained for a validation: what retraining without some documents does to the losses on queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from winnow.attribution.retraining import Recipe, losses, retrain
from winnow.attribution.validation.brittleness import Retrain

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def final_model(recipe: Recipe, documents: Sequence[np.ndarray], seed: int) -> PreTrainedModel:
    """Return the model at the end of a training on token arrays."""
    *_, last = retrain(recipe, documents, seed)
    return last.model


def removal_losses(recipe: Recipe, documents: Sequence[np.ndarray], queries: Sequence[np.ndarray]) -> Retrain:
    """Return the function that trains without some documents and measures the queries, for brittleness."""

    def measure(keep: np.ndarray, seed: int) -> np.ndarray:
        kept = [documents[row] for row in np.flatnonzero(keep).tolist()]
        return losses(final_model(recipe, kept, seed), queries, recipe.context)

    return measure


def small_recipe(vocabulary: int, context: int) -> Recipe:
    """Return a model of two layers that trains in seconds on a few hundred documents."""
    return Recipe("llama", vocabulary, 64, 2, 4, context, intermediate=172, epochs=6)
