"""Statistics of having been seen: equal to their definitions, free of company and order, and able to tell."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.contamination import membership
from winnow.contamination.membership import (
    LOOKS_SEEN,
    Reading,
    compare,
    lowest_mean,
    ngram_accuracy,
    read_logits,
    read_texts,
    statistics,
    zlib_ratio,
)
from winnow.train.batches import pack
from winnow.train.loop import TrainSettings, train
from winnow.train.model import ModelConfig, build_model

CONFIG = ModelConfig(vocab=60, hidden=32, layers=2, heads=2, intermediate=48, context=48)
RNG = np.random.default_rng(0)
ITEMS = [RNG.integers(1, 60, size=size).astype(np.int32) for size in (2, 3, 8, 17, 48, 49, 90, 30, 33, 9)]


@pytest.fixture(scope="module")
def model():
    """A model with opinions: freshly made ones all but ignore the prefix."""
    made = build_model(CONFIG, seed=0).eval()
    with torch.no_grad():
        for weights in made.parameters():
            if weights.dim() > 1:
                weights.mul_(6)
    return made


def next_log_probs(model, prefix: np.ndarray) -> torch.Tensor:
    ids = torch.tensor(prefix.astype(np.int64))[None]
    with torch.inference_mode():
        return torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0, -1].double(), -1)


def written(model, prefix: np.ndarray, count: int) -> list[int]:
    """Greedy decoding, a token at a time."""
    text = prefix.tolist()
    for _ in range(count):
        text.append(int(next_log_probs(model, np.array(text)).argmax()))
    return text[-count:]


def by_definition(model, item: np.ndarray, percent: float) -> dict[str, float]:
    """The slow twin: each token from its own prefix, in double precision."""
    own, normalised = [], []
    for place in range(1, len(item)):
        log_probs = next_log_probs(model, item[:place])
        probs = log_probs.exp()
        mean = float((probs * log_probs).sum())
        variance = float((probs * log_probs**2).sum()) - mean**2
        own.append(float(log_probs[item[place]]))
        normalised.append((own[-1] - mean) / variance**0.5)
    lowest = max(1, int(len(own) * percent / 100))
    return {
        "loss": -sum(own) / len(own),
        "min_k": sum(sorted(own)[:lowest]) / lowest,
        "min_k_plus_plus": sum(sorted(normalised)[:lowest]) / lowest,
    }


def test_every_statistic_of_the_losses_is_what_its_definition_gives(model):
    readings = read_texts(model, ITEMS, CONFIG.context)
    for item, reading in zip(ITEMS, readings, strict=True):
        found = statistics(reading, "some text", 20, 5, 5)
        for name, value in by_definition(model, item[: CONFIG.context], 20).items():
            assert found[name] == pytest.approx(value, rel=2e-4), (name, len(item))


def test_the_hits_of_one_pass_tell_what_greedy_decoding_writes(model):
    seeds = [item[:4] for item in ITEMS[2:6]]
    repeated = [np.array([*seed, *written(model, seed, 20)]) for seed in seeds]
    broken = [np.where(np.arange(24) % 11 == 9, (item + 1) % 60, item) for item in repeated]
    values = set()
    for item in [*repeated, *broken]:
        starts = np.unique(np.linspace(2, len(item) - 5, num=5).astype(int))
        exact = np.mean([written(model, item[:start], 5) == item[start : start + 5].tolist() for start in starts])
        [reading] = read_texts(model, [item], CONFIG.context)
        assert ngram_accuracy(reading.hits, 5, 5) == exact
        values.add(exact)
    assert len(values) > 2, "the test needs texts that are repeated in part"


def test_only_the_first_tokens_that_the_context_holds_are_read(model):
    whole = read_texts(model, ITEMS, CONFIG.context)
    cut = read_texts(model, [item[: CONFIG.context] for item in ITEMS], CONFIG.context)
    for one, other in zip(whole, cut, strict=True):
        assert np.array_equal(one.log_probs, other.log_probs)
    assert [len(reading.log_probs) for reading in whole] == [min(len(item), 48) - 1 for item in ITEMS]


def same(one: Reading, other: Reading) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("log_probs", "normalised", "hits"))


def test_company_order_and_the_cut_of_the_work_change_no_bit(model, monkeypatch):
    readings = read_texts(model, ITEMS, CONFIG.context)
    order = np.random.default_rng(1).permutation(len(ITEMS))
    shuffled = read_texts(model, [ITEMS[place] for place in order] * 3, CONFIG.context)
    assert all(same(shuffled[at], readings[place]) for at, place in enumerate([*order, *order, *order]))
    assert all(same(read_texts(model, [ITEMS[place]], CONFIG.context)[0], readings[place]) for place in (0, 3, 6))
    monkeypatch.setattr(membership, "VOCABULARY_CELLS", 7 * CONFIG.vocab)
    assert all(map(same, read_texts(model, ITEMS, CONFIG.context), readings))


def test_reading_leaves_the_training_mode_as_it_was(model):
    model.train()
    read_texts(model, ITEMS[:1], CONFIG.context)
    assert model.training
    model.eval()


def test_a_text_too_short_for_a_statistic_has_none_of_it(model):
    empty, single, pair = read_texts(model, [ITEMS[3][:0], ITEMS[3][:1], ITEMS[3][:2]], CONFIG.context)
    for reading in (empty, single):
        assert all(np.isnan(value) for value in statistics(reading, "", 20, 5, 5).values())
    found = statistics(pair, "two", 20, 5, 5)
    assert np.isnan(found["ngram_accuracy"]) and np.isfinite(found["min_k"]) and found["min_k"] == -found["loss"]
    assert np.isnan(ngram_accuracy(np.ones(5, bool), 5, 5)) and ngram_accuracy(np.ones(6, bool), 5, 5) == 1


def test_certain_even_and_impossible_predictions_give_numbers():
    logits = torch.zeros(3, 4)
    logits[0, 1] = 1e4  # certain of a token, and right
    logits[2] = torch.tensor([0.0, -torch.inf, -torch.inf, 0.0])
    reading = read_logits(logits, torch.tensor([1, 2, 3]))
    np.testing.assert_allclose(reading.log_probs, [0, -np.log(4), -np.log(2)], atol=1e-6)
    assert np.abs(reading.normalised).max() < 1
    assert reading.hits.tolist() == [True, False, False]


def test_the_lowest_percent_is_rounded_down_and_never_nothing():
    values = -np.arange(1.0, 12.0)
    assert lowest_mean(values, 20) == pytest.approx(-10.5)
    assert lowest_mean(values, 1) == -11
    assert lowest_mean(values, 100) == pytest.approx(values.mean())


def test_the_zlib_ratio_is_bits_over_bits():
    text = "the same words, the same words, the same words"
    assert zlib_ratio(100.0, text) == pytest.approx(100 / np.log(2) / 8 / len(zlib.compress(text.encode(), 9)))
    assert zlib_ratio(100.0, text) > zlib_ratio(100.0, "".join(map(chr, range(33, 33 + len(text)))))


def test_items_that_a_model_was_trained_on_rank_above_those_it_was_not():
    generator = np.random.default_rng(3)
    items = [generator.integers(1, 60, size=30).astype(np.int32) for _ in range(60)]
    trained = build_model(CONFIG, seed=1)
    windows = np.concatenate([pack([item], CONFIG.context, 0) for item in items[:30]])
    how = TrainSettings(lr=1e-2, warmup_steps=10, batch_windows=10, schedule="constant", dtype="float32")
    train(trained, np.tile(windows, (30, 1)), how)
    found = [statistics(reading, "x" * 30, 20, 2, 5) for reading in read_texts(trained, items, CONFIG.context)]
    seen = np.arange(60) < 30
    for name, sign in LOOKS_SEEN.items():
        result = compare(np.array([one[name] for one in found]), seen, sign, seed=0)
        assert result.auc > 0.95, name
        assert sign * result.difference > 0 and (result.low > 0 or result.high < 0), name


# -- groups -----------------------------------------------------------------------------------------------------------

values = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(values, values, st.sampled_from([1, -1]))
def test_the_auc_counts_the_pairs_in_which_the_found_item_looks_more_seen(inside, outside, sign):
    found = np.array([True] * len(inside) + [False] * len(outside))
    result = compare(np.array(inside + outside), found, sign, seed=0)
    pairs = [np.sign(sign * (one - other)) for one in inside for other in outside]
    assert result.auc == pytest.approx(np.mean([(pair + 1) / 2 for pair in pairs]))
    assert result.difference == pytest.approx(np.mean(inside) - np.mean(outside))
    assert np.isnan(result.low) == (min(len(inside), len(outside)) < 5)


def test_a_comparison_does_not_see_the_order_of_the_items_nor_those_without_a_value():
    generator = np.random.default_rng(5)
    numbers, found = generator.normal(size=80), generator.random(80) < 0.4
    result = compare(numbers, found, 1, seed=7)
    order = generator.permutation(80)
    assert compare(numbers[order], found[order], 1, seed=7) == result
    padded = np.concatenate([numbers, [np.nan, np.nan]])
    assert compare(padded, np.concatenate([found, [True, False]]), 1, seed=7) == result
    assert result.low < result.difference < result.high


def test_an_interval_holds_the_true_difference_about_as_often_as_it_says():
    generator = np.random.default_rng(11)
    found = np.arange(60) < 30
    held = 0
    for seed in range(40):
        result = compare(generator.normal(size=60) + 0.5 * found, found, 1, seed)
        held += result.low <= 0.5 <= result.high
    assert held >= 34


def test_without_both_groups_there_is_no_difference():
    result = compare(np.ones(6), np.zeros(6, bool), 1, seed=0)
    assert (result.found, result.others, result.others_mean) == (0, 6, 1.0)
    assert all(np.isnan(value) for value in (result.found_mean, result.difference, result.low, result.auc))
