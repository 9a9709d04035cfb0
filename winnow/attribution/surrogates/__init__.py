"""Learned influence: from a few hundred probed documents to a predicted influence of every document.

One file a method, one interface: ``fit(features, targets) -> predictor``, ``predictor.predict(features)`` gives float64
``[N]``. Adding a method is adding one file to this folder with one subclass of ``interface.Surrogate`` and one of
``interface.Predictor``, and its name to the list in ``tests/attribution/surrogates/test_surrogate_methods.py``.

- :mod:`~winnow.attribution.surrogates.model` - a surrogate with its held-out rank correlation and its uncertainty;
- :mod:`~winnow.attribution.surrogates.files` - that on disk;
- :mod:`~winnow.attribution.surrogates.losses`, ``scaling``, ``conformal`` - what the methods share.
"""

from __future__ import annotations

import importlib
import pkgutil

from winnow.attribution.surrogates.interface import LOSSES, SQUARED, SURROGATES, Surrogate
from winnow.errors import UserError

__all__ = ["LOSSES", "make_surrogate", "surrogate_names"]


def surrogate_names() -> tuple[str, ...]:
    """Return the names of all methods, sorted."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_") and module.name != "files":
            importlib.import_module(f"{__name__}.{module.name}")
    return tuple(sorted(SURROGATES))


def make_surrogate(
    name: str, loss: str = SQUARED, *, seed: int = 0, encoder: str = "", max_tokens: int = 256
) -> Surrogate:
    """Return the method of that name. Raises :class:`UserError` when there is none, or it lacks the loss."""
    names = surrogate_names()
    if name not in names:
        raise UserError(f"influence model '{name}' is unknown; use one of {', '.join(names)}")
    return SURROGATES[name](loss=loss, seed=seed, encoder=encoder, max_tokens=max_tokens)
