"""The whole path, from texts to keepers, on corpora whose near-duplicates are known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from winnow.dedup.bands import plan_bands

BINS = ((0.8, 0.85), (0.85, 0.95), (0.95, 1.01))


@pytest.mark.parametrize(
    "folder",
    [
        "neardup_versioned_docs",
        "neardup_post_revisions",
        "neardup_wiki_snapshots",
        pytest.param("usenet", marks=pytest.mark.slow),
    ],
)
def test_known_pairs_are_found_and_every_duplicate_resembles_its_keeper(folder, rows, new_store, oracle):
    texts = {row["id"]: row["text"] for row in rows(folder, "docs")}
    store = new_store()
    store.deliver(list(texts.values()))
    ids, keepers = store.run(0.8)
    place = {store.texts[key]: i for i, key in enumerate(ids)}
    truth = {}
    for row in rows(folder, "pairs"):
        a, b = sorted((place[texts[row["a"]]], place[texts[row["b"]]]))
        if a != b and row["jaccard"] >= 0.8:
            truth[a, b] = row["jaccard"]
    for low, high in BINS:
        pairs = [pair for pair, similarity in truth.items() if low <= similarity < high]
        found = sum(keepers.keeper[a] == keepers.keeper[b] for a, b in pairs)
        assert found >= 0.97 * len(pairs), f"{folder}: {found} of {len(pairs)} pairs in [{low}, {high})"

    shingles = {i: set(oracle(store.texts[ids[i]])) for i in {*keepers.duplicates, *keepers.keeper[keepers.duplicates]}}
    for i in keepers.duplicates.tolist():
        one, other = shingles[i], shingles[int(keepers.keeper[i])]
        exact = len(one & other) / len(one | other)
        assert exact >= 0.8 and keepers.similarity[i] == exact


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


@pytest.mark.parametrize("max_bucket", [4, 256])
@pytest.mark.parametrize("batches", [2, 5])
def test_batches_in_any_order_give_the_keepers_of_one_delivery(new_store, max_bucket, batches):
    texts = revisions(120)
    settings = {"plan": plan_bands(0.8, 32, 0.9), "max_bucket": max_bucket, "centers": 2}
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


def test_withdrawn_documents_leave_no_trace(new_store):
    texts = revisions(120)
    settings = {"plan": plan_bands(0.8, 32, 0.9), "max_bucket": 4, "centers": 2}
    store = new_store(**settings)
    store.deliver(texts)
    store.run()
    gone = sorted(store.texts)[::3]
    store.withdraw(gone)
    fresh = new_store(**settings)
    fresh.deliver(list(store.texts.values()))
    assert label(*store.run()) == label(*fresh.run())
