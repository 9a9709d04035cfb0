"""How the influence of training documents on queries is estimated; one file a method.

Every estimator is fitted to a training run and then scores query sets: ``fit(run, settings)``, then ``score(queries)``
gives float64 ``[Q, N]``, **positive = helpful** (training more on document i lowers the loss of query q). Adding a
method is adding one file to this folder with one subclass of :class:`Estimator`, and its name to the list in
``tests/attribution/test_estimators.py``.

Gradient methods whose score is a product <V_q, G_i> of a preconditioned query gradient with the document's gradient are
:class:`Directional`: they only say how the gradient is preconditioned, and can also stream over a corpus of any size
(:mod:`winnow.attribution.influence`).
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from winnow.attribution.run import require_damping
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

    from winnow.attribution.curvature import Curvature
    from winnow.attribution.run import Queries, Settings, TrainingRun

_REGISTRY: dict[str, type[Estimator]] = {}
_MENDS = {
    "bank": "train models on subsets of the documents first",
    "checkpoints": "give two checkpoints or more of the training",
    "encode": "give an encoder, and the texts of the documents",
    "optimizer": "save the optimiser's state with the checkpoint",
    "texts": "give the texts of the documents",
}


class Fitted(ABC):
    """An estimator that has seen the training run."""

    @abstractmethod
    def score(self, queries: Queries) -> np.ndarray:
        """Return float64 ``[Q, N]``, positive = helpful; NaN for a document or query that has no finite gradient."""

    def damped(self, damping: float) -> Fitted | None:
        """Return the same with another damping without fitting anew, or None where that cannot be.

        Raises :class:`UserError` for a damping below zero, or of zero where the method needs a positive one.
        """
        require_damping(damping)
        return self._damped(damping)

    def _damped(self, damping: float) -> Fitted | None:
        return None


class Estimator(ABC):
    """A method, registered under ``name`` as soon as its class is defined.

    ``needs`` names what it takes besides documents and the last checkpoint: ``optimizer`` (its second moments),
    ``checkpoints`` (several of them), ``texts``, ``encode``, ``bank``. ``projects``: it keeps every document's gradient
    and minds ``Settings.projection``, without which that is as large as the parameters of the scope. ``uses``: which of
    the settings ``scope`` and ``damping`` its scores depend on; what it does not use is neither tuned nor recorded.
    ``options``: the names that it reads from ``Settings.options``; any other is refused.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    projects: ClassVar[bool] = False
    uses: ClassVar[frozenset[str]] = frozenset({"scope", "damping"})
    options: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, name: str = "", needs: frozenset[str] = frozenset()) -> None:
        super().__init_subclass__()
        if name:
            cls.name, cls.needs = name, needs
            _REGISTRY[name] = cls

    def missing(self, run: TrainingRun) -> str | None:
        """Return the first thing that the estimator needs and the run lacks."""
        there = {
            "optimizer": run.final.optimizer is not None,
            "checkpoints": len(run.checkpoints) > 1,
            "texts": run.texts is not None,
            "encode": run.encode is not None and run.texts is not None,
            "bank": run.bank is not None,
        }
        return next((need for need in sorted(self.needs) if not there[need]), None)

    def fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        """Take from the run what does not depend on queries.

        Raises :class:`UserError` for a run without documents or without what the estimator needs, and for an option
        that it does not know.
        """
        require_damping(settings.damping)
        if not len(run.documents):
            raise UserError("the run has no documents; give the token arrays that the model was trained on")
        if (lacking := self.missing(run)) is not None:
            raise UserError(f"attribution method '{self.name}' needs the run's {lacking}: {_MENDS[lacking]}")
        if unknown := sorted(set(settings.options) - self.options):
            known = f"; use {', '.join(sorted(self.options))}" if self.options else "; leave it out: there are none"
            raise UserError(f"attribution method '{self.name}' has no option '{unknown[0]}'{known}")
        return self._fit(run, settings)

    @abstractmethod
    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        """Do what :meth:`fit` says, on a run that has what the estimator needs."""


@dataclass(frozen=True)
class Context:
    """What a preconditioner may use besides the gradients; only what it declares that it requires is filled.

    ``curvature``: EK-FAC factors by layer; ``second_moments``: Adam's bias-corrected exp_avg_sq by layer, ``[O, I]``;
    ``damping``: dimensionless, relative to a layer's mean curvature.
    """

    damping: float
    curvature: Curvature | None = None
    second_moments: Mapping[str, torch.Tensor] | None = None


class Directional(Estimator):
    """A preconditioner: the influence of document i on query q is the sum over layers of <P g_q, G_i>."""

    requires_curvature: ClassVar[bool] = False
    requires_second_moments: ClassVar[bool] = False

    @abstractmethod
    def precondition(self, gradients: Mapping[str, torch.Tensor], context: Context) -> dict[str, torch.Tensor]:
        """Map g (float64 ``[..., O, I]`` by layer) to the direction V of the same shapes; positive <V, G> = helpful."""

    def _fit(self, run: TrainingRun, settings: Settings) -> Fitted:
        from winnow.attribution.directional import fit_directional

        return fit_directional(self, run, settings)


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


def make_directional(name: str) -> Directional:
    """Return the directional estimator of that name, one that can stream. Raises :class:`UserError` for any other."""
    estimator = make_estimator(name)
    if not isinstance(estimator, Directional):
        able = [one for one in estimator_names() if issubclass(_REGISTRY[one], Directional)]
        raise UserError(f"attribution method '{name}' cannot stream over a corpus; use one of {', '.join(able)}")
    return estimator
