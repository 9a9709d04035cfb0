"""Comparing the documents with every set, and what the sets have in common with the corpus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from winnow.config import Contamination
from winnow.contamination.judge import (
    GPT3_DOCUMENTS,
    Comparison,
    Overlap,
    Rule,
    compare_all,
    contamination_version,
    rule_of,
)
from winnow.errors import UserError
from winnow.identity import digest_ids, ids_to_numpy
from winnow.stages.corpus import corpus_digest
from winnow.stages.references import StoredSet, count_uncompared, stored_sets, uncompared, write_overlap
from winnow.store.judgements import texts_of
from winnow.store.stage import Stage, forget_keys, stage_key
from winnow.store.store import Store, insert, insert_row, load

EXAMPLES, EXCERPT = 5, 200
WRITTEN_AT_ONCE = 100_000
"""Documents whose overlap is written in one transaction, or a table of texts more."""

TALLY = """
SELECT count(*) FILTER (contaminated) AS documents, max(longest_match) FILTER (contaminated) AS longest,
       (SELECT count(DISTINCT item) FROM contamination_items
        WHERE evaluation_set = $name AND version = $version) AS items
FROM contamination WHERE evaluation_set = $name AND version = $version
"""
WORST = """
SELECT doc_id, item, i.item_id, c.part, score, longest_match, span_start, span_end
FROM contamination_items c
JOIN reference_items i USING (item)
WHERE evaluation_set = $name AND version = $version AND i.digest = $digest
ORDER BY score DESC, longest_match DESC, doc_id, item LIMIT $most
"""
HELD = """
SELECT DISTINCT n.doc_id, i.item FROM contamination_ngrams n JOIN ngram_items i USING (ngram)
WHERE evaluation_set = $name AND version = $version AND ngram IN (
    SELECT ngram FROM contamination_ngrams WHERE evaluation_set = $name AND version = $version
    GROUP BY ngram HAVING count(*) <= $most
)
"""
UNSETTLED = f"""
WITH held AS ({HELD}),
stored AS (SELECT doc_id, item FROM contamination_items WHERE evaluation_set = $name AND version = $version)
SELECT DISTINCT doc_id FROM (
    (SELECT * FROM held EXCEPT SELECT * FROM stored) UNION ALL (SELECT * FROM stored EXCEPT SELECT * FROM held)
) ORDER BY doc_id
"""  # noqa: S608
"""Documents whose items of a set compared by ``gpt3`` are others, now that the n-grams of many documents are known."""


@dataclass(frozen=True)
class Waiting:
    """A set with the rule and version that hold for it now, and the documents that were not compared with it so."""

    found: StoredSet
    rule: Rule
    version: str
    documents: pa.Table

    def comparison(self) -> Comparison:
        return Comparison(self.found.name, self.version, self.rule, self.found.items)


def waiting_sets(store: Store, settings: Contamination) -> list[Waiting]:
    """Return every set of the store, the reference first, with the documents that wait for it."""
    sets = []
    for found in stored_sets(store):
        rule = rule_of(settings, found.name, found.kind)
        version = contamination_version(found.digest, rule)
        sets.append(Waiting(found, rule, version, uncompared(store, found.name, version)))
    return sets


def overlap_versions(sets: Sequence[StoredSet], settings: Contamination) -> dict[str, str]:
    """Return the version of each set's overlap rows by the set's name."""
    return {one.name: contamination_version(one.digest, rule_of(settings, one.name, one.kind)) for one in sets}


def require_contamination(store: Store, settings: Contamination) -> None:
    """Raise :class:`UserError` while documents wait to be compared with a set as it is, and is compared, now."""
    for name, kind, digest in store.query("SELECT reference, kind, digest FROM reference_sets ORDER BY reference"):
        version = contamination_version(digest, rule_of(settings, name, kind))
        missing = count_uncompared(store, name, version)
        if missing:
            raise UserError(
                f"{missing} documents were not compared with the set '{name}' as it is configured now: run `winnow run`"
                " or materialize `contamination`"
            )


def contamination_key(store: Store, sets: Sequence[Waiting]) -> str:
    """Return the stage key: the corpus, and how each set is compared with it."""
    return stage_key(
        "contamination", "1", corpus=corpus_digest(store), sets={one.found.name: one.version for one in sets}
    )


def nothing_waits(sets: Sequence[Waiting], stage: Stage) -> bool:
    """Say whether the report is of this corpus and every document was compared: one that came back was not."""
    return stage.done is not None and not any(len(one.documents) for one in sets)


def compare_waiting(store: Store, sets: Sequence[Waiting], stage: Stage) -> int:
    """Compare what waits, store it with the report; return the number of (document, set) pairs that were compared.

    Documents that wait for the same sets are read and cut into words once, and written by and by.
    """
    groups: dict[str, list[Waiting]] = {}
    for one in sets:
        if len(one.documents):
            groups.setdefault(digest_ids(ids_to_numpy(one.documents["doc_id"])), []).append(one)
    with store.write() as connection:  # until the end nothing says that this was done
        forget_keys(connection, "contamination")
    ignored: dict[str, dict[str, int]] = {}
    for together in groups.values():
        comparisons = [one.comparison() for one in together]
        ignored |= {comparison.name: comparison.ignored for comparison in comparisons}
        held: list[tuple[pa.Table, list[Overlap]]] = []
        for texts in texts_of(store, together[0].documents):
            held.append((texts.select(["doc_id"]), compare_all(texts, comparisons)))
            if sum(len(documents) for documents, _ in held) >= WRITTEN_AT_ONCE:
                _write(store, comparisons, held)
                held = []
        _write(store, comparisons, held)
    for one in sets:
        if one.rule.method == "gpt3":
            _settle(store, one)
    reports = [_report(store, one, ignored.get(one.found.name)) for one in sets]
    total = sum(len(one.documents) for one in sets)
    with store.write() as connection:
        connection.execute("DELETE FROM contamination_report")
        for report in reports:
            insert_row(connection, "contamination_report", **report)
        stage.finish(connection, total)
    return total


def _write(store: Store, comparisons: Sequence[Comparison], held: list[tuple[pa.Table, list[Overlap]]]) -> None:
    """Store what these documents share with the sets: a run that is killed later need not compare them again."""
    if not held:
        return
    documents = pa.concat_tables(documents for documents, _ in held)
    with store.write() as connection:
        for number, one in enumerate(comparisons):
            write_overlap(connection, one.name, one.version, documents, [overlaps[number] for _, overlaps in held])


def _settle(store: Store, one: Waiting) -> None:
    """Of a set compared by ``gpt3``, let each document hold the items that it shares a rare 13-gram with."""
    parameters = {"name": one.found.name, "version": one.version}
    comparison, common = one.comparison(), common_ngrams(store, one)
    with store.read() as connection:
        load(connection, "ngram_items", comparison.ngram_items())
        documents = connection.execute(UNSETTLED, {**parameters, "most": GPT3_DOCUMENTS}).to_arrow_table()
    for texts in texts_of(store, documents):
        (overlap,) = compare_all(texts, [comparison], {comparison.name: common})
        with store.write() as connection:
            load(connection, "settled", texts.select(["doc_id"]))
            for table, rows in (("contamination", overlap.documents), ("contamination_items", overlap.items)):
                connection.execute(
                    f"DELETE FROM {table} WHERE evaluation_set = $name AND version = $version"  # noqa: S608
                    " AND doc_id IN (SELECT doc_id FROM settled)",
                    parameters,
                )
                insert(connection, table, rows)


def common_ngrams(store: Store, one: Waiting) -> pa.Array:
    """Return the 13-grams uint64 of a set that more than ten documents of the store have, which ``gpt3`` ignores."""
    found = store.arrow(
        "SELECT ngram FROM contamination_ngrams WHERE evaluation_set = $name AND version = $version"
        " GROUP BY ngram HAVING count(*) > $most",
        {"name": one.found.name, "version": one.version, "most": GPT3_DOCUMENTS},
    )
    return found["ngram"].combine_chunks()


def _report(store: Store, one: Waiting, ignored: dict[str, int] | None) -> dict[str, Any]:
    name, found = one.found.name, one.found
    parameters = {"name": name, "version": one.version}
    documents, longest, items = store.query(TALLY, parameters)[0]
    if ignored is None:
        known = store.query(
            "SELECT items_too_short, items_too_common FROM contamination_report"
            " WHERE evaluation_set = $name AND version = $version",
            parameters,
        )
        ignored = dict(zip(("too_short", "too_common"), known[0], strict=True)) if known else one.comparison().ignored
    return {
        "evaluation_set": name,
        "version": one.version,
        "method": one.rule.method,
        "items": len(found.items),
        "items_too_short": ignored["too_short"],
        "items_too_common": ignored["too_common"],
        "items_contaminated": items,
        "item_share": items / max(len(found.items), 1),
        "documents": store.query("SELECT count(*) FROM documents")[0][0],
        "documents_contaminated": documents,
        "longest_match": longest or 0,
        "examples": json.dumps(_examples(store, one), ensure_ascii=False),
    }


def _examples(store: Store, one: Waiting) -> list[dict[str, Any]]:
    """Return the matches of highest score, with the text that is shared."""
    worst = store.arrow(
        WORST, {"name": one.found.name, "version": one.version, "digest": one.found.digest, "most": EXAMPLES}
    )
    ids = worst["doc_id"].combine_chunks()
    distinct = pa.table({"doc_id": pa.ExtensionArray.from_storage(pa.uuid(), ids.storage.unique())})
    texts = {
        doc: text
        for table in texts_of(store, distinct)
        for doc, text in zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True)
    }
    return [
        {
            "doc_id": str(row["doc_id"]),
            "item": row["item_id"] or str(row["item"]),
            "part": row["part"],
            "score": round(row["score"], 3),
            "words": row["longest_match"],
            "text": texts[row["doc_id"]][row["span_start"] : row["span_end"]][:EXCERPT],
        }
        for row in worst.to_pylist()
    ]


def report_lines(store: Store) -> list[dict[str, Any]]:
    """Return the report a set, without its examples."""
    found = store.arrow("SELECT * EXCLUDE (version, examples) FROM contamination_report ORDER BY evaluation_set")
    return found.to_pylist()


def example_lines(store: Store) -> list[dict[str, Any]]:
    """Return the examples of all sets, a row each."""
    found = store.query("SELECT evaluation_set, examples FROM contamination_report ORDER BY evaluation_set")
    return [{"evaluation_set": name, **example} for name, examples in found for example in json.loads(examples)]
