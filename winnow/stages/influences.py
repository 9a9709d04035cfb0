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

from winnow.attribution.estimators import make_estimator
from winnow.attribution.run import Queries, Settings
from winnow.config import Config
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import ids_from_numpy
from winnow.stages.checkpoints import StoredCheckpoint, checkpoint_named, current_checkpoint
from winnow.stages.estimates import Estimate, load_for_attribution
from winnow.stages.gradient_index import PROJECTION
from winnow.stages.measuring import curvature_file, drawn_for_curvature, influence_on
from winnow.stages.shortlists import bm25_of, likely_by_gradients, ranks_of, shortlist
from winnow.stages.trained_on import TrainedOn, trained_on
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
    scope = question.scope or config.influence.scope
    bm25 = bm25_of(connection, among, question.text)
    likely = bm25
    if question.by_gradients and len(among) > question.shortlist:
        likely = likely_by_gradients(
            connection, home, config, checkpoint, loaded, among, query, scope, question.shortlist, question.lowest, say
        )
    places = shortlist(among, likely, question.shortlist, config.influence.seed)
    documents, texts, lengths = read_documents(connection, loaded, among.ids[places])
    run = replace(run, documents=documents, texts=texts)
    estimate = Estimate(
        estimator.name,
        scope,
        PROJECTION if estimator.projects else 0,
        config.influence.damping,
    )
    say(f"measuring {len(places):,} documents by {estimator.name}")
    options = {name: value for name, value in ALONE.items() if name in estimator.options}
    settings = Settings(estimate.scope, estimate.damping or 0.0, estimate.projection, config.influence.seed, options)
    drawn = among.ids[drawn_for_curvature(among, config)]
    influence, reasons = influence_on(
        estimator,
        run,
        Queries([query], [question.text]),
        settings,
        lambda: read_documents(connection, loaded, drawn)[0],
        curvature_file(home, checkpoint, scope, config.influence.seed, drawn),
    )
    context = context_of(loaded)
    order = np.lexsort((places, influence if question.lowest else -influence))  # places are in the order of doc_id
    order = order[np.isfinite(influence[order])][: question.top]
    ranks = ranks_of(bm25)
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
