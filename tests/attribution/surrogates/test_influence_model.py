from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from winnow.attribution.correlation import bootstrap_interval, spearman
from winnow.attribution.surrogates import make_surrogate
from winnow.attribution.surrogates.files import load_model, save_model
from winnow.attribution.surrogates.interface import Features
from winnow.attribution.surrogates.model import FOLDS, fit_influence_model, fold_of
from winnow.errors import UserError


def _probes(count, seed=0, width=32, noise=0.2, strength=1.0):
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, 256, (count, 16), dtype=np.uint8)
    embeddings = generator.normal(size=(count, width)).astype(np.float32)
    signals = np.exp(generator.normal(size=(count, 3)) * 2)
    planted = embeddings @ generator.normal(size=width) + 3 * np.log(signals[:, 0])
    influence = 1e-4 * (strength * planted + noise * planted.std() * generator.normal(size=count))
    return ids, embeddings, signals, influence


NAMES = ("words", "links", "capitals")


def test_a_planted_linear_influence_is_recovered():
    ids, embeddings, signals, influence = _probes(400)
    model = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES)
    assert model.spearman >= 0.9
    assert model.spearman_low < model.spearman < model.spearman_high and model.usable
    _, more, columns, truth = _probes(400, seed=0)
    assert stats.spearmanr(model.predict(more, columns), truth).statistic > 0.9
    assert np.isclose(model.predict(embeddings, signals).mean(), influence.mean(), rtol=0.1, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_of_an_influence_that_features_do_not_tell_covers_zero(seed):
    ids, embeddings, signals, influence = _probes(150, seed=seed, width=384)
    shuffled = np.random.default_rng(seed).permutation(influence)
    model = fit_influence_model(ids, embeddings, signals, shuffled, signal_names=NAMES)
    assert model.spearman_low <= 0.0 <= model.spearman_high and not model.usable


def test_the_order_of_the_probes_changes_no_bit_and_predictions_do_not_depend_on_company():
    ids, embeddings, signals, influence = _probes(100)
    order = np.random.default_rng(1).permutation(100)
    ridge = make_surrogate("ridge", seed=3)
    first = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES, surrogate=ridge)
    turned = fit_influence_model(
        ids[order], embeddings[order], signals[order], influence[order], signal_names=NAMES, surrogate=ridge
    )
    assert (first.spearman, first.spearman_low) == (turned.spearman, turned.spearman_low)
    whole = first.predict(embeddings, signals)
    assert np.array_equal(turned.predict(embeddings[order], signals[order]), whole[order])
    assert np.array_equal(
        np.concatenate([first.predict(embeddings[i : i + 1], signals[i : i + 1]) for i in range(9)]), whole[:9]
    )


@pytest.mark.parametrize(
    ("influence", "reason"),
    [
        (np.zeros(60), "same influence"),
        (np.full(60, np.nan), "0 probes"),
        (np.where(np.arange(60) < 29, np.arange(60.0), np.nan), "29 probes"),
    ],
)
def test_targets_that_teach_nothing_give_a_recorded_outcome_that_predicts_the_mean(influence, reason, tmp_path):
    ids, embeddings, signals, _ = _probes(60)
    model = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES)
    assert reason in model.reason and not model.usable
    assert (model.spearman, model.spearman_low, model.spearman_high) == (0.0, 0.0, 0.0)
    assert np.ptp(model.predict(embeddings, signals)) == 0.0
    save_model(model, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").reason == model.reason


def test_features_that_tell_nothing_apart_give_a_recorded_outcome():
    ids, _, _, influence = _probes(60)
    model = fit_influence_model(ids, np.ones((60, 4), dtype=np.float32), None, influence)
    assert model.reason == "the features tell no two documents apart" and model.spearman == 0.0


def test_missing_and_wild_values_are_survived():
    ids, embeddings, signals, influence = _probes(200)
    signals = signals.copy()
    signals[::7, 0], signals[3, 1], signals[:, 2] = np.nan, 1e300, np.nan
    influence = influence.copy()
    influence[5], influence[6] = 1e3, np.nan
    model = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES)
    assert model.excluded == 1 and model.spearman > 0.5
    assert np.isfinite(model.predict(embeddings, signals)).all()


def test_a_saved_model_predicts_the_same_bits(tmp_path):
    ids, embeddings, signals, influence = _probes(80)
    model = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES)
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert np.array_equal(loaded.predict(embeddings, signals), model.predict(embeddings, signals))
    assert (loaded.spearman, loaded.features, loaded.probes) == (model.spearman, model.features, 80)
    with pytest.raises(UserError, match="fitted on 32"):
        loaded.predict(embeddings[:, :5], signals)
    (tmp_path / "other").write_bytes(b"{}")
    with pytest.raises(UserError, match="not an influence model"):
        load_model(tmp_path / "other")


def test_arrays_that_do_not_fit_each_other_are_refused():
    ids, embeddings, signals, influence = _probes(40)
    with pytest.raises(UserError, match="40 ids, 39 embeddings"):
        fit_influence_model(ids, embeddings[:39], signals, influence, signal_names=NAMES)
    with pytest.raises(UserError, match="names in signal_names"):
        fit_influence_model(ids, embeddings, signals, influence)
    with pytest.raises(UserError, match="probed twice"):
        fit_influence_model(ids[[0, *range(39)]], embeddings, signals, influence, signal_names=NAMES)


def test_spearman_equals_scipys_with_ties_and_its_interval_holds_it():
    generator = np.random.default_rng(0)
    left, right = generator.integers(0, 9, 200).astype(float), generator.normal(size=200)
    right += left
    assert spearman(left, right) == pytest.approx(stats.spearmanr(left, right).statistic)
    low, high = bootstrap_interval(left, right, seed=1)
    assert low < spearman(left, right) < high
    assert spearman(np.ones(5), right[:5]) == 0.0


def test_a_document_keeps_its_fold_whatever_it_is_probed_with():
    ids = _probes(500)[0]
    fold = fold_of(ids, 3)
    assert np.array_equal(fold_of(ids[::7], 3), fold[::7]) and not np.array_equal(fold_of(ids, 4), fold)
    assert np.bincount(fold, minlength=FOLDS).min() > 70


def test_the_former_model_is_tried_only_by_members_that_did_not_see_the_document():
    ids, embeddings, *_ = _probes(60, width=100)
    noise = np.random.default_rng(5).normal(size=60)  # nothing tells it, so who has seen it would give himself away
    former = fit_influence_model(ids, embeddings, None, noise)
    again = fit_influence_model(ids, embeddings, None, noise, previous=former)
    assert again.former.probes == 60 and again.former.low <= 0.0 <= again.former.high
    assert spearman(former.predict(embeddings), noise) > again.former.spearman + 0.3
    assert again.spearman_low <= 0.0 and again.former.own == again.spearman


def test_the_former_and_the_own_model_are_judged_on_the_same_documents():
    ids, embeddings, signals, influence = _probes(200)
    former = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES)
    former = replace(former, members=former.members[:2])  # as one whose folds are fewer
    now = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES, previous=former)
    tried = fold_of(ids, now.seed) < 2
    assert now.former.probes == tried.sum() < now.held_out == 200
    own = now.unseen(Features(ids, embeddings, signals, None))
    assert now.former.own == pytest.approx(spearman(own[tried], influence[tried])) != now.spearman


def test_a_former_model_still_ranks_what_has_not_changed_and_not_what_has():
    ids, embeddings, signals, influence = _probes(200)
    former = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES)
    now = fit_influence_model(ids, embeddings, signals, 3 * influence - 1, signal_names=NAMES, previous=former)
    assert now.former.spearman == pytest.approx(former.spearman) and now.former.low > 0.8 and now.warm
    other = _probes(200, seed=9)[3]
    now = fit_influence_model(ids, embeddings, signals, other, signal_names=NAMES, previous=former)
    assert abs(now.former.spearman) < 0.3


def test_a_warm_ridge_keeps_what_serves_and_forgets_what_misleads():
    ids, embeddings, signals, influence = _probes(400, width=64)
    few = slice(0, 40)
    former = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES)
    for targets, kept in ((5 * influence + 2, True), (np.random.default_rng(0).normal(size=400), False)):
        cold, warm = (
            fit_influence_model(ids[few], embeddings[few], signals[few], targets[few], signal_names=NAMES,
                                previous=former, warm=warm)
            for warm in (False, True)
        )  # fmt: skip
        assert (warm.predictor.share == 1.0) is kept
        if kept:
            reached = [spearman(one.predict(embeddings[40:], signals[40:]), targets[40:]) for one in (cold, warm)]
            assert reached[1] > 0.9 > reached[0]


def test_a_former_model_of_other_features_or_without_any_is_left_aside():
    ids, embeddings, signals, influence = _probes(60)
    former = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES, encoder="a")
    other = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES, encoder="b", previous=former)
    assert other.former is None and not other.warm
    nothing = fit_influence_model(ids, embeddings, signals, 0 * influence, signal_names=NAMES, encoder="a")
    other = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES, encoder="a", previous=nothing)
    assert other.former is None and not other.warm


def test_the_members_differ_more_far_from_the_probes():
    ids, embeddings, signals, influence = _probes(200)
    model = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES)
    near, far = (model.predict_with_uncertainty(scale * embeddings, signals) for scale in (1, 4))
    assert np.array_equal(near.influence, model.predict(embeddings, signals))
    assert far.spread.mean() > 2 * near.spread.mean() > 0
    assert np.all(near.low < near.high) and np.ptp(near.high - near.low) < 1e-12


def test_too_few_probes_leave_the_interval_open():
    ids, embeddings, signals, influence = _probes(31)
    model = fit_influence_model(ids, embeddings, signals, influence, signal_names=NAMES)
    found = model.predict_with_uncertainty(embeddings, signals, level=0.99)
    assert np.all(np.isneginf(found.low)) and np.all(np.isposinf(found.high)) and np.isfinite(found.influence).all()


def test_a_few_signals_are_not_drowned_by_a_wide_embedding():
    """The ridge weighs the two apart: three signals tell all, four hundred dimensions of noise nothing."""
    ids, embeddings, signals, _ = _probes(160, width=400)
    told = np.log(signals) @ np.array([1.0, -2.0, 0.5])
    model = fit_influence_model(ids, embeddings, signals, told, signal_names=NAMES)
    assert model.spearman > 0.9
    only = fit_influence_model(ids, embeddings, signals, embeddings @ np.ones(400), signal_names=NAMES)
    assert only.spearman > 0.3
