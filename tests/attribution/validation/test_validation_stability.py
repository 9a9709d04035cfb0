"""Scores drowned in noise are flagged, those that are not are not; variance is put where it was planted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from winnow.attribution.validation.stability import (
    _moderated_test,
    pairs_held,
    stability,
    standardised,
    variance_shares,
)
from winnow.errors import UserError


def planted(runs: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two queries, 200 documents of which 60 have a signal of 4 (of alternating sign), in units of any run's own."""
    generator = np.random.default_rng(seed)
    signal = np.zeros((2, 200))
    signal[:, :60] = 4.0 * np.where(np.arange(60) % 2, 1.0, -1.0)
    scores = signal + noise * generator.normal(size=(runs, 2, 200))
    return scores * generator.uniform(0.1, 50.0, (runs, 1, 1)) + generator.normal(size=(runs, 1, 1)), signal != 0.0


def test_scores_drowned_in_noise_are_flagged_and_the_others_are_not() -> None:
    scores, real = planted(runs=4, noise=1.0)
    result = stability("x", scores)
    assert result.drowned[real].mean() < 0.05
    assert result.drowned[~real].mean() > 0.85
    assert result.signal_to_noise > 2.0


def test_when_all_is_noise_nearly_everything_is_flagged() -> None:
    generator = np.random.default_rng(1)
    result = stability("x", generator.normal(size=(3, 4, 300)))
    assert result.drowned_share > 0.88
    assert result.signal_to_noise < 0.1
    assert result.held_interval[0] < 0.53 and abs(result.held - 0.5) < 0.03


def test_runs_that_agree_hold_every_pair_and_drown_only_the_typical_document() -> None:
    scores = np.tile(np.arange(51.0), (3, 1, 1))
    result = stability("x", scores)
    assert result.held == 1.0 and result.signal_to_noise > 1e20
    assert np.flatnonzero(result.drowned[0]).tolist() == [25]


def test_a_document_without_a_score_in_one_run_is_flagged() -> None:
    scores, _ = planted(runs=3, noise=0.5)
    scores[1, 0, 7] = np.nan
    result = stability("x", scores)
    assert result.drowned[0, 7] and np.isnan(result.probability[0, 7]) and not result.drowned[1, 7]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_neither_the_unit_of_a_run_nor_the_order_of_documents_matters(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(3, 1, 40))
    order, unit = generator.permutation(40), generator.uniform(0.5, 9.0, (3, 1, 1))
    one, other = stability("x", scores), stability("x", (scores * unit + 3.0)[:, :, order])
    assert np.allclose(other.probability, one.probability[:, order])
    assert other.held == pytest.approx(one.held) and other.signal_to_noise == pytest.approx(one.signal_to_noise)


def test_with_many_runs_the_moderated_test_is_the_ordinary_t_test() -> None:
    generator = np.random.default_rng(2)
    # Standard deviations that differ a hundredfold: nothing to borrow from the others.
    values = 0.05 + np.exp(generator.normal(0.0, 2.0, 80)) * generator.normal(size=(60, 80))
    assert np.allclose(_moderated_test(values), ttest_1samp(values, 0.0).pvalue, atol=0.02)


def test_the_moderated_test_rejects_as_often_as_it_says_with_three_runs() -> None:
    generator = np.random.default_rng(3)
    spread = np.exp(generator.normal(0.0, 0.5, 4000))
    rejected = (_moderated_test(spread * generator.normal(size=(3, 4000))) < 0.05).mean()
    assert 0.03 < rejected < 0.07


def test_pairs_held_are_counted_as_by_hand() -> None:
    first, second = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    assert pairs_held(np.stack([first, second])) == pytest.approx(5 / 6)
    assert pairs_held(np.stack([first, np.ones(4)])) == 0.5


def test_variance_is_put_where_it_was_planted() -> None:
    generator = np.random.default_rng(4)
    shape = (6, 5, 2, 800)
    document = generator.normal(size=(1, 1, *shape[2:]))
    by_seed = generator.normal(size=(6, 1, *shape[2:]))
    by_checkpoint = generator.normal(size=(1, 5, *shape[2:]))
    rest = generator.normal(size=shape)
    shares = variance_shares(2.0 * document + by_seed + 0.5 * by_checkpoint + rest)
    expected = {"document": 4.0, "seed": 1.0, "checkpoint": 0.25, "rest": 1.0}
    for name, value in expected.items():
        assert shares[name] == pytest.approx(value / 6.25, abs=0.04), name
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_run_alone_says_nothing_about_stability() -> None:
    with pytest.raises(UserError, match="two runs"):
        stability("x", np.ones((1, 2, 5)))
    with pytest.raises(UserError, match="2 x 2"):
        variance_shares(np.ones((1, 2, 2, 5)))
    assert standardised(np.ones((2, 4))).tolist() == np.zeros((2, 4)).tolist()
