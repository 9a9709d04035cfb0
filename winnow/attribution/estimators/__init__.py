"""How a reference gradient becomes the direction that documents are scored along; one file a method.

An estimator turns the reference gradient g_ref of every layer into a direction V; a document's influence is the sum
over layers of <V, G>. Adding a method is adding one file to this folder with one subclass of :class:`Estimator`.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

    from winnow.attribution.curvature import Curvature

_REGISTRY: dict[str, type[Estimator]] = {}


@dataclass(frozen=True)
class Context:
    """What an estimator may use besides the gradients; only what it declares that it requires is filled.

    ``curvature``: EK-FAC factors by layer; ``second_moments``: Adam's bias-corrected exp_avg_sq by layer, ``[O, I]``;
    ``damping``: dimensionless, relative to a layer's mean curvature.
    """

    damping: float
    curvature: Curvature | None = None
    second_moments: Mapping[str, torch.Tensor] | None = None


class Estimator(ABC):
    """A preconditioner, registered under ``name`` as soon as its class is defined."""

    name: ClassVar[str]
    requires_curvature: ClassVar[bool] = False
    requires_second_moments: ClassVar[bool] = False

    def __init_subclass__(cls, name: str, **flags: bool) -> None:
        super().__init_subclass__()
        cls.name = name
        for flag, value in flags.items():
            setattr(cls, flag, value)
        _REGISTRY[name] = cls

    @abstractmethod
    def precondition(self, gradients: Mapping[str, torch.Tensor], context: Context) -> dict[str, torch.Tensor]:
        """Map g_ref (float64 ``[O, I]`` by layer) to the direction V of the same shapes; positive <V, G> = helpful."""


def estimator_names() -> tuple[str, ...]:
    """Return the names of all estimators, sorted."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return tuple(sorted(_REGISTRY))


def make_estimator(name: str) -> Estimator:
    """Return the estimator registered under ``name``. Raises :class:`UserError` when there is none."""
    names = estimator_names()
    if name not in names:
        raise UserError(f"attribution method '{name}' is unknown; use one of {', '.join(names)}")
    return _REGISTRY[name]()
