"""A fitted gradient influence on disk: one safetensors file with the direction of every layer, never a pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from winnow.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from winnow.attribution.influence import GradientInfluence

_FACTS = ("method", "scope", "damping", "context", "reference_loss", "reference_documents", "reference_excluded")


def save_influence(fitted: GradientInfluence, path: Path) -> None:
    """Write what scoring needs (directions float32 ``[O, I]`` and how they were made), by temporary file and rename."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    facts = json.dumps({name: getattr(fitted, name) for name in _FACTS}, sort_keys=True)
    save_file({name: value.contiguous() for name, value in fitted.directions.items()}, temporary, {"facts": facts})
    temporary.replace(path)


def load_influence(path: Path, model: nn.Module) -> GradientInfluence:
    """Read what :func:`save_influence` wrote, to score with ``model``.

    Raises :class:`UserError` for any other file, and where its scope has other parameters in this model.
    """
    from safetensors import SafetensorError, safe_open

    from winnow.attribution.influence import GradientInfluence
    from winnow.attribution.sites import find_sites

    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            directions = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        found = GradientInfluence(model=model, directions=directions, **facts)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: not a fitted influence ({error}); delete it and run again") from error
    sites = {name: site.shape for name, site in find_sites(model, found.scope).items()}
    shapes = {name: tuple(direction.shape) for name, direction in directions.items()}
    if sites != shapes:
        odd = min(name for name in {*sites, *shapes} if sites.get(name) != shapes.get(name))
        raise UserError(
            f"{path}: {odd} has shape {shapes.get(odd, 'none')} in it and {sites.get(odd, 'none')} in scope "
            f"'{found.scope}' of the model; delete this file and run again"
        )
    return found
