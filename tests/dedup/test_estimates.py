"""What a band plan is expected to find and cost, against what random signatures do."""

from __future__ import annotations

import numpy as np
import pytest

from winnow.dedup.bands import BandPlan, band_keys, plan_bands
from winnow.dedup.buckets import FILTER_BYTES, FILTER_KEY_BYTES
from winnow.dedup.candidates import MAX_BUCKET
from winnow.dedup.estimates import estimate, sample_similarity

PLAN = plan_bands(0.8)


def pairs_of_signatures(similarity: float, count: int, seed: int = 0) -> np.ndarray:
    """Return signatures of 2 * count documents, of which 2i and 2i + 1 have the similarity, all others none."""
    rng = np.random.default_rng(seed)
    signed = rng.integers(0, 2**32, (2 * count, 128), dtype=np.uint32)
    same = rng.random((count, 128)) < similarity
    signed[1::2] = np.where(same, signed[0::2], signed[1::2])
    return signed


def test_a_sample_counts_every_pair_once_by_its_agreeing_positions() -> None:
    signed = pairs_of_signatures(0.5, 20)
    sample = sample_similarity(signed)
    assert sample.pairs == 40 * 39 // 2 == sample.agreeing.sum()
    expected = np.zeros(129, np.int64)
    for i in range(40):
        for j in range(i):
            expected[int((signed[i] == signed[j]).sum())] += 1
    assert np.array_equal(sample.agreeing, expected)
    assert np.array_equal(sample_similarity(signed[::-1]).agreeing, expected)


def test_false_candidates_of_a_sample_are_those_that_banding_makes() -> None:
    plan = BandPlan(0.8, 128, 32, 4)
    signed = pairs_of_signatures(0.4, 400)
    keys = band_keys(signed, plan, threads=1)
    found = sum(bool((keys[i] == keys[i + 1]).any()) for i in range(0, len(keys), 2))
    sample = sample_similarity(signed)
    assert sample.false_candidates(plan) * sample.pairs == pytest.approx(found, rel=0.15)


def test_true_duplicates_are_no_false_candidates() -> None:
    sample = sample_similarity(pairs_of_signatures(1.0, 50))
    assert sample.false_candidates(PLAN) == 0


def test_false_candidates_of_a_document_grow_with_the_corpus() -> None:
    small, large = estimate(1_000, 2_000, PLAN), estimate(1_000_000, 2_000, PLAN)
    assert large.false_candidates == pytest.approx(1_000 * small.false_candidates, rel=0.01)
    assert estimate(1_000, 2_000, PLAN, sample=sample_similarity(pairs_of_signatures(0, 30))).false_candidates == 0
    assert estimate(0, 0, PLAN).false_candidates == estimate(1, 10, PLAN).false_candidates == 0


def test_boilerplate_costs_no_more_than_its_buckets_allow() -> None:
    alike = sample_similarity(pairs_of_signatures(0.7, 1))
    found = estimate(10_000_000, 2_000, PLAN, sample=alike)
    assert alike.false_candidates(PLAN) > 0.1  # a million candidates a document, were they all compared
    assert found.false_candidates == PLAN.bands * (MAX_BUCKET - 1)


def test_disk_is_that_of_the_new_documents_and_follows_signature_and_bands() -> None:
    every = estimate(1_000, 2_000, PLAN)
    assert every.parts["sketches"] == 1_000 * (24 + 128 * 4) and every.parts["bands"] == 1_000 * (24 + 17 * 8)
    assert every.disk_bytes == sum(every.parts.values()) and set(every.scratch.values()) == {0}
    assert estimate(1_000, 2_000, PLAN, new_documents=10).disk_bytes * 100 == every.disk_bytes
    assert estimate(1_000, 2_000, PLAN, value_bytes=8).parts["sketches"] == 1_000 * (24 + 128 * 8)


def test_what_memory_does_not_hold_goes_to_scratch_files() -> None:
    large = estimate(10_000_000, 2_000, PLAN)
    assert large.scratch["band keys"] == 10_000_000 * 17 * 8 and large.scratch["shingles"] > 10**9
    assert large.disk_bytes == sum(large.parts.values()) + sum(large.scratch.values())


def test_memory_is_the_largest_step_and_bounded_where_the_steps_are() -> None:
    found = estimate(1_000_000, 2_000, PLAN, threads=2)
    assert found.memory_bytes == found.memory[found.largest_step] == max(found.memory.values())
    assert found.memory_bytes < 3 * 2**30
    longer = estimate(1_000_000, 200_000, PLAN, threads=2)
    assert longer.memory_bytes < 1.1 * found.memory_bytes  # batches are cut by bytes
    assert estimate(100, 2_000, PLAN, threads=2).memory_bytes < 5_000_000
    assert (
        estimate(10_000_000, 2_000, PLAN, threads=8).memory["pairs"]
        > estimate(10**7, 2_000, PLAN, threads=2).memory["pairs"]
    )


def test_an_increment_counts_the_filter_of_its_keys_up_to_where_none_is_made() -> None:
    def pairs(new: int) -> int:
        return estimate(1_000_000, 2_000, PLAN, new_documents=new, threads=2).memory["pairs"]

    assert pairs(10_000) - pairs(1_000_000) == 10_000 * 17 * FILTER_KEY_BYTES
    assert pairs(900_000) - pairs(1_000_000) == FILTER_BYTES
