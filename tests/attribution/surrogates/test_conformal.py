import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.attribution.surrogates import make_surrogate
from winnow.attribution.surrogates.conformal import half_width
from winnow.attribution.surrogates.interface import Features


def test_the_half_width_is_the_next_residual_above_the_level():
    residuals = np.array([3.0, 1.0, 2.0, 4.0])
    assert half_width(residuals, 0.8) == 4.0 and half_width(residuals, 0.6) == 3.0 and half_width(residuals, 0.2) == 1.0
    assert half_width(residuals, 0.81) == np.inf and half_width(np.zeros(0), 0.5) == np.inf


@given(st.integers(1, 60), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
@settings(max_examples=40, deadline=None)
def test_among_exchangeable_residuals_the_share_within_is_the_level_and_at_most_one_rank_more(count, level):
    ranks = np.arange(count + 1, dtype=float)  # which of n + 1 equally likely places a new document takes
    inside = [ranks[place] <= half_width(np.delete(ranks, place), level) for place in range(count + 1)]
    assert level - 1e-9 <= np.mean(inside)
    if np.isfinite(half_width(ranks[1:], level)):
        assert np.mean(inside) <= level + 1 / (count + 1) + 1e-9


@pytest.mark.parametrize(("count", "level"), [(9, 0.8), (19, 0.9)])
def test_the_interval_covers_as_often_as_it_says_with_a_handful_of_skewed_probes(count, level):
    draw, covered, runs = np.random.default_rng(0), [], 200
    weights = draw.normal(size=4)
    for _ in range(runs):
        vectors = draw.normal(size=(30 + count + 25, 4)).astype(np.float32)
        targets = vectors @ weights + np.exp(1.5 * draw.normal(size=len(vectors))) * (1 + np.abs(vectors[:, 0]))
        ids = draw.integers(0, 256, (len(vectors), 16), dtype=np.uint8)
        features = Features(ids, vectors, np.empty((len(vectors), 0)))
        predictor = make_surrogate("ridge").fit(features.take(np.arange(30)), targets[:30])
        missed = np.abs(targets[30:] - predictor.predict(features.take(np.arange(30, len(vectors)))))
        covered.append(np.mean(missed[count:] <= half_width(missed[:count], level)))
    error = np.std(covered) / np.sqrt(runs)
    assert level - 3 * error <= np.mean(covered) <= level + 1 / (count + 1) + 3 * error
