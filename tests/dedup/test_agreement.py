"""Refusing candidates by their signatures: the bound holds, the kernel counts right, real pairs are not lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from winnow.dedup.agreement import REFUSED, Fingerprints, least_agreement, passing
from winnow.dedup.bands import band_keys, plan_bands
from winnow.dedup.groups import near_duplicate_groups
from winnow.dedup.minhash import Sketching, signatures
from winnow.dedup.positions import pack
from winnow.identity import doc_ids, ids_to_numpy


@pytest.mark.parametrize("permutations", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99])
def test_the_least_agreement_is_the_highest_that_keeps_the_odds(threshold: float, permutations: int) -> None:
    binomial = pytest.importorskip("scipy.stats").binom
    chance = threshold + (1 - threshold) / 256
    least = least_agreement(threshold, permutations)
    assert binomial.cdf(least - 1, permutations, chance) <= REFUSED * (1 + 1e-6)
    assert binomial.cdf(least, permutations, chance) > REFUSED * (1 - 1e-6)
    similarity = np.array([0.1, threshold, 1.0])
    expected = binomial.sf(least - 1, permutations, similarity + (1 - similarity) / 256)
    assert passing(similarity, least, permutations) == pytest.approx(expected, abs=1e-12)


def test_identical_sets_are_never_refused_at_threshold_one() -> None:
    assert least_agreement(1.0, 128) == 128


@pytest.mark.parametrize("held_bytes", [1 << 20, 0])
@pytest.mark.parametrize("permutations", [1, 33, 128])
def test_pairs_alike_are_those_with_enough_equal_bytes(tmp_path: Path, permutations: int, held_bytes: int) -> None:
    random = np.random.default_rng(permutations)
    rows = random.integers(0, 3, (50, permutations)).astype(np.uint32) + np.uint32(256)
    left, right = random.integers(0, 50, (2, 400))
    with Fingerprints(50, permutations, 0.5, tmp_path, held_bytes) as fingerprints:
        order = random.permutation(50)
        fingerprints.add(order, rows[order])
        fingerprints.least = wanted = -(-permutations // 3)
        alike = fingerprints.alike(pack(left, right))
    agreeing = (rows[left] == rows[right]).sum(axis=1)
    assert 0 < alike.sum() < 400
    assert (alike == (agreeing >= wanted)).all()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["winnow", "datasketch", "datatrove"])
def test_with_and_without_signatures_the_same_pairs_are_verified_and_fewer_texts_read(scheme: str) -> None:
    random = np.random.default_rng(3)
    words = [f"w{number}" for number in range(400)]
    template = " ".join(random.choice(words, 60))
    texts = [f"{template} {' '.join(random.choice(words, 80))}" for _ in range(150)]  # alike in a template only
    for text in texts[:60]:
        parts = text.split()
        for place in random.choice(len(parts), int(random.integers(0, 8)), replace=False):
            parts[place] = "changed"
        texts.append(" ".join(parts))
    texts = sorted(set(texts))
    array = pa.array(texts, pa.large_string())
    signed, _ = signatures(array, Sketching(scheme=scheme))
    keys = band_keys(signed, plan_bands(0.7, 128, recall=0.9999))
    ids = ids_to_numpy(doc_ids(texts))
    without = near_duplicate_groups(ids, keys, array, 0.7)
    found = near_duplicate_groups(ids, keys, array, 0.7, signatures=signed)
    assert len(found.pairs) > 30
    assert (found.pairs == without.pairs).all() and (found.similarity == without.similarity).all()
    assert (found.keepers.keeper == without.keepers.keeper).all()
    assert len(found.pairs) <= found.candidates < without.candidates / 4
