"""The influence model: a predictor, the predictors that each left a fold out, and how good it is.

How good: Spearman's rank correlation of out-of-fold predictions with the measured influence, everything (scales and
penalties included) fitted anew without the fold, and a bootstrap interval over documents. Out-of-fold predictions are
pooled without their fold's intercept, which is lower exactly when the held-out targets are higher and would bias a
useless model below zero.

A document's fold is a hash of its id with the seed, so it has the same fold at every checkpoint. That keeps what comes
from an earlier checkpoint honest: a fold's predictor starts from the earlier predictor that left the same fold out, and
the earlier model is tried on a document by the predictor that did not see it, though both checkpoints probed the same
documents. The predictors of the folds are also the ensemble, and the first one calibrates the conformal interval.

Rows are sorted by doc_id, so the order of the probes changes no bit. Source: Yu et al. 2024 (MATES), section 3.2.
**Positive = helpful.**
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from winnow.attribution.correlation import bootstrap_interval, spearman
from winnow.attribution.surrogates.conformal import LEVEL, half_width
from winnow.attribution.surrogates.interface import Features, Predictor, Surrogate
from winnow.attribution.surrogates.ridge import Ridge, mean_only
from winnow.errors import UserError
from winnow.identity import ids_as_keys, seeded_keys

log = logging.getLogger(__name__)

MIN_PROBES = 30
FOLDS = 5


@dataclass(frozen=True)
class Prediction:
    """Of N documents, each float64 ``[N]``; positive = helpful.

    ``influence``: the point; ``low``, ``high``: the split-conformal interval, infinite with too few probes; ``spread``:
    the standard deviation of the predictors that each left a fold out, NaN where there are fewer than two.
    """

    influence: np.ndarray
    low: np.ndarray
    high: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True)
class Former:
    """How an earlier checkpoint's model ranks the probes of this one, by predictors that did not see the document.

    ``spearman`` with ``low``, ``high`` (95%), on ``probes`` documents; ``own``: of the new model on the same documents.
    """

    spearman: float
    low: float
    high: float
    probes: int
    own: float


@dataclass(frozen=True)
class InfluenceModel:
    """A fitted surrogate and how well it ranks documents it has not seen.

    ``members``: the predictors fitted without fold 0, 1, ...; ``residuals`` float64 ``[n]``: what the first of them
    missed on its fold. ``spearman`` with ``spearman_low``, ``spearman_high`` (95%), all 0.0 when ``reason`` says why
    there is no model (it then predicts the mean for all), on the ``held_out`` probes; ``probes`` used, ``excluded``
    without a finite influence; ``encoder``: digest of the one that made the embeddings. ``former``: the earlier model
    on these probes, and ``warm``: whether it was started from.
    """

    surrogate: str
    loss: str
    predictor: Predictor
    signal_names: tuple[str, ...]
    embedding_width: int
    probes: int
    excluded: int
    seed: int
    encoder: str = ""
    members: tuple[Predictor, ...] = ()
    residuals: np.ndarray = field(default_factory=lambda: np.zeros(0))
    held_out: int = 0
    spearman: float = 0.0
    spearman_low: float = 0.0
    spearman_high: float = 0.0
    reason: str | None = None
    former: Former | None = None
    warm: bool = False

    @property
    def usable(self) -> bool:
        """Whether it was fitted and ranks unseen documents better than chance (the interval is above zero)."""
        return self.reason is None and self.spearman_low > 0.0

    @property
    def reads_texts(self) -> bool:
        """Whether predictions need the documents' texts."""
        return self.predictor.reads_texts

    @property
    def interval(self) -> float:
        """Half the width of the 90% split-conformal interval, in the unit of the probes; infinite with few probes."""
        return half_width(self.residuals)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the P features in the order of a ridge's weights."""
        return (*(f"embedding_{index}" for index in range(self.embedding_width)), *self.signal_names)

    def predict(
        self, embeddings: np.ndarray, signals: np.ndarray | None = None, texts: Sequence[str] | None = None
    ) -> np.ndarray:
        """Return the predicted influence, float64 ``[N]``, in the unit of the probes; positive = helpful.

        ``embeddings`` ``[N, E]`` and ``signals`` ``[N, S]`` in the order of ``signal_names``, NaN where missing;
        ``texts`` where :attr:`reads_texts`. Raises :class:`UserError` for other widths.
        """
        return self.predictor.predict(self._features(embeddings, signals, texts))

    def predict_with_uncertainty(
        self,
        embeddings: np.ndarray,
        signals: np.ndarray | None = None,
        texts: Sequence[str] | None = None,
        level: float = LEVEL,
    ) -> Prediction:
        """Return :meth:`predict` with the conformal interval of that coverage and the ensemble's spread."""
        features, reach = self._features(embeddings, signals, texts), half_width(self.residuals, level)
        # The interval holds for the predictor whose residuals it is made of.
        middle = (self.members or (self.predictor,))[0].predict(features)
        return Prediction(
            self.predictor.predict(features), middle - reach, middle + reach, self.spread(embeddings, signals, texts)
        )

    def spread(
        self, embeddings: np.ndarray, signals: np.ndarray | None = None, texts: Sequence[str] | None = None
    ) -> np.ndarray:
        """Return how far the members differ, float64 ``[N]``: their standard deviation, NaN for fewer than two."""
        features = self._features(embeddings, signals, texts)
        if len(self.members) < 2:
            return np.full(len(features), np.nan)
        return np.std([member.predict(features) for member in self.members], axis=0)

    def unseen(self, features: Features) -> np.ndarray:
        """Return what the members that did not see a document predict of it, float64 ``[N]``; NaN where all did.

        A member's predictions are less its own mean, as they are pooled.
        """
        found = np.full(len(features), np.nan)
        fold = fold_of(features.ids, self.seed)
        for number, member in enumerate(self.members):
            rows = np.flatnonzero(fold == number)
            if len(rows):
                found[rows] = member.centred(features.take(rows))
        return found

    def _features(self, embeddings: np.ndarray, signals: np.ndarray | None, texts: Sequence[str] | None) -> Features:
        signals = _signals(signals, len(embeddings))
        if embeddings.shape[1] != self.embedding_width or signals.shape[1] != len(self.signal_names):
            raise UserError(
                f"features of width {embeddings.shape[1]} + {signals.shape[1]}: the influence model was fitted on "
                f"{self.embedding_width} + {len(self.signal_names)}; use the same encoder and signals, or fit it again"
            )
        return Features(np.zeros((len(embeddings), 16), np.uint8), embeddings, signals, texts)


def fold_of(ids: np.ndarray, seed: int) -> np.ndarray:
    """Return the fold of each document, int64 ``[N]``: a hash of its id with the seed, the same at every checkpoint."""
    return (seeded_keys(ids, seed, "influence-model-fold") % np.uint64(FOLDS)).astype(np.int64)


def fit_influence_model(
    ids: np.ndarray,
    embeddings: np.ndarray,
    signals: np.ndarray | None,
    influence: np.ndarray,
    *,
    surrogate: Surrogate | None = None,
    signal_names: Sequence[str] = (),
    texts: Sequence[str] | None = None,
    encoder: str = "",
    previous: InfluenceModel | None = None,
    warm: bool = True,
) -> InfluenceModel:
    """Fit a surrogate (ridge unless given) to probes and estimate its held-out rank correlation.

    ``ids`` uint8 ``[N, 16]``; ``embeddings`` float ``[N, E]``; ``signals`` float ``[N, S]`` or None, NaN where
    missing; ``influence`` float64 ``[N]``, NaN where a probe failed; ``texts`` where the surrogate reads them;
    ``encoder``: digest of the one that made the embeddings. ``previous``: an earlier checkpoint's model, tried on these
    probes and, if ``warm``, started from. Too few probes (below 30) or constant influence give a model that predicts
    the mean, with its reason. Raises :class:`UserError` for arrays of unlike lengths, a document given twice, or texts
    that are missing.
    """
    surrogate = Ridge() if surrogate is None else surrogate
    signals = _signals(signals, len(ids))
    if not len(ids) == len(embeddings) == len(signals) == len(influence):
        raise UserError(
            f"{len(ids)} ids, {len(embeddings)} embeddings, {len(signals)} signal rows, {len(influence)} influences: "
            "give one of each a document"
        )
    if signals.shape[1] != len(signal_names):
        raise UserError(f"{signals.shape[1]} signal columns but {len(signal_names)} names in signal_names")
    if surrogate.reads_texts and (texts is None or len(texts) != len(ids)):
        raise UserError(f"influence model '{surrogate.name}' reads texts: give one a document")
    keys = ids_as_keys(ids)
    if len(np.unique(keys)) != len(keys):
        raise UserError("a document is probed twice; give one influence a document")
    order = np.argsort(keys, order=("high", "low"))
    order = order[np.isfinite(influence[order])]
    features, targets = Features(ids, embeddings, signals, texts).take(order), influence[order].astype(float)
    model = InfluenceModel(
        surrogate=surrogate.name,
        loss=surrogate.loss,
        predictor=mean_only(features, targets),
        signal_names=tuple(signal_names),
        embedding_width=embeddings.shape[1],
        probes=len(targets),
        excluded=len(influence) - len(targets),
        seed=surrogate.seed,
        encoder=encoder,
    )
    reason = None
    if len(targets) < MIN_PROBES:
        reason = f"{len(targets)} probes with a finite influence; at least {MIN_PROBES} are needed"
    elif np.ptp(targets) == 0.0:
        reason = "every probe has the same influence"
    if reason is not None:
        log.warning("no influence model: %s", reason)
        return replace(model, reason=reason)
    return _fitted(model, surrogate, features, targets, previous, warm)


def _fitted(
    model: InfluenceModel,
    surrogate: Surrogate,
    features: Features,
    targets: np.ndarray,
    previous: InfluenceModel | None,
    warm: bool,
) -> InfluenceModel:
    start = previous if warm and previous is not None and _startable(previous, model, surrogate) else None
    fold = fold_of(features.ids, surrogate.seed)
    members = tuple(
        surrogate.fit(
            features.take(fold != held), targets[fold != held], None if start is None else start.members[held]
        )
        for held in range(surrogate.folds)
    )
    predictor = surrogate.fit(features, targets, None if start is None else start.predictor)
    model = replace(model, predictor=predictor, members=members, warm=start is not None)
    calibrating = np.flatnonzero(fold == 0)
    missed = np.abs(targets[calibrating] - members[0].predict(features.take(calibrating)))
    predictions = model.unseen(features)
    measured = np.isfinite(predictions)
    model = replace(model, residuals=np.sort(missed), held_out=int(measured.sum()))
    if previous is not None:
        model = replace(model, former=_former(previous, model, features, targets))
    if np.ptp(predictions[measured]) == 0.0:
        return replace(model, reason="the features tell no two documents apart")
    found = spearman(predictions[measured], targets[measured])
    low, high = bootstrap_interval(predictions[measured], targets[measured], surrogate.seed)
    log.info(
        "influence model (%s) of %d probes: held-out Spearman %.3f [%.3f, %.3f]",
        surrogate.name, len(targets), found, low, high,
    )  # fmt: skip
    return replace(model, spearman=found, spearman_low=low, spearman_high=high)


def _former(previous: InfluenceModel, model: InfluenceModel, features: Features, targets: np.ndarray) -> Former | None:
    """Return how an earlier model ranks the probes of now, or None when it cannot read their features."""
    if not _same_features(previous, model) or (previous.reads_texts and features.texts is None):
        return None
    predictions = previous.unseen(features)
    own = model.unseen(features)
    measured = np.isfinite(predictions) & np.isfinite(own)
    if measured.sum() < MIN_PROBES // FOLDS:
        return None
    predictions, own, targets = predictions[measured], own[measured], targets[measured]
    low, high = bootstrap_interval(predictions, targets, previous.seed)
    return Former(spearman(predictions, targets), low, high, len(targets), spearman(own, targets))


def _startable(previous: InfluenceModel, model: InfluenceModel, surrogate: Surrogate) -> bool:
    same = (previous.surrogate, previous.seed) == (model.surrogate, model.seed)
    return same and _same_features(previous, model) and len(previous.members) == surrogate.folds


def _same_features(previous: InfluenceModel, model: InfluenceModel) -> bool:
    return previous.reason is None and (previous.encoder, previous.signal_names, previous.embedding_width) == (
        model.encoder,
        model.signal_names,
        model.embedding_width,
    )


def _signals(signals: np.ndarray | None, rows: int) -> np.ndarray:
    return np.empty((rows, 0)) if signals is None else np.asarray(signals)
