"""Which training documents raise or lower a model's loss on a text, from what is published.

The documents that the checkpoint was trained on are read once and ranked by BM25; those measured by the estimator are
all of them, or, where they are many, a shortlist: by BM25, filled up by a seeded hash, or by stored gradients.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from winnow.attribution.estimators import Directional, Estimator, make_estimator
from winnow.attribution.run import Queries, Settings, TrainingRun
from winnow.attribution.scores import TOO_SHORT
from winnow.config import Config
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import ids_as_keys, ids_from_numpy, ids_to_numpy, seeded_keys
from winnow.stages.checkpoints import StoredCheckpoint, checkpoint_named, current_checkpoint
from winnow.stages.gradient_index import PROJECTION, index_folder, indexed_scores
from winnow.stages.probes import Estimate, load_for_attribution
from winnow.stages.trained_on import TrainedOn, texts_of_documents, trained_on
from winnow.stages.training_run import context_of, read_documents, run_without_documents, tokens_of
from winnow.store.store import load

if TYPE_CHECKING:
    from winnow.store.store import Connection
    from winnow.train.checkpoint import Checkpoint

log = logging.getLogger(__name__)

SHORTLIST = 1_000
"""Documents that are measured at most, unless more are asked for."""
EXCERPT = 160
ALONE = {"lambda": 0.0}
"""TrackStar suppresses what the queries have in common, which of a single one would be all of it."""
NOT_FINITE = "the loss or the gradient is not finite"
NEEDS = {
    "optimizer": "the optimizer's state (optimizer.safetensors beside the weights)",
    "checkpoints": "more than one checkpoint of the line in the store",
    "texts": "texts",
    "encode": "a text encoder",
    "bank": "models trained on subsets of the documents, which a store has not: see `winnow attribution bench`",
}


@dataclass(frozen=True)
class Question:
    """What is asked: ``None`` takes the configured estimator and scope and the current checkpoint.

    At most ``shortlist`` documents are measured: those that BM25 ranks first, or (``by_gradients``) those that LoGra
    does from stored projected gradients, which are made where they are missing.
    """

    text: str
    estimator: str | None = None
    scope: str | None = None
    checkpoint: str | None = None
    top: int = 20
    lowest: bool = False
    shortlist: int = SHORTLIST
    by_gradients: bool = False


@dataclass(frozen=True)
class InfluentialDocument:
    """A document with its influence on the text; **positive = helpful**: training on it lowered the text's loss.

    ``bm25_rank`` counts from 1 among all documents, None where no word is shared; ``times`` is how often it was
    trained on, None where that is not recorded; ``truncated``: only its first window was measured.
    """

    doc_id: UUID
    influence: float
    bm25: float
    bm25_rank: int | None
    source: str
    original_id: str | None
    excerpt: str
    tokens: int
    truncated: bool
    times: int | None


@dataclass(frozen=True)
class Influences:
    """The answer: ``documents`` in order, and what they were measured with and among.

    ``query_tokens`` of the text, of which the first ``query_used`` count; ``query_loss`` in nats a token; ``measured``
    of ``among`` have been looked at by the estimator; ``excluded``: how many of them have no influence, by reason;
    ``seed``: of what is drawn, projected or sampled.
    """

    documents: Sequence[InfluentialDocument]
    checkpoint: str
    estimate: Estimate
    query_tokens: int
    query_used: int
    query_loss: float
    among: TrainedOn
    measured: int
    shortlisted_by: str
    excluded: dict[str, int]
    seed: int


def find_influences(
    connection: Connection, home: Home, config: Config, question: Question, say: Callable[[str], None] = log.info
) -> Influences:
    """Return the documents with the highest (or lowest) influence on a text; equal ones are ordered by doc_id.

    ``connection`` sees the published tables. Raises :class:`UserError` for a text without two tokens, an unknown or
    unregistered checkpoint, one whose tokenizer or weights changed, an estimator that is unknown or lacks something.
    """
    if not question.text.strip():
        raise UserError("the text is empty: give the words whose loss is to be explained")
    estimator = make_estimator(question.estimator or config.influence.estimator)
    checkpoint = _checkpoint(connection, home, config, question.checkpoint)
    among = trained_on(connection, config, checkpoint)
    loaded = load_for_attribution(checkpoint)
    run = run_without_documents(connection, home, config, checkpoint, loaded)
    lacking = estimator.missing(run)
    if lacking is not None:
        raise UserError(f"estimator '{estimator.name}' needs {NEEDS[lacking]}; choose another with --estimator")
    query = tokens_of(loaded, [question.text])[0]
    if len(query) < 2:
        raise UserError("the text has a single token, so there is nothing to predict: give more words")
    bm25 = _bm25(connection, among, question.text)
    likely = bm25
    if question.by_gradients and len(among) > question.shortlist:
        likely = _by_gradients(connection, home, config, question, checkpoint, loaded, among, query, say)
    places = _shortlist(among, likely, question.shortlist, config.influence.seed)
    documents, texts, lengths = read_documents(connection, loaded, among.ids[places])
    run = replace(run, documents=documents, texts=texts)
    estimate = Estimate(
        estimator.name,
        question.scope or config.influence.scope,
        PROJECTION if estimator.projects else 0,
        config.influence.damping,
    )
    say(f"measuring {len(places):,} documents by {estimator.name}")
    options = {name: value for name, value in ALONE.items() if name in estimator.options}
    settings = Settings(estimate.scope, estimate.damping or 0.0, estimate.projection, config.influence.seed, options)
    fitted_on: list[np.ndarray] = []
    if isinstance(estimator, Directional):
        drawn = _drawn(among, config)
        fitted_on = read_documents(connection, loaded, among.ids[drawn])[0]
    influence, reasons = _score(estimator, run, fitted_on, Queries([query], [question.text]), settings)
    context = context_of(loaded)
    order = np.lexsort((places, influence if question.lowest else -influence))  # places are in the order of doc_id
    order = order[np.isfinite(influence[order])][: question.top]
    ranks = _ranks(bm25)
    facts = _facts(connection, among.ids[places[order]])
    times = among.documents["times"].take(pa.array(places[order])).to_pylist()
    shown = [
        InfluentialDocument(
            doc_id=facts[at]["doc_id"],
            influence=float(influence[row]),
            bm25=float(bm25[places[row]]),
            bm25_rank=int(ranks[places[row]]) or None,
            source=facts[at]["source"],
            original_id=facts[at]["original_id"],
            excerpt=" ".join(facts[at]["excerpt"].split())[:EXCERPT],
            tokens=int(lengths[row]),
            truncated=bool(lengths[row] > context),
            times=times[at],
        )
        for at, row in enumerate(order.tolist())
    ]
    used = min(len(query), context)
    return Influences(
        shown, checkpoint.name, estimate, len(query), used, _loss(loaded, query[:used]), among, len(places),
        "BM25" if likely is bm25 else "stored projected gradients",
        dict(Counter(reason for reason in reasons if reason)), config.influence.seed,
    )  # fmt: skip


def _checkpoint(connection: Connection, home: Home, config: Config, name: str | None) -> StoredCheckpoint:
    names = [row[0] for row in connection.execute("SELECT checkpoint FROM checkpoints ORDER BY sequence").fetchall()]
    if not names:
        raise UserError("no checkpoint is registered, so there is no model to ask: run `winnow run` first")
    name = name or current_checkpoint(connection, config)
    if name not in names:
        raise UserError(f"checkpoint '{name}' is not registered; there is: {', '.join(names)}")
    return checkpoint_named(connection, home, name)


def _bm25(connection: Connection, among: TrainedOn, text: str) -> np.ndarray:
    """Return float64 ``[N]`` as the estimator of that name gives it, with the counts of the text's words alone."""
    from scipy.sparse import vstack

    from winnow.attribution.estimators.bm25 import bm25_weights
    from winnow.attribution.terms import Vocabulary, count_words

    vocabulary = Vocabulary([text])
    counts, lengths, ids = [], [], []
    for rows in texts_of_documents(connection, among.ids):
        texts = rows["text"].to_pylist()
        counts.append(vocabulary.counts(texts))
        lengths.append(count_words(texts))
        ids.append(ids_to_numpy(rows["doc_id"]))
    order = np.argsort(ids_as_keys(np.concatenate(ids)), order=("high", "low"))
    weights = bm25_weights(vstack(counts, format="csr")[order], np.concatenate(lengths)[order])
    return (vocabulary.counts([text]) @ weights.T).toarray()[0]


def _ranks(bm25: np.ndarray) -> np.ndarray:
    """Return int64 ``[N]``, the rank from 1, 0 for documents that share no word."""
    ranks = np.empty(len(bm25), dtype=np.int64)
    ranks[np.argsort(-bm25, kind="stable")] = np.arange(1, len(bm25) + 1)
    return np.where(bm25 > 0.0, ranks, 0)


def _by_gradients(
    connection: Connection,
    home: Home,
    config: Config,
    question: Question,
    checkpoint: StoredCheckpoint,
    loaded: Checkpoint,
    among: TrainedOn,
    query: np.ndarray,
    say: Callable[[str], None],
) -> np.ndarray:
    """Return float64 ``[N]``, the higher the likelier among those asked for, from stored projected gradients."""
    scope, influence = question.scope or config.influence.scope, config.influence
    folder = index_folder(home, checkpoint, scope, influence.seed, among.ids)

    def documents() -> Sequence[np.ndarray]:
        return read_documents(connection, loaded, among.ids)[0]

    scores = indexed_scores(
        folder, loaded.model, documents, Queries([query]), scope, influence.damping, influence.seed, say
    )
    return np.where(np.isfinite(scores), -scores if question.lowest else scores, -np.inf)


def _shortlist(among: TrainedOn, likely: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Return places int64, ascending: all, or the ``most`` with the highest values, ties drawn by a seeded hash."""
    if len(among) <= most:
        return np.arange(len(among))
    return np.sort(np.lexsort((seeded_keys(among.ids, seed, "influences"), -likely))[:most])


def _drawn(among: TrainedOn, config: Config) -> np.ndarray:
    """Return places int64, ascending, of the documents that curvature is measured on, whatever the shortlist."""
    keys = seeded_keys(among.ids, config.influence.seed, "curvature")
    return np.sort(np.argsort(keys, kind="stable")[: config.influence.curvature_documents])


def _score(
    estimator: Estimator, run: TrainingRun, fitted_on: Sequence[np.ndarray], query: Queries, settings: Settings
) -> tuple[np.ndarray, Sequence[str | None]]:
    """Return float64 ``[N]``, NaN where there is none, and then the reason.

    What streams is fitted to the documents ``fitted_on`` alone, so that the curvature costs the same in any corpus.
    """
    if isinstance(estimator, Directional):
        from winnow.attribution.directional import score_along

        fitted: Any = estimator.fit(replace(run, documents=fitted_on), settings)
        found = score_along(fitted.model, run.documents, fitted.directions(query.tokens), settings.scope)
        return found.influence[0], found.reason
    influence = estimator.fit(run, settings).score(query)[0]
    lengths = [len(tokens) for tokens in run.documents]
    short = [TOO_SHORT if length < 2 else NOT_FINITE for length in lengths]
    return influence, [None if np.isfinite(value) else why for value, why in zip(influence, short, strict=True)]


def _loss(loaded: Checkpoint, tokens: np.ndarray) -> float:
    from winnow.train.evaluate import evaluate_loss

    return evaluate_loss(loaded.model, [tokens], len(tokens)).mean


FACTS = """
SELECT place, doc_id, source, original_id, left(text, 1000) AS excerpt
FROM shown JOIN documents USING (doc_id) JOIN texts USING (doc_id) ORDER BY place
"""


def _facts(connection: Connection, ids: np.ndarray) -> list[dict[str, Any]]:
    load(connection, "shown", pa.table({"doc_id": ids_from_numpy(ids), "place": np.arange(len(ids))}))
    cursor = connection.execute(FACTS)
    columns = [column[0] for column in cursor.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def answer(found: Influences) -> dict[str, Any]:
    """Return the answer as one object: ``documents``, and the facts, which are there without any document too.

    ``shortlisted_by`` is None where all were measured. Each document says how it was measured, as the tables do.
    """
    measure = {"checkpoint": found.checkpoint, **asdict(found.estimate)}
    return {
        **measure,
        "seed": found.seed,
        "query_tokens": found.query_tokens,
        "query_used": found.query_used,
        "query_loss": found.query_loss,
        "measured": found.measured,
        "among": len(found.among),
        "manifests": list(found.among.manifests),
        "unrecorded": list(found.among.unrecorded),
        "shortlisted_by": found.shortlisted_by if found.measured < len(found.among) else None,
        "excluded": found.excluded,
        "documents": [{**asdict(one), **measure} for one in found.documents],
    }
