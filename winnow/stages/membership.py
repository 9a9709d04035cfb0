"""Whether a checkpoint looks as if it had seen the reference and the evaluation sets, item by item.

A forward pass over a set is made once for its items, the weights, the tokenizer and the settings. Which items the data
holds changes with the corpus; that is looked up at every run and costs no pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from winnow.attribution.batching import within_tokens
from winnow.config import Config
from winnow.contamination.membership import LOOKS_SEEN, compare, read_texts, statistics
from winnow.identity import digest
from winnow.stages.checkpoints import StoredCheckpoint, lineage, require_unchanged, stored_checkpoint
from winnow.stages.contamination import overlap_versions
from winnow.stages.references import StoredSet, stored_sets
from winnow.store.store import Store, insert

if TYPE_CHECKING:
    from winnow.store.store import Connection
    from winnow.train.checkpoint import Checkpoint

MEMBERSHIP_VERSION = "1"
"""Raise it when the method changes: every set is then read anew."""

LONGEST = 1024
"""Tokens of an item that are read at most, however long the model's context."""

SEED = 0
"""Of the bootstrap intervals."""

STORED = "SELECT * FROM membership WHERE checkpoint = $checkpoint AND evaluation_set = $name AND version = $version"

HOLDING = "SELECT DISTINCT item FROM contamination_items WHERE evaluation_set = $name AND version = $overlap"
"""The items of a set that a document holds, as the contamination stage says of the set as it is now."""

ORPHANS = """
FROM {table} WHERE NOT EXISTS (
    SELECT 1 FROM reference_sets s WHERE s.reference = {table}.evaluation_set AND s.digest = {table}.digest
)
"""
"""Rows on sets that are no longer there, or have other items now."""


@dataclass(frozen=True)
class DueSet:
    """A set that has to be written: ``measured`` are its rows of this version, empty before it is read.

    ``in_corpus`` and ``in_training`` are the items found; the latter is None without a recorded manifest.
    """

    found: StoredSet
    version: str
    measured: pa.Table
    in_corpus: frozenset[int]
    in_training: frozenset[int] | None


@dataclass(frozen=True)
class Due:
    """What a checkpoint still has to be asked, or ``skipped``, the reason why nothing is due."""

    checkpoint: str
    sets: tuple[DueSet, ...] = ()
    skipped: str = ""


@dataclass(frozen=True)
class MeasuredSet:
    """The rows of one set for ``membership`` and ``membership_sets``."""

    name: str
    items: pa.Table
    summary: pa.Table


@dataclass(frozen=True)
class Measured:
    """What :func:`measure_membership` found: ``items`` and ``tokens`` were read, at a cost of ``flops``."""

    checkpoint: str
    sets: tuple[MeasuredSet, ...]
    items: int
    tokens: int
    flops: float


def membership_due(store: Store, config: Config, checkpoint: str) -> Due:
    """Return what is due for a checkpoint: sets not read at this version, or whose items are found elsewhere now."""
    if not config.membership.tokens:
        return Due(checkpoint, skipped="membership.tokens is 0")
    found = stored_checkpoint(store, checkpoint)
    with store.read() as connection:
        manifests = sorted({one.manifest for one in lineage(connection, checkpoint) if one.manifest})
    found_sets = stored_sets(store)
    overlaps = overlap_versions(found_sets, config.contamination)
    sets: list[DueSet] = []
    for one in found_sets:
        version = _version(one, found, config)
        stored = store.arrow(STORED, {"checkpoint": checkpoint, "name": one.name, "version": version})
        in_corpus, in_training = _holding(store, one.name, overlaps[one.name], manifests)
        state = DueSet(one, version, stored, in_corpus, in_training)
        if not len(stored) or _flags(state, stored["item"].to_pylist()) != _stored_flags(stored):
            sets.append(state)
    orphans = store.query("SELECT count(*) " + ORPHANS.format(table="membership"))[0][0]
    return Due(checkpoint, tuple(sets), "" if sets or orphans else "every set was read by this checkpoint")


def measure_membership(store: Store, config: Config, due: Due) -> Measured:
    """Read the sets that are new to a checkpoint and compare the found items of all that are due with their others.

    At most ``membership.tokens`` of a set are read, its items drawn by a hash of their tokens. Raises
    :class:`winnow.errors.UserError` when the checkpoint's weights changed after it was registered.
    """
    from winnow.train.model import count_parameters

    loaded: Checkpoint | None = None
    results: list[MeasuredSet] = []
    items = tokens = 0
    parameters = 0
    for one in due.sets:
        rows = one.measured
        if not len(rows):
            loaded = loaded or _load(stored_checkpoint(store, due.checkpoint))
            parameters = count_parameters(loaded.model)
            rows = _read(loaded, config, due.checkpoint, one)
            items += len(rows)
            tokens += sum(rows["tokens"].to_pylist())
        rows = _flagged(rows, one)
        results.append(MeasuredSet(one.found.name, rows, _summary(rows)))
    return Measured(due.checkpoint, tuple(results), items, tokens, 2.0 * parameters * tokens)


def write_membership(connection: Connection, measured: Measured) -> None:
    """Put what was found in the place of the checkpoint's rows on the same sets; rows on sets that are gone go."""
    for table in ("membership", "membership_sets"):
        connection.execute("DELETE " + ORPHANS.format(table=table))
        connection.execute(
            f"DELETE FROM {table} WHERE checkpoint = $checkpoint AND list_contains($names, evaluation_set)",  # noqa: S608
            {"checkpoint": measured.checkpoint, "names": [one.name for one in measured.sets]},
        )
    for one in measured.sets:
        insert(connection, "membership", one.items)
        insert(connection, "membership_sets", one.summary)


def membership_card(store: Store, checkpoint: str) -> list[dict[str, object]]:
    """Return a checkpoint's transparency card: a row for each set, with its means and how far found items stand out."""
    return store.arrow(
        """
        SELECT m.evaluation_set, count(*) AS items,
               round(exp(avg(m.loss)), 2) AS perplexity, round(avg(m.min_k), 3) AS min_k,
               round(avg(m.min_k_plus_plus), 3) AS min_k_plus_plus, round(avg(m.ngram_accuracy), 3) AS ngram_accuracy,
               round(avg(m.zlib_ratio), 3) AS zlib_ratio,
               count(*) FILTER (m.in_corpus) AS in_corpus, count(*) FILTER (m.in_training) AS in_training,
               round(any_value(s.auc), 3) AS min_k_auc
        FROM membership m
        LEFT JOIN (SELECT * FROM membership_sets WHERE statistic = 'min_k' AND found_in = 'corpus') s
            USING (checkpoint, evaluation_set)
        WHERE checkpoint = $checkpoint
        GROUP BY m.evaluation_set ORDER BY m.evaluation_set
        """,
        {"checkpoint": checkpoint},
    ).to_pylist()


# -- reading ----------------------------------------------------------------------------------------------------------


def _version(found: StoredSet, checkpoint: StoredCheckpoint, config: Config) -> str:
    """Digest of all that the statistics depend on; the items with their places, since rows name an item by it."""
    settings = config.membership
    return digest(
        [
            MEMBERSHIP_VERSION,
            found.digest,
            found.texts(),
            checkpoint.weights_digest,
            checkpoint.tokenizer,
            [settings.tokens, settings.min_k, settings.ngram, settings.starts],
        ]
    )[:16]


def _load(checkpoint: StoredCheckpoint) -> Checkpoint:
    from winnow.train.checkpoint import load_checkpoint

    require_unchanged(checkpoint)
    return load_checkpoint(checkpoint.path)


def _read(loaded: Checkpoint, config: Config, checkpoint: str, one: DueSet) -> pa.Table:
    """Return the rows of ``membership`` of a set, in the order of its items, not yet saying where they were found."""
    from winnow.train.tokenizer import tokenise

    settings = config.membership
    context = min(LONGEST, loaded.model.config.get_text_config().max_position_embeddings)
    texts = one.found.texts()
    whole = tokenise(loaded.tokenizer, texts)
    read = [tokens[:context] for tokens in whole]
    drawn = np.sort(within_tokens(read, settings.tokens)).tolist()
    columns: dict[str, list[float]] = {name: [] for name in LOOKS_SEEN}
    readings = read_texts(loaded.model, [read[place] for place in drawn], context)
    for place, reading in zip(drawn, readings, strict=True):
        cut = len(read[place]) < len(whole[place])
        text = str(loaded.tokenizer.decode(read[place].tolist())) if cut else texts[place]
        for name, value in statistics(reading, text, settings.min_k, settings.ngram, settings.starts).items():
            columns[name].append(value)
    places = one.found.items["item"].to_numpy()
    count = len(drawn)
    return pa.table(
        {
            "checkpoint": pa.array([checkpoint] * count, pa.string()),
            "evaluation_set": pa.array([one.found.name] * count, pa.string()),
            "digest": pa.array([one.found.digest] * count, pa.string()),
            "version": pa.array([one.version] * count, pa.string()),
            "item": pa.array(places[drawn], pa.int64()),
            "tokens": pa.array([len(read[place]) for place in drawn], pa.int64()),
            "perplexity": _column(np.exp(np.array(columns["loss"]))),
            **{name: _column(np.array(values)) for name, values in columns.items()},
        }
    )


def _column(values: np.ndarray) -> pa.Array:
    """Return floats with null where there is no number."""
    values = np.asarray(values, np.float64)
    return pa.array(values, mask=~np.isfinite(values))


# -- what the data holds ----------------------------------------------------------------------------------------------


def _holding(
    store: Store, name: str, overlap: str, manifests: Sequence[str]
) -> tuple[frozenset[int], frozenset[int] | None]:
    """Return the items of a set that documents of the store hold, and those that documents of these manifests hold."""
    with store.read("manifest_rows") as connection:
        in_corpus = connection.execute(HOLDING, {"name": name, "overlap": overlap}).fetchall()
        in_training = connection.execute(
            f"{HOLDING} AND doc_id IN (SELECT doc_id FROM manifest_rows WHERE list_contains($manifests, version))",  # noqa: S608
            {"name": name, "overlap": overlap, "manifests": list(manifests) or [""]},
        ).fetchall()
    found = frozenset(item for (item,) in in_corpus)
    return found, frozenset(item for (item,) in in_training) if manifests else None


def _flags(one: DueSet, items: Sequence[int]) -> dict[int, tuple[bool, bool | None]]:
    training = one.in_training
    return {item: (item in one.in_corpus, None if training is None else item in training) for item in items}


def _stored_flags(rows: pa.Table) -> dict[int, tuple[bool, bool | None]]:
    columns = (rows[name].to_pylist() for name in ("item", "in_corpus", "in_training"))
    return {item: (corpus, training) for item, corpus, training in zip(*columns, strict=True)}


def _flagged(rows: pa.Table, one: DueSet) -> pa.Table:
    """Return rows that say where their items were found now."""
    flags = list(_flags(one, rows["item"].to_pylist()).values())
    kept = rows.drop_columns([name for name in ("in_corpus", "in_training") if name in rows.column_names])
    return kept.append_column("in_corpus", pa.array([corpus for corpus, _ in flags], pa.bool_())).append_column(
        "in_training", pa.array([training for _, training in flags], pa.bool_())
    )


def _summary(rows: pa.Table) -> pa.Table:
    """Return the rows of ``membership_sets`` of one set; none on training where no manifest is recorded."""
    summary = []
    first = rows.slice(0, 1).to_pylist()[0]
    same = {column: first[column] for column in ("checkpoint", "evaluation_set", "digest", "version")}
    for place in ("corpus", "training"):
        flags = rows[f"in_{place}"]
        if flags.null_count:
            continue
        for name, sign in LOOKS_SEEN.items():
            values = rows[name].to_numpy().astype(np.float64)
            found = compare(values, flags.to_numpy().astype(bool), sign, SEED)
            summary.append(
                same
                | {
                    "statistic": name,
                    "found_in": place,
                    "found_items": found.found,
                    "other_items": found.others,
                    "found_mean": found.found_mean,
                    "other_mean": found.others_mean,
                    "difference": found.difference,
                    "low": found.low,
                    "high": found.high,
                    "auc": found.auc,
                }
            )
    table = pa.Table.from_pylist(summary)
    for index, column in enumerate(table.column_names):
        if pa.types.is_floating(table[column].type):
            table = table.set_column(index, column, _column(table[column].to_numpy()))
    return table
