"""How documents are taken within an arm, one method a file; the file's name is its name, and adding it registers it.

A file defines ``METHOD``: a :class:`Keyed` method gives every document a key, and the largest keys of an arm are taken
while they fit its grant; a :class:`Greedy` method chooses within one arm after another, each document in view of those
before it. Sign: a larger score, a larger key is better. Nothing depends on the order of the candidates: ties go to the
smaller doc_id and what is random is a hash of doc_id and seed.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar, Protocol

import numpy as np

from winnow.errors import UserError
from winnow.identity import seeded_keys
from winnow.selection.arms import Arms
from winnow.selection.options import NoOptions, Value, read_options


class Vectors(Protocol):
    """Rows by position: an array ``[N, D]``, a mapped file, or anything that reads rows as they are asked for."""

    def __getitem__(self, positions: Any, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a method may look at, for N candidates in the order of ``arms``.

    ``scores`` float64 ``[N]``, NaN where unknown; ``vectors`` ``[N, D]``; ``sources`` str ``[N]``; ``clusters`` int64
    ``[N]``, where these are not the arms.
    """

    arms: Arms
    seed: int
    scores: np.ndarray | None = None
    vectors: Vectors | None = None
    sources: np.ndarray | None = None
    clusters: np.ndarray | None = None

    def uniforms(self, salt: str) -> np.ndarray:
        """Return a number in (0, 1) each, float64 ``[N]``: a hash of doc_id, seed and ``salt``."""
        return unit(seeded_keys(self.arms.doc_ids, self.seed, salt))

    @property
    def scored(self) -> np.ndarray:
        """The scores. Raises :class:`UserError` when there are none."""
        if self.scores is None:
            raise UserError("selection: the documents have no scores; fit an influence model or name a scorer")
        return self.scores

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return the vectors of documents. Raises :class:`UserError` when there are none."""
        if self.vectors is None:
            raise UserError("selection: the documents have no vectors; materialize embeddings")
        return np.asarray(self.vectors[positions])

    @cached_property
    def ranking_keys(self) -> np.ndarray:
        """The plain order, float64 ``[N]``: by score, without scores at random."""
        return -self.uniforms("decide") if self.scores is None else self.scores

    @cached_property
    def standard(self) -> np.ndarray:
        """The scores less their mean and by their deviation, both over the available documents; float64 ``[N]``."""
        if self.scores is None:
            raise UserError(
                "selection: documents have no scores to standardise; fit an influence model or set a scorer"
            )
        # Sorted, so that the sums do not depend on the order of the candidates.
        known = np.sort(self.scored[self.arms.available & np.isfinite(self.scored)])
        if not len(known) or known[0] == known[-1]:
            return np.where(np.isfinite(self.scored), 0.0, np.nan)
        return np.asarray((self.scored - known.mean()) / known.std())


@dataclass(frozen=True, eq=False)
class Taken:
    """What a method takes of an arm: distinct ``positions`` int64 in the order taken, and of each how often it is
    trained on (``repeats`` int64, at least 1) and the weight of its loss (``weights`` float64)."""

    positions: np.ndarray
    repeats: np.ndarray
    weights: np.ndarray

    @classmethod
    def once(cls, positions: np.ndarray) -> Taken:
        """Take each of ``positions`` once with weight 1."""
        return cls(positions, np.ones(len(positions), dtype=np.int64), np.ones(len(positions)))


class Within:
    """A method with its options, which ``Options`` declares; ``needs`` names what it cannot do without."""

    Options: ClassVar[type] = NoOptions
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, options: Any) -> None:
        self.name, self.options = name, options

    @property
    def label(self) -> str:
        """The name with its options, such as ``gumbel_top_k(temperature=0.5)``."""
        told = ", ".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
                         for key, value in asdict(self.options).items())  # fmt: skip
        return f"{self.name}({told})" if told else self.name

    def require(self, candidates: Candidates) -> None:
        """Raise :class:`UserError` when the candidates lack what the method needs."""
        for thing in self.needs:
            if getattr(candidates, thing) is None:
                raise UserError(f"within '{self.name}': it needs the documents' {thing}, and there are none")


class Keyed(Within, ABC):
    """A method that ranks documents by a key of their own."""

    @abstractmethod
    def keys(self, candidates: Candidates) -> np.ndarray:
        """Return float64 ``[N]``, larger = taken earlier; NaN comes last."""

    def admitted(self, candidates: Candidates) -> np.ndarray | None:
        """Return which documents may be taken at all, bool ``[N]``; None = all."""
        return None

    def weights(self, candidates: Candidates, keys: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """Return the weight of each document's loss, float64 ``[N]``, once ``taken`` bool ``[N]`` is known."""
        return np.ones(len(taken))


class Greedy(Within, ABC):
    """A method that takes documents of one arm one after another."""

    @abstractmethod
    def take(self, candidates: Candidates, members: np.ndarray, tokens: int) -> Taken:
        """Take of ``members`` (int64 positions, sorted by doc_id) at most ``tokens`` tokens, repeats counted."""


def within_names() -> list[str]:
    """Return the names of the registered methods, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def make_within(name: str, options: Mapping[str, Value] | None = None) -> Within:
    """Return the method of that name. Raises :class:`UserError` for an unknown name or option, or a bad value."""
    if name not in within_names():
        raise UserError(f"within '{name}': no such method; choose one of {', '.join(within_names())}")
    method: type[Within] = import_module(f"{__name__}.{name}").METHOD
    return method(name, read_options(f"within '{name}'", method.Options, options or {}))


def unit(keys: np.ndarray) -> np.ndarray:
    """Return uint64 keys as numbers in (0, 1), float64."""
    # Of 53 bits and a half the largest would be rounded to 1.
    return ((keys >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def gumbels(uniforms: np.ndarray) -> np.ndarray:
    """Return standard Gumbel numbers made of ``uniforms`` in (0, 1)."""
    return -np.log(-np.log(uniforms))
