"""What must hold of a manifest, recomputed from its own rows and not from what selection believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from winnow.config import Config
from winnow.contamination.judge import compare_all
from winnow.dedup.sketch import make_plan
from winnow.identity import ids_as_keys, ids_from_numpy, ids_to_numpy
from winnow.mixture.manifest_files import read_manifest, verify_manifest
from winnow.stages.checkpoints import stored_checkpoint
from winnow.stages.contamination import common_ngrams, waiting_sets
from winnow.stages.duplicate_check import pairs_among
from winnow.stages.manifests import funnel, funnel_problems, manifest_row
from winnow.store.judgements import texts_of
from winnow.store.store import Store


@dataclass(frozen=True)
class Outcome:
    """One check of one manifest."""

    name: str
    version: str
    passed: bool
    detail: str


def check_manifest(store: Store, config: Config, version: str | None = None) -> list[Outcome]:
    """Check a manifest (the newest unless named) against texts, pairs, budget, digest and funnel."""
    with store.read() as connection:
        row = manifest_row(connection, version)
    tokenizer = stored_checkpoint(store, row["checkpoint"]).tokenizer
    with store.read("decisions") as connection:
        counted = funnel(connection, row["selection"], tokenizer)
    unequal = funnel_problems(counted)
    unequal += [
        f"source '{source}': a record without a decision" for source in counted if "not_judged" in counted[source]
    ]
    manifest = read_manifest(store.home.resolve(row["path"]))
    rows = manifest.rows
    ids = ids_to_numpy(rows["doc_id"])
    documents = pa.table({"doc_id": ids_from_numpy(ids[np.argsort(ids_as_keys(ids), order=("high", "low"))])})
    leaking = _leaking(store, config, documents)
    pairs = _pairs_inside(store, config, documents)
    problems = verify_manifest(store.home.resolve(row["path"])).problems
    if manifest.digest != row["digest"]:
        problems = [*problems, f"the store knows {row['version']} by digest {row['digest']}, its folder has another"]
    tokens = sum(
        count * times for count, times in zip(rows["tokens"].to_pylist(), rows["repeats"].to_pylist(), strict=True)
    )
    model = store.query(
        "SELECT spearman, reason FROM influence_models WHERE model = $model", {"model": row["influence_model"]}
    )
    name = row["version"]
    used, budget = bool(row["influence_model_used"]), int(row["budget_tokens"])
    return [
        Outcome("funnel_equality", name, not unequal, "; ".join(unequal) or "records = kept + removed + quarantined"),
        Outcome("no_reference_leakage", name, not leaking, leaking or f"{len(rows)} documents compared anew"),
        Outcome("no_duplicate_pair", name, not pairs, pairs or f"{len(rows)} documents sketched and compared anew"),
        Outcome("within_budget", name, tokens <= budget, f"{tokens:,} of {budget:,} tokens"),
        Outcome("digest_verifies", name, not problems, "; ".join(problems) or row["digest"]),
        Outcome(
            "influence_model_above_floor", name, used,
            f"held-out Spearman {model[-1][0]:.3f}" if used and model else str(model[-1][1] if model else "no model"),
        ),
    ]  # fmt: skip


def _leaking(store: Store, config: Config, documents: pa.Table) -> str:
    found = []
    sets = waiting_sets(store, config.contamination)
    comparisons = [one.comparison() for one in sets]
    common = {one.found.name: common_ngrams(store, one) for one in sets}
    for texts in texts_of(store, documents):
        for comparison, overlap in zip(comparisons, compare_all(texts, comparisons, common), strict=True):
            rows = overlap.documents.filter(overlap.documents["contaminated"])
            for row in rows.select(["doc_id", "longest_match", "score", "part"]).to_pylist():
                shared = f"shares {row['longest_match']} words in a row with {comparison.name}"
                if comparison.rule.method == "gapped":
                    shared = f"has {row['score']:.2f} of the {row['part']} of an item of {comparison.name}"
                found.append(f"{row['doc_id']} {shared}")
    return "; ".join(sorted(found)[:5])


def _pairs_inside(store: Store, config: Config, documents: pa.Table) -> str:
    pairs = pairs_among(store, documents, make_plan(config.duplicates)).to_pylist()
    return "; ".join(f"{pair['doc_a']} and {pair['doc_b']} have Jaccard {pair['similarity']:.3f}" for pair in pairs[:5])
