"""Mixture policies, one a file; the file's name is the policy's name, and adding the file registers it.

A policy file defines ``weights(tokens, **parameters)``: from the tokens each source has (int64 ``[S]``) to the weight
of each (float64 ``[S]``, not negative, sum 1).
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Protocol

import numpy as np

from winnow.errors import UserError


class MixturePolicy(Protocol):
    """The function that a policy file defines under the name ``weights``."""

    def __call__(self, tokens: np.ndarray, **parameters: float) -> np.ndarray: ...


def policy_names() -> list[str]:
    """Return the names of the registered policies, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def mixture_policy(name: str) -> MixturePolicy:
    """Return the policy of that name. Raises :class:`UserError` for an unknown one."""
    if name not in policy_names():
        raise UserError(f"mixture policy '{name}': no such policy; choose one of {', '.join(policy_names())}")
    policy: MixturePolicy = import_module(f"{__name__}.{name}").weights
    return policy
