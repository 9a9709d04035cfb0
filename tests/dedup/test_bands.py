"""Band plans against published configurations, band keys against xxhash."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash

from winnow.dedup.bands import BandPlan, band_keys, plan_bands, s_curve
from winnow.errors import UserError


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


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
@pytest.mark.parametrize("num_perm", [64, 128, 256])
@pytest.mark.parametrize("recall", [0.9, 0.98, 0.999])
def test_plan_has_the_most_rows_that_reach_the_recall(threshold, num_perm, recall):
    plan = plan_bands(threshold, num_perm, recall)
    assert plan.bands * plan.rows <= num_perm
    assert plan.recall_at_threshold >= recall
    assert s_curve(num_perm // (plan.rows + 1), plan.rows + 1, threshold) < recall


def test_default_plan_is_21_bands_of_6_rows():
    plan = plan_bands(0.8)
    assert (plan.bands, plan.rows) == (21, 6)
    assert plan.recall_at_threshold == pytest.approx(0.9983, abs=1e-4)
    assert plan.recall(0.3) < 0.02


def test_impossible_plans_are_refused():
    with pytest.raises(UserError, match="4 permutations"):
        plan_bands(0.1, num_perm=4)
    for threshold, num_perm, recall in ((0, 128, 0.9), (1, 128, 0.9), (0.8, 0, 0.9), (0.8, 128, 1)):
        with pytest.raises(UserError, match="make no banding"):
            plan_bands(threshold, num_perm, recall)


def test_band_key_is_the_hash_of_the_bands_rows_and_number():
    signed = np.random.default_rng(0).integers(0, 2**32, (300, 128), dtype=np.uint32)
    plan = plan_bands(0.8)
    keys = band_keys(signed, plan)
    assert keys.shape == (300, plan.bands) and keys.dtype == np.uint64
    for i in (0, 17, 299):
        for band in range(plan.bands):
            part = signed[i, band * plan.rows : (band + 1) * plan.rows].astype("<u4").tobytes()
            assert int(keys[i, band]) == xxhash.xxh64_intdigest(part, band)
    assert np.array_equal(band_keys(signed[::-1], plan), keys[::-1])


def test_equal_rows_in_two_bands_have_different_keys():
    keys = band_keys(np.zeros((1, 128), np.uint32), plan_bands(0.8))
    assert len(np.unique(keys)) == keys.size


def test_signatures_of_another_width_are_refused():
    with pytest.raises(UserError, match="128 permutations"):
        band_keys(np.zeros((2, 64), np.uint32), plan_bands(0.8))
