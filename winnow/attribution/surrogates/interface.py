"""What every surrogate is given and gives back; a method is one file with one subclass of :class:`Surrogate`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from winnow.errors import UserError

SQUARED, ROBUST, PAIRWISE, LAMBDA = "squared", "robust", "pairwise", "lambda"
LOSSES = (SQUARED, ROBUST, PAIRWISE, LAMBDA)

SURROGATES: dict[str, type[Surrogate]] = {}
PREDICTORS: dict[str, type[Predictor]] = {}


@dataclass(frozen=True)
class Features:
    """What is known of N documents.

    ``ids`` uint8 ``[N, 16]``; ``embeddings`` float32 ``[N, E]``; ``signals`` float64 ``[N, S]``, NaN where missing;
    ``texts`` where a surrogate reads them.
    """

    ids: np.ndarray
    embeddings: np.ndarray
    signals: np.ndarray
    texts: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, rows: np.ndarray) -> Features:
        """Return the documents at ``rows`` (positions or a mask)."""
        positions = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        texts = None if self.texts is None else [self.texts[position] for position in positions.tolist()]
        return Features(self.ids[positions], self.embeddings[positions], self.signals[positions], texts)


class Predictor(ABC):
    """A fitted surrogate. The bits of a prediction depend on the document alone, not on those it comes with."""

    kind: ClassVar[str] = ""
    reads_texts: ClassVar[bool] = False
    encodes: ClassVar[bool] = False

    def __init_subclass__(cls, kind: str, reads_texts: bool = False, encodes: bool = False) -> None:
        """``encodes``: :meth:`restore` also needs the ``location`` of the encoder that was fine-tuned."""
        super().__init_subclass__()
        cls.kind, cls.reads_texts, cls.encodes = kind, reads_texts, encodes
        PREDICTORS[kind] = cls

    @property
    @abstractmethod
    def target_mean(self) -> float:
        """What a document without any feature is predicted."""

    @abstractmethod
    def centred(self, features: Features) -> np.ndarray:
        """Return float64 ``[N]``, the predictions less ``target_mean``, in the unit of the targets."""

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """Return its arrays by name, as :meth:`restore` takes them."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return the rest of it, as JSON can hold it."""

    @classmethod
    @abstractmethod
    def restore(cls, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Predictor:
        """Return the predictor that gave ``tensors`` and ``facts``."""

    def predict(self, features: Features) -> np.ndarray:
        """Return float64 ``[N]`` in the unit of the targets."""
        return self.target_mean + self.centred(features)


@dataclass(frozen=True)
class Surrogate(ABC):
    """A method with its settings, registered under ``name`` as soon as its class is defined.

    ``loss``: one of the class's ``losses``; ``seed`` of what it draws; ``encoder``: folder or name, for the one that
    fine-tunes it, of which the first ``max_tokens`` tokens of a text are read. ``folds`` says how many of the folds
    are held out in turn: methods that are dear to fit hold out fewer.
    """

    loss: str = SQUARED
    seed: int = 0
    encoder: str = ""
    max_tokens: int = 256

    name: ClassVar[str] = ""
    losses: ClassVar[tuple[str, ...]] = LOSSES
    folds: ClassVar[int] = 5
    reads_texts: ClassVar[bool] = False

    def __init_subclass__(cls, name: str) -> None:
        super().__init_subclass__()
        cls.name = name
        SURROGATES[name] = cls

    def __post_init__(self) -> None:
        if self.loss not in self.losses:
            raise UserError(
                f"influence model '{self.name}' has no loss '{self.loss}'; use one of {', '.join(self.losses)}"
            )

    @abstractmethod
    def fit(self, features: Features, targets: np.ndarray, previous: Predictor | None = None) -> Predictor:
        """Fit to finite ``targets`` float64 ``[N]``, documents sorted by id; the same gives the same bits.

        ``previous``: a predictor of the same method to start from, of an earlier checkpoint.
        """
