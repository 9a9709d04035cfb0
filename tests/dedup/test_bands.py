"""Band plans against published configurations and datasketch, band keys against xxhash."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from winnow.config import Duplicates
from winnow.dedup.bands import BandPlan, band_keys, band_keys_of_one, pair_density, plan_bands, s_curve
from winnow.dedup.one_text import sign_text
from winnow.dedup.sketch import band, make_plan, sketch
from winnow.errors import UserError
from winnow.identity import doc_id


@pytest.mark.parametrize(
    ("bands", "rows", "midpoint", "chances"),
    [
        (14, 8, 0.719, (0.565, 0.924, 1.0)),  # FineWeb
        (20, 13, 0.794, (0.177, 0.677, 0.997)),  # NeMo Curator
        (26, 11, 0.744, (0.405, 0.903, 1.0)),  # Dolma 3
        (450, 20, 0.737, (0.302, 0.995, 1.0)),  # RefinedWeb
    ],
)
def test_s_curve_gives_the_known_chances(bands, rows, midpoint, chances):
    assert s_curve(bands, rows, np.array([0.7, 0.8, 0.9])) == pytest.approx(chances, abs=1e-3)
    assert BandPlan(0.8, bands * rows, bands, rows).midpoint == pytest.approx(midpoint, abs=1e-3)


@pytest.mark.parametrize(
    ("plan", "chances"),
    [((14, 9), (0.44, 0.87, 1.0)), ((9, 13), (0.08, 0.40, 0.93)), ((5, 25), (0.00, 0.02, 0.31))],
)
def test_s_curve_gives_the_chances_of_redpajamas_plans(plan, chances):
    assert s_curve(*plan, np.array([0.7, 0.8, 0.9])) == pytest.approx(chances, abs=6e-3)  # known to two digits


def test_s_curve_keeps_chances_that_rounding_would_lose():
    assert s_curve(10, 20, 0.1) == pytest.approx(10 * 0.1**20, rel=1e-12)
    assert s_curve(5, 3, np.array([0.0, 1.0])).tolist() == [0.0, 1.0]


# -- the planner ------------------------------------------------------------------------------------------------------


def cost(bands: int, rows: int, threshold: float) -> float:
    """Expected false candidates by the trapezoidal rule."""
    points = np.linspace(0, threshold, 20_001)
    values = pair_density(points) * (1 - (1 - points**rows) ** bands)
    return float(np.sum((values[1:] + values[:-1]) / 2) * (points[1] - points[0]))


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
@pytest.mark.parametrize("permutations", [16, 64, 100])
@pytest.mark.parametrize("recall", [0.9, 0.98])
def test_plan_has_the_fewest_false_candidates_of_all_that_reach_the_recall(threshold, permutations, recall):
    plan = plan_bands(threshold, permutations, recall)
    assert plan.bands * plan.rows <= permutations and plan.recall_at_threshold >= recall
    every = [
        (bands, rows)
        for bands in range(1, permutations + 1)
        for rows in range(1, permutations // bands + 1)
        if s_curve(bands, rows, threshold) >= recall
    ]
    assert (plan.bands, plan.rows) in every
    least = min(cost(bands, rows, threshold) for bands, rows in every)
    assert cost(plan.bands, plan.rows, threshold) == pytest.approx(least, rel=1e-4)


def test_default_plan_is_17_bands_of_7_rows():
    plan = plan_bands(0.8)
    assert (plan.bands, plan.rows, plan.name) == (17, 7, "17b7r@0.8")
    assert plan.recall_at_threshold == pytest.approx(0.9817, abs=1e-4)
    assert plan.recall(0.3) < 0.005


def test_false_candidates_are_the_area_under_the_curve_below_the_threshold():
    plan = plan_bands(0.8)
    assert plan.false_candidates() == pytest.approx(cost(17, 7, 0.8), rel=1e-5)
    assert plan.false_candidates(np.zeros_like) == 0
    assert plan.false_candidates(np.ones_like) > plan.false_candidates()


def test_impossible_plans_are_refused():
    with pytest.raises(UserError, match="4 permutations"):
        plan_bands(0.1, permutations=4)
    for threshold, permutations, recall in ((0, 128, 0.9), (1, 128, 0.9), (0.8, 0, 0.9), (0.8, 128, 1)):
        with pytest.raises(UserError, match="make no banding"):
            plan_bands(threshold, permutations, recall)
    with pytest.raises(UserError, match="'recall' or 'datasketch-optimal'"):
        plan_bands(0.8, mode="best")


@pytest.mark.parametrize(
    ("threshold", "permutations", "bands", "rows"),
    [(0.7, 128, 14, 9), (0.8, 128, 9, 13), (0.9, 128, 5, 25), (0.7, 256, 25, 10), (0.7, 240, 24, 10)],
)
def test_datasketch_optimal_gives_the_published_plans(threshold, permutations, bands, rows):
    plan = plan_bands(threshold, permutations, mode="datasketch-optimal")
    assert (plan.bands, plan.rows, plan.mode) == (bands, rows, "datasketch-optimal")


@pytest.mark.parametrize("threshold", [0.3, 0.45, 0.5, 0.65, 0.8, 0.95])
@pytest.mark.parametrize("permutations", [16, 50, 64])
def test_datasketch_optimal_is_what_the_installed_datasketch_takes(threshold, permutations):
    from datasketch.lsh import _optimal_param

    plan = plan_bands(threshold, permutations, mode="datasketch-optimal")
    assert (plan.bands, plan.rows) == _optimal_param(threshold, permutations, 0.5, 0.5)


# -- the keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint32, np.uint64])
def test_band_key_is_the_hash_of_the_bands_rows_and_number(kind):
    signed = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (300, 128), dtype=kind)
    plan = plan_bands(0.8)
    keys = band_keys(signed, plan)
    assert keys.shape == (300, plan.bands) and keys.dtype == np.uint64
    for i in (0, 17, 299):
        for place in range(plan.bands):
            part = signed[i, place * plan.rows : (place + 1) * plan.rows].astype(f"<u{signed.itemsize}").tobytes()
            assert int(keys[i, place]) == xxhash.xxh64_intdigest(part, place)
        assert np.array_equal(band_keys_of_one(signed[i], plan), keys[i])
    assert np.array_equal(band_keys(signed[::-1], plan), keys[::-1])
    assert np.array_equal(band_keys(np.repeat(signed, 40, axis=0), plan, threads=2), np.repeat(keys, 40, axis=0))


def test_equal_rows_in_two_bands_have_different_keys():
    keys = band_keys(np.zeros((1, 128), np.uint32), plan_bands(0.8))
    assert len(np.unique(keys)) == keys.size


def test_signatures_of_another_width_or_type_are_refused():
    for make in (lambda signed, plan: band_keys(signed, plan), lambda signed, plan: band_keys_of_one(signed[0], plan)):
        with pytest.raises(UserError, match="128 permutations"):
            make(np.zeros((2, 64), np.uint32), plan_bands(0.8))
        with pytest.raises(UserError, match="int64"):
            make(np.zeros((2, 128), np.int64), plan_bands(0.8))


@pytest.mark.parametrize("scheme", ["winnow", "datasketch", "datasketch-legacy", "datatrove"])
def test_one_text_has_the_keys_that_the_store_would_have(scheme, multilingual):
    plan = make_plan(Duplicates(scheme=scheme))
    ids = pa.array([doc_id(text) for text in multilingual], pa.uuid())
    texts = pa.table({"doc_id": ids, "text": pa.array(multilingual, pa.large_string())})
    stored = band(sketch(texts, plan, threads=1), plan, threads=1)["keys"].to_pylist()
    for text, keys in zip(multilingual, stored, strict=True):
        signature = sign_text(text, plan.sketching)
        assert (None if signature is None else band_keys_of_one(signature, plan.bands).tolist()) == keys
