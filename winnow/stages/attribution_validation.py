"""What attribution is worth at a checkpoint of the store: the validations that its own model and documents allow.

Documents are a seeded sample of what the checkpoint was trained on, queries items of the reference set, short and long.
A check that lacks something (an optimiser's state, a second checkpoint, facts) is skipped with the reason.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.adamw import run_optimizer
from winnow.attribution.capture import vocabulary_size
from winnow.attribution.estimators import estimator_names
from winnow.attribution.run import Queries
from winnow.attribution.self_influence import self_influence
from winnow.attribution.validation.brittleness import brittleness
from winnow.attribution.validation.corruption import corruption, plant
from winnow.attribution.validation.fact_tracing import Fact, fact_tracing, states_fact
from winnow.attribution.validation.memorisation import memorisation
from winnow.attribution.validation.one_step import one_step
from winnow.attribution.validation.rows import Result, leaderboard
from winnow.attribution.validation.stability import stability
from winnow.attribution.validation.tail_patch import patching, tail_patch
from winnow.attribution.validation.trained import removal_losses, small_recipe
from winnow.config import Config
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import ids_as_keys, ids_to_numpy
from winnow.stages.checkpoints import checkpoint_named, current_checkpoint, lineage
from winnow.stages.estimates import gradient_method, oracle_method
from winnow.stages.pool import VERDICTS
from winnow.stages.semantic import is_filtering
from winnow.stages.trained_on import trained_on
from winnow.stages.validation_ground import Ground, projection_of

if TYPE_CHECKING:
    from winnow.store.store import Connection

log = logging.getLogger(__name__)

PATCHED = 5
ANSWER = 4
"""Tokens at the end of a reference item that count as its answer."""
PROBED = 64
"""Documents of the sample that the one-step oracle is asked about, where the store has no probes."""
STATES = 4
"""Checkpoints of a line that stability compares at most, the latest."""
REMOVED_SHARE = 0.05
SEEDS = (0, 1, 2)

PROBES = """
SELECT doc_id, g.influence, o.influence AS truth
FROM probes g JOIN probes o USING (doc_id, checkpoint, reference)
WHERE checkpoint = $checkpoint AND list_contains($references, reference)
  AND g.method = $gradient AND o.method = $oracle AND g.influence IS NOT NULL AND o.influence IS NOT NULL
ORDER BY ALL
"""
"""Documents that the store has by the configured estimator and by the configured oracle, each measured in one way."""

READ = f"""
{VERDICTS}, kept AS (SELECT doc_id, coalesce(keeper_id, doc_id) AS keeper FROM documents
              LEFT JOIN (SELECT doc_id, keeper_id FROM duplicates WHERE kind = 'near') USING (doc_id)),
     read AS (SELECT keeper, sum(repeats)::BIGINT AS times FROM manifest_rows JOIN kept USING (doc_id)
              WHERE list_contains($manifests, version) GROUP BY keeper)
SELECT doc_id, coalesce(times, 0)::BIGINT AS times FROM kept LEFT JOIN read USING (keeper)
WHERE doc_id IN (SELECT doc_id FROM manifest_rows WHERE list_contains($manifests, version))
   OR times IS NULL AND doc_id IN (SELECT doc_id FROM verdicts WHERE stage IS NULL)
ORDER BY doc_id
"""  # noqa: S608
"""How often each document was read, with its near copies (exact ones are the document); an unread copy of a read
document is left out, for it is neither seen nor unseen. Unread are documents of the pool alone: what another stage
objects to is unlike what training reads, and its loss would tell that difference."""


@dataclass(frozen=True)
class Validated:
    """The results of the checks that ran, and why each of the others did not, by name.

    ``measured``: checkpoint, digest of the reference, scope, damping and seed of all of them.
    """

    measured: dict[str, Any]
    results: tuple[Result, ...]
    skipped: dict[str, str]

    def records(self) -> list[dict[str, Any]]:
        """Return the rows of the leaderboard, each with how it was measured.

        ``estimator`` and ``projection`` are null where the method is a loss and no estimator.
        """
        return [
            {**one, **_estimator_of(one["method"]), **self.measured} for one in leaderboard(self.results).to_pylist()
        ]


def _estimator_of(method: str) -> dict[str, Any]:
    """Return the estimator whose name a method's begins with, and what it projects to."""
    found = re.match(r"\w+", method)
    name = found[0] if found and found[0] in {*estimator_names(), "oracle"} else None
    return {"estimator": name, "projection": None if name is None else projection_of(name)}


def validate_attribution(
    connection: Connection,
    home: Home,
    config: Config,
    *,
    checkpoint: str | None = None,
    checks: Sequence[str] = (),
    documents: int = 256,
    facts: Sequence[Fact] = (),
    say: Callable[[str], None] = log.info,
) -> Validated:
    """Run ``checks`` (names of :data:`CHECKS`) at a checkpoint, by default the current one.

    Where none is named these are all that train nothing, fact tracing only where there are ``facts``.
    ``connection`` sees the published tables. Raises :class:`UserError` for an unknown check, or a checkpoint that is
    not registered.
    """
    if unknown := set(checks) - set(CHECKS):
        raise UserError(f"validation '{min(unknown)}' is unknown; use one of {', '.join(CHECKS)}")
    stored = checkpoint_named(connection, home, checkpoint or current_checkpoint(connection, config))
    ground = Ground(connection, home, config, stored, documents, tuple(facts))
    results: list[Result] = []
    skipped: dict[str, str] = {}
    usual = [one for one in CHECKS if one not in RETRAINING and (facts or one != "fact_tracing")]
    for name in checks or usual:
        say(f"{name} at {stored.name}")
        try:
            results += list(CHECKS[name](ground))
        except UserError as error:
            skipped[name] = str(error)
    return Validated(ground.measured, tuple(results), skipped)


# -- the checks -------------------------------------------------------------------------------------------------------


def _one_step(ground: Ground) -> Iterator[Result]:
    """Probes that the store holds by estimator and oracle as they are configured; else some are made here."""
    method = gradient_method(ground.config, ground.stored)
    found = ground.connection.execute(
        PROBES,
        {
            "checkpoint": ground.stored.name,
            "references": list(ground.references),
            "gradient": method,
            "oracle": oracle_method(ground.config, ground.stored),
        },
    ).to_arrow_table()
    if not len(found):
        run = ground.run
        few = replace(run, documents=run.documents[:PROBED], texts=(run.texts or [])[:PROBED])
        truth = ground.score("oracle", few, ground.queries)
        for name, scores in ground.scores.items():
            yield one_step(name, scores[:, :PROBED], truth)
        return
    yield one_step(method, found["influence"].to_numpy()[None], found["truth"].to_numpy()[None])


def _stability(ground: Ground) -> Iterator[Result]:
    """The configured estimator at the latest checkpoints of the line, on the same documents and queries."""
    line = ground.line()[-STATES:]
    if len(line) < 2:
        raise UserError("the checkpoint has no earlier one in the store to compare with")
    name = ground.config.influence.estimator
    runs = [replace(ground.run, checkpoints=(ground.state(one),)) for one in line]
    found = np.array([ground.score(name, run, ground.queries) for run in runs])
    yield stability(f"{name}, {len(line)} checkpoints", found)


def _memorisation(ground: Ground) -> Iterator[Result]:
    """Loss on documents of the line's manifests against documents of the store that none of them holds."""
    line = lineage(ground.connection, ground.stored.name)
    manifests = [one.manifest for one in line if one.manifest]
    if not manifests:
        raise UserError("it is not recorded what this checkpoint was trained on")
    asked = {"manifests": manifests, "filter": ground.config.quality.filter, "semantic": is_filtering(ground.config)}
    rows = ground.connection.execute(READ, asked).to_arrow_table()
    ids, times = ids_to_numpy(rows["doc_id"]), rows["times"].to_numpy()
    chosen = np.concatenate(
        [ground.drawn(ids[part], ground.count) for part in ((times > 0), (times == 0)) if part.any()]
    )
    chosen = chosen[np.argsort(ids_as_keys(chosen), order=("high", "low"))]
    read = times[np.searchsorted(ids_as_keys(ids), ids_as_keys(chosen))]
    documents = ground.tokens(ground.texts(chosen))
    now = ground.losses(ground.stored, documents)
    yield memorisation(now, read)
    start = ground.line()[0]
    if start != ground.stored and line[0].manifest is None and line[0].name == start.name:
        yield memorisation(now, read, ground.losses(start, documents))


def _corruption(ground: Ground) -> Iterator[Result]:
    """Broken copies among documents of the training: the loss and the squared gradient, by parameter scope."""
    planted = plant([ids[: ground.context] for ids in ground.run.documents], 0.2, ground.config.influence.seed)
    yield corruption("loss", ground.losses(ground.stored, planted.documents), planted.kind)
    scope = ground.config.influence.scope
    yield corruption(
        f"self_influence {scope}", self_influence(ground.loaded.model, planted.documents, scope), planted.kind
    )


def _tail_patch(ground: Ground) -> Iterator[Result]:
    """A step on the documents found for reference items; the answer is the end of each."""
    state = ground.run.final.optimizer
    if state is None:
        raise UserError("the checkpoint has no optimiser state (optimizer.safetensors) to take steps with")
    answers = [(len(ids) - ANSWER, len(ids)) for ids in ground.queries.tokens]
    optimizer, documents = run_optimizer(ground.run, ground.settings), ground.run.documents
    with patching(ground.loaded.model, optimizer, state, documents, ground.queries.tokens, answers) as patch:
        yield from tail_patch(ground.scores, patch, ground.ids, depth=PATCHED)


def _fact_tracing(ground: Ground) -> Iterator[Result]:
    """The given facts among all documents of the training that state one, and a sample of those that do not."""
    if not ground.facts:
        raise UserError("no facts are given; name a file of them with --facts")
    everything = trained_on(ground.connection, ground.config, ground.stored).ids
    tokens = [ids[: ground.context] for ids in ground.tokens(ground.texts(everything))]
    texts = [str(ground.loaded.tokenizer.decode(ids.tolist(), skip_special_tokens=True)) for ids in tokens]
    states = states_fact(ground.facts, texts)
    some = np.isin(ids_as_keys(everything), ids_as_keys(ground.ids)) | states.any(axis=0)
    facts = [place for place in range(len(ground.facts)) if states[place].any()]
    if not facts:
        raise UserError(f"no document of the training states one of the {len(ground.facts)} facts")
    asked = [ground.facts[place].text for place in facts]
    kept = np.flatnonzero(some).tolist()
    run = replace(ground.run, documents=[tokens[p] for p in kept], texts=[texts[p] for p in kept])
    queries = Queries([ids[:-1] for ids in ground.tokens(asked)], asked)  # a sentence, no document that ends
    for name in dict.fromkeys((ground.config.influence.estimator, "bm25", "tfidf")):
        yield fact_tracing(name, ground.score(name, run, queries), states[facts][:, kept])


def _brittleness(ground: Ground) -> Iterator[Result]:
    """A small model trained on the sample, without what the configured estimator, TF-IDF or chance finds."""
    documents = [ids[: ground.context] for ids in ground.run.documents]
    recipe = small_recipe(vocabulary_size(ground.loaded.model), ground.context)
    retrain = removal_losses(recipe, documents, ground.queries.tokens)
    name = ground.config.influence.estimator
    scores = {name: ground.scores[name], "tfidf": ground.score("tfidf", ground.run, ground.queries)}
    removed = max(1, round(REMOVED_SHARE * len(documents)))
    groups = [np.arange(len(ground.queries))]
    yield from brittleness(scores, retrain, ground.ids, removals=(removed,), seeds=SEEDS, groups=groups)


CHECKS: dict[str, Callable[[Ground], Iterator[Result]]] = {
    "one_step": _one_step,
    "stability": _stability,
    "tail_patch": _tail_patch,
    "corruption": _corruption,
    "memorisation": _memorisation,
    "fact_tracing": _fact_tracing,
    "brittleness": _brittleness,
}
RETRAINING = ("brittleness",)
"""Checks that train models, minutes rather than seconds: only when asked for by name."""


def read_facts(path: Path) -> list[Fact]:
    """Read facts from a file of records (JSON Lines, CSV, Parquet) with the fields subject, object and text.

    Raises :class:`UserError` when there is none, or a record lacks a field.
    """
    from winnow.text.readers import ShardReader
    from winnow.text.records import FieldMap

    if not path.is_file():
        raise UserError(f"{path}: no such file; give facts as JSON Lines with subject, object and text")
    reader = ShardReader(path, FieldMap(text="text", url=None, date=None))
    facts: list[Fact] = []
    for batch in reader:
        columns = (batch.documents[name].to_pylist() for name in ("text", "metadata"))
        for number, (text, metadata) in enumerate(zip(*columns, strict=True), len(facts) + 1):
            fields = json.loads(metadata)
            lacking = [name for name in ("subject", "object") if not isinstance(fields.get(name), str)]
            if lacking:
                raise UserError(f"{path}, record {number}: field '{lacking[0]}' is absent or no text; mend the record")
            facts.append(Fact(fields["subject"], fields["object"], text))
    if reader.failed or not facts:
        raise UserError(f"{path}: {reader.failure or 'no fact in it'}; give records with subject, object and text")
    return facts
