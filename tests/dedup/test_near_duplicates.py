"""The whole path, from texts to keepers, on corpora whose near-duplicates are known exactly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from winnow.dedup.bands import band_keys, plan_bands
from winnow.dedup.groups import near_duplicate_groups
from winnow.dedup.keepers import assign_keepers
from winnow.dedup.minhash import signatures
from winnow.identity import doc_ids, ids_to_numpy

UNREACHABLE = "neardup_post_revisions", 0.9
FOLDERS = ("neardup_versioned_docs", "neardup_post_revisions", "neardup_wiki_snapshots")


@pytest.mark.parametrize(
    ("folder", "threshold"),
    [
        *((folder, threshold) for folder in FOLDERS for threshold in (0.7, 0.8, 0.9)),
        *(pytest.param("usenet", threshold, marks=pytest.mark.slow) for threshold in (0.7, 0.8, 0.9)),
    ],
)
def test_known_pairs_are_found_and_every_duplicate_resembles_its_keeper(folder, threshold, rows, new_store, oracle):
    texts = {row["id"]: row["text"] for row in rows(folder, "docs")}
    store = new_store(plan=plan_bands(threshold))
    store.deliver(list(texts.values()))
    ids, keepers = store.run(threshold)
    place = {store.texts[key]: i for i, key in enumerate(ids)}
    truth = {}
    for row in rows(folder, "pairs"):
        a, b = sorted((place[texts[row["a"]]], place[texts[row["b"]]]))
        if a != b and row["jaccard"] >= threshold:
            truth[a, b] = row["jaccard"]
    # Were every true pair known, some would still be lost: a document has one keeper, and a chain has two.
    best = assign_keepers(
        np.array([list(key) for key in ids], np.uint8),
        np.array(list(truth), np.int64).reshape(-1, 2),
        np.array(list(truth.values())),
        np.zeros(len(ids), np.int32),
        np.array([len(store.texts[key]) for key in ids]),
    )
    for low, high in ((threshold, threshold + 0.05), (threshold + 0.05, 0.95), (0.95, 1.01)):
        pairs = [pair for pair, similarity in truth.items() if low <= similarity < high]
        known = sum((ids[a], ids[b]) in store.pairs for a, b in pairs)
        found = sum(keepers.keeper[a] == keepers.keeper[b] for a, b in pairs)
        possible = sum(best.keeper[a] == best.keeper[b] for a, b in pairs)
        where = f"of {len(pairs)} pairs in [{low}, {high})"
        assert known >= 0.97 * len(pairs), f"{known} {where} were candidates"
        if (folder, threshold) == UNREACHABLE:  # by any choice of keepers: at most 643 of all 658 pairs share one
            assert found >= 0.955 * len(pairs) and found >= 0.97 * possible, f"{found} {where} share a keeper"
        else:
            assert found >= 0.97 * len(pairs), f"{found} {where} share a keeper"

    shingles = {i: set(oracle(store.texts[ids[i]])) for i in {*keepers.duplicates, *keepers.keeper[keepers.duplicates]}}
    for i in keepers.duplicates.tolist():
        one, other = shingles[i], shingles[int(keepers.keeper[i])]
        exact = len(one & other) / len(one | other)
        assert exact >= threshold and keepers.similarity[i] == exact


def label(ids: list[bytes], keepers) -> dict[bytes, tuple]:
    return {
        key: (ids[keepers.keeper[i]], ids[keepers.component[i]], keepers.similarity[i], keepers.group_size[i])
        for i, key in enumerate(ids)
    }


def revisions(count: int) -> list[str]:
    """Templated documents in families: most of a text is shared by its family, a tail is its own."""
    rng = np.random.default_rng(3)
    out = []
    for family in range(6):
        base = [f"f{family}w{i}" for i in range(120)]
        for version in range(count // 6):
            words = list(base)
            for spot in rng.integers(0, 120, version % 4):
                words[spot] = f"edit{rng.integers(1000)}"
            out.append(" ".join([*words, f"v{family}x{version}"]))
    return out


@pytest.mark.parametrize(
    ("max_bucket", "batches", "touched"), [(4, 2, False), (4, 5, True), (256, 5, False), (256, 2, True)]
)
def test_batches_in_any_order_give_the_keepers_of_one_delivery(new_store, max_bucket, batches, touched):
    texts = revisions(120)
    settings = {"plan": plan_bands(0.8, 32, 0.9), "max_bucket": max_bucket, "centers": 2, "touched": touched}
    whole = new_store(**settings)
    whole.deliver(texts)
    expected = label(*whole.run())
    assert len({row[0] for row in expected.values()}) < len(texts) / 2
    for seed in (1, 2):
        store = new_store(**settings)
        for part in np.array_split(np.random.default_rng(seed).permutation(len(texts)), batches):
            store.deliver([texts[i] for i in part])
            store.run()
        assert label(*store.run()) == expected


@pytest.mark.parametrize("touched", [False, True])
def test_withdrawn_documents_leave_no_trace(new_store, touched):
    texts = revisions(120)
    settings = {"plan": plan_bands(0.8, 32, 0.9), "max_bucket": 4, "centers": 2, "touched": touched}
    store = new_store(**settings)
    store.deliver(texts)
    store.run()
    gone = sorted(store.texts)[::3]
    store.withdraw(gone)
    fresh = new_store(**settings)
    fresh.deliver(list(store.texts.values()))
    assert label(*store.run()) == label(*fresh.run())


def grouped(texts: list[str], threads: int | None = 1, scratch: Path | None = None, **limits: int):
    """Group texts by the library's one call; return text -> (keeper's text, similarity, group size)."""
    ids = ids_to_numpy(doc_ids(texts))
    signed, present = signatures(pa.array(texts, pa.large_string()), threads=threads)
    assert present.all()
    keys = band_keys(signed, plan_bands(0.8), threads)
    characters = np.array([len(text) for text in texts])
    found = near_duplicate_groups(
        ids, keys, pa.array(texts), 0.8, characters=characters, scratch=scratch, threads=threads, **limits
    )
    keepers = found.keepers
    return {
        text: (texts[keepers.keeper[i]], keepers.similarity[i], keepers.group_size[i]) for i, text in enumerate(texts)
    }


def test_templated_documents_of_different_content_are_all_kept():
    """Half of every document is the same boilerplate: Jaccard 1/3, far more alike than two documents by chance."""
    rng = np.random.default_rng(11)
    template = " ".join(f"boilerplate{i}" for i in range(100))
    texts = [f"{template} {' '.join(f'c{word}' for word in rng.integers(0, 10**6, 100))}" for _ in range(400)]
    copies = [f"{text} once more" for text in texts[:20]]  # and what is a duplicate among them is found
    found = grouped([*texts, *copies])
    assert all(found[text][0] in (text, f"{text} once more") for text in texts)
    assert all(found[copy][0] == copy and found[copy][2] == 2 for copy in copies)
    assert sum(keeper != text for text, (keeper, _, _) in found.items()) == 20


def test_a_template_that_makes_up_nearly_all_of_many_documents_leaves_one_of_each_group():
    """More near-identical documents than a bucket is compared in full: the centers hold them together."""
    template = [f"word{i}" for i in range(300)]
    texts = [" ".join([*template[:150], f"name{number}", *template[150:]]) for number in range(500)]
    found = grouped(texts)
    assert len({keeper for keeper, _, _ in found.values()}) == 1
    assert {size for _, _, size in found.values()} == {500}


def test_order_threads_and_memory_change_no_group(tmp_path):
    texts = revisions(120)
    expected = grouped(texts)
    assert len({keeper for keeper, _, _ in expected.values()}) < len(texts) / 2
    shuffled = [texts[i] for i in np.random.default_rng(4).permutation(len(texts))]
    assert grouped(shuffled, threads=2) == expected
    assert grouped(shuffled, scratch=tmp_path, held_bytes=1000) == expected


HASH_SEED = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import test_near_duplicates as module
texts = module.revisions(60)
print(json.dumps([[k, float(s), int(n)] for k, s, n in module.grouped(texts).values()]))
"""


@pytest.mark.slow
def test_the_hash_seed_of_python_changes_no_group():
    paths = f'["{Path(__file__).parent}", "{Path(__file__).parents[2]}"]'
    answers = {
        subprocess.run(
            [sys.executable, "-c", HASH_SEED, paths],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(answers) == 1
