"""The influence model on byte n-grams: its counts, its arithmetic, and what it sees that a vector does not."""

from collections import Counter

import numpy as np
import pytest

from winnow.attribution.correlation import spearman
from winnow.attribution.surrogates.grams import BITS, BYTES_PER_TOKEN, ORDERS, SPREAD, Grams, count_grams
from winnow.attribution.surrogates.interface import Features
from winnow.attribution.surrogates.ridge import fit_ridge

TEXTS = ["abab", "", "x", "naïve 文", "abab", "zz\x00zz"]


def slowly(text: str, limit: int) -> Counter:
    """The buckets of a text, one gram at a time."""
    raw = text.encode()[:limit]
    found: Counter = Counter()
    for order in ORDERS:
        for start in range(len(raw) - order + 1):
            code = int.from_bytes(bytes([order]) + raw[start : start + order], "big")
            found[(code * int(SPREAD)) % 2**64 >> (64 - BITS)] += 1
    return found


@pytest.mark.parametrize("max_tokens", [1, 256])
def test_counts_are_those_of_each_text_alone(max_tokens):
    texts = [*TEXTS, "a longer text " * 3]
    counts = count_grams(texts, max_tokens)
    assert counts.documents == len(texts)
    for row, text in enumerate(texts):
        own = counts.rows == row
        told = dict(zip(counts.buckets[own].tolist(), np.expm1(counts.values[own]).round().tolist(), strict=True))
        assert told == slowly(text, BYTES_PER_TOKEN * max_tokens)
    assert count_grams([], 8).documents == 0 and not len(count_grams(["", ""], 8).rows)


def test_grams_of_two_lengths_with_the_same_bytes_are_two_grams():
    once, twice = (set(count_grams([text], 8).buckets.tolist()) for text in ("\x00", "\x00\x00"))
    assert once < twice


def world(count: int, seed: int) -> tuple[Features, np.ndarray]:
    """Documents that are helpful for the share of their words that begin with q; vector and signal say nothing."""
    draw = np.random.default_rng(seed)
    texts, truth = [], []
    for _ in range(count):
        words = ["".join(draw.choice(list("abcdef"), 4)) for _ in range(12)]
        chosen = int(draw.integers(0, 12))
        texts.append(" ".join(["q" + word if place < chosen else word for place, word in enumerate(words)]))
        truth.append(float(chosen))
    ids = np.sort(draw.integers(0, 256, (count, 16), dtype=np.uint8), axis=0)
    return Features(
        ids, draw.normal(size=(count, 8)).astype(np.float32), draw.normal(size=(count, 2)), texts
    ), np.array(truth)


def test_wording_is_learnt_that_the_vector_does_not_tell():
    seen, truth = world(80, 0)
    unseen, asked = world(60, 1)
    model = Grams().fit(seen, truth)
    assert model.share >= 0.8
    assert spearman(model.predict(unseen), asked) > 0.8
    assert np.isclose(model.centred(seen).mean(), 0.0, atol=1e-9)


def test_a_vector_that_tells_all_keeps_its_share():
    seen, _ = world(80, 0)
    unseen, _ = world(60, 1)
    model = Grams().fit(seen, seen.embeddings[:, 0].astype(float))
    assert model.share < 1.0
    assert spearman(model.predict(unseen), unseen.embeddings[:, 0].astype(float)) > 0.8


def test_it_is_the_ridge_regression_that_it_says():
    """The primal problem, solved densely, has the same predictions."""
    seen, truth = world(40, 2)
    model = Grams().fit(seen, truth)
    counts = count_grams(seen.texts, 256)
    phi = np.zeros((len(seen), 1 << BITS))
    phi[counts.rows, counts.buckets] = counts.weighted(counts.rarity())
    assert np.allclose((phi**2).sum(axis=1), 1.0)
    phi = phi[:, phi.any(axis=0)]
    standard = model.ridge.scaling.apply(seen)
    share, widths = model.share, fit_ridge(seen, truth).widths
    values = np.concatenate([np.sqrt(1 - share) * widths * standard, np.sqrt(share) * phi], axis=1)
    values -= values.mean(axis=0)
    labels = (truth - model.ridge.mean) / model.ridge.std
    inner = np.linalg.solve(values @ values.T + model.ridge.alpha * np.eye(len(seen)), labels)
    assert np.allclose(model.centred(seen), model.ridge.std * (values @ (values.T @ inner)), atol=1e-8)


def test_documents_without_text_or_features_are_predicted_by_the_rest():
    seen, truth = world(40, 3)
    bare = Features(seen.ids, np.zeros((40, 0), np.float32), np.zeros((40, 0)), seen.texts)
    model = Grams().fit(bare, truth)
    empty = Features(bare.ids[:1], bare.embeddings[:1], bare.signals[:1], [""])
    assert np.isfinite(model.predict(empty)).all()
    mute = Features(seen.ids, seen.embeddings, seen.signals, [""] * 40)
    assert np.isfinite(Grams().fit(mute, truth).predict(mute)).all()
    assert np.array_equal(Grams().fit(mute, np.ones(40)).predict(mute), np.ones(40))
