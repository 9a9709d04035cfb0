"""An influence model on disk: one safetensors file whose header carries the rest as JSON, never a pickle."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from winnow.attribution.surrogates import surrogate_names
from winnow.attribution.surrogates.interface import PREDICTORS, Predictor
from winnow.attribution.surrogates.model import Former, InfluenceModel
from winnow.errors import UserError

RESIDUALS = "residuals"
_ELSEWHERE = ("predictor", "members", RESIDUALS, "former")


def save_model(model: InfluenceModel, path: Path) -> None:
    """Write the model; equal models give equal bytes."""
    from safetensors.numpy import save_file

    facts = {one.name: getattr(model, one.name) for one in fields(model) if one.name not in _ELSEWHERE}
    facts["former"] = None if model.former is None else vars(model.former)
    facts["predictors"] = [{"kind": one.kind, **one.facts()} for one in (model.predictor, *model.members)]
    tensors = {RESIDUALS: model.residuals}
    for number, one in enumerate((model.predictor, *model.members)):
        tensors |= {f"{number}/{name}": np.ascontiguousarray(value) for name, value in one.tensors().items()}
    save_file(tensors, path, metadata={"influence_model": json.dumps(facts, sort_keys=True, allow_nan=False)})


def load_model(path: Path, encoder: str = "") -> InfluenceModel:
    """Read what :func:`save_model` wrote; ``encoder`` is where the one lies that a model may have been fine-tuned from.

    Raises :class:`UserError` for any other file.
    """
    from safetensors import SafetensorError, safe_open

    surrogate_names()  # so that every kind of predictor is known
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {})["influence_model"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        predictors = [_restored(number, told, tensors, encoder) for number, told in enumerate(facts.pop("predictors"))]
        former = facts.pop("former")
        facts["signal_names"] = tuple(facts["signal_names"])
        return InfluenceModel(
            predictor=predictors[0],
            members=tuple(predictors[1:]),
            residuals=tensors[RESIDUALS],
            former=None if former is None else Former(**former),
            **facts,
        )
    except (OSError, LookupError, TypeError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: not an influence model ({error}); fit it again") from error


def _restored(number: int, told: dict[str, Any], tensors: dict[str, np.ndarray], encoder: str) -> Predictor:
    prefix = f"{number}/"
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    kind, facts = PREDICTORS[told["kind"]], {name: value for name, value in told.items() if name != "kind"}
    return kind.restore(own, facts | {"location": encoder} if kind.encodes else facts)
