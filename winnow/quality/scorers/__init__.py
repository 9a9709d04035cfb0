"""What ranks documents for a selection; one file a scorer. **Larger = rather take it**, everywhere.

A scorer is made with its options, fitted once to a context (the selecting part of a reference, a sample of the pool, a
checkpoint), and then scores any number of documents:

    fitted = make_scorer("dsir", {"length": "sum"}).fit(ScorerContext(reference, sample))
    scored = fitted.score(Documents(doc_ids, texts=texts))      # scored.values float64 [N]

A document's score depends neither on the order of the documents nor on how they are read in batches; for most scorers
it does not depend on the other documents at all. Those with ``whole = True`` rank documents among each other: they are
to be given all candidates in one call. A document that cannot be scored has NaN and a reason.

Scores of different scorers have different units: combine them by ranks or z-scores. Several are log weights (their
docstrings say so): taking the largest of score + Gumbel noise then draws without replacement in proportion to the
weights, which is what their papers do; plain top-k is greedier.

Adding a scorer is adding one file to this folder with one subclass of :class:`Scorer`.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from winnow.errors import UserError
from winnow.identity import digest
from winnow.quality.scorers.documents import COLUMNS, Documents, Scored, ScorerContext

__all__ = ["Documents", "Fitted", "Scored", "Scorer", "ScorerContext", "make_scorer", "scorer_names"]

_REGISTRY: dict[str, type[Scorer]] = {}
_LACKING = {
    "bank": "a bank: train models on subsets of the documents first",
    "model": "a model: give a checkpoint",
    "optimizer": "the optimiser's state: save it with the checkpoint",
    "reference": "a reference: give the selecting part of a reference set",
    "sample": "a sample of the pool: give one, or all of it",
}


class Fitted(ABC):
    """A scorer that has seen its context; ``flops``: what fitting spent in a model's passes, estimated."""

    scorer: str = ""
    columns: frozenset[str] = frozenset()
    flops: float = 0.0

    def score(self, documents: Documents) -> Scored:
        """Return the score of every document, in the order given. Raises :class:`UserError` for a missing column."""
        documents.require(self.columns, self.scorer, "documents")
        return self._score(documents)

    @abstractmethod
    def _score(self, documents: Documents) -> Scored:
        """Do what :meth:`score` says, on documents that have the columns that the scorer needs."""


class Scorer(ABC):
    """A method, registered under ``name`` as soon as its class is defined.

    ``needs`` names what it takes: columns of the documents (``texts``, ``tokens``, ``vectors``, ``clusters``,
    ``signals``), and of the context ``reference`` and ``sample`` (with the same columns), ``model`` (a checkpoint),
    ``optimizer`` (its state), ``bank``. ``Options``: a frozen dataclass of :func:`winnow.selection.options.option`
    fields. ``whole``: the score ranks a document among all that are given together. ``version``: to be raised when the
    method changes.
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    Options: ClassVar[type[Any]]
    _needs: ClassVar[frozenset[str]] = frozenset()
    _whole: ClassVar[bool] = False

    def __init_subclass__(cls, name: str = "", needs: tuple[str, ...] = (), whole: bool = False) -> None:
        super().__init_subclass__()
        if name:
            cls.name, cls._needs, cls._whole = name, frozenset(needs), whole
            _REGISTRY[name] = cls

    def __init__(self, options: Mapping[str, float | int | str | bool] | None = None) -> None:
        from winnow.selection.options import read_options

        self.options = read_options(f"scorer '{self.name}'", self.Options, options or {})

    @property
    def needs(self) -> frozenset[str]:
        """What the scorer takes with these options."""
        return self._needs

    @property
    def whole(self) -> bool:
        """Whether, with these options, a document's score depends on the others that are given with it."""
        return self._whole

    def digest(self) -> str:
        """Return the version of the method with its options, 16 hexadecimal digits, for a score's row."""
        return digest([self.name, self.version, vars(self.options)])[:16]

    def fit(self, context: ScorerContext) -> Fitted:
        """Learn what the scores rest on. Raises :class:`UserError` for a context that lacks what the scorer needs."""
        needs, columns = self.needs, self.needs & COLUMNS
        there = {
            "reference": context.reference is not None and len(context.reference) > 0,
            "sample": context.sample is not None and len(context.sample) > 0,
            "model": len(context.checkpoints) > 0,
            "optimizer": len(context.checkpoints) > 0 and context.checkpoints[-1].optimizer is not None,
            "bank": context.bank is not None,
        }
        if lacking := sorted(name for name in needs - COLUMNS if not there[name]):
            raise UserError(f"scorer '{self.name}' needs {_LACKING[lacking[0]]}")
        for part in sorted({"reference", "sample"} & needs):
            getattr(context, part).require(columns, self.name, part)
        fitted = self._fit(context)
        fitted.scorer, fitted.columns = self.name, columns
        return fitted

    @abstractmethod
    def _fit(self, context: ScorerContext) -> Fitted:
        """Do what :meth:`fit` says, on a context that has what the scorer needs."""


def scorer_names() -> tuple[str, ...]:
    """Return the names of all scorers, sorted."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return tuple(sorted(_REGISTRY))


def make_scorer(name: str, options: Mapping[str, float | int | str | bool] | None = None) -> Scorer:
    """Return the scorer of that name with its options. Raises :class:`UserError` when there is none such."""
    names = scorer_names()
    if name not in names:
        raise UserError(f"scorer '{name}': no such scorer; choose one of {', '.join(names)}")
    return _REGISTRY[name](options)
