"""What all scorers promise: options, needs, order, batches, reasons; and those of text and clusters by hand."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from winnow.errors import UserError
from winnow.identity import doc_ids, ids_to_numpy
from winnow.quality.ngrams import buckets, hash_words
from winnow.quality.scorers import Documents, Fitted, ScorerContext, make_scorer, scorer_names

RECIPES = [
    f"Mix {a} with {b}, then bake for {minutes} minutes."
    for minutes, a in enumerate(("flour", "milk", "salt", "oats"), 10)
    for b in ("sugar", "butter", "eggs", "water")
]
REPORTS = [
    f"The committee met on {day} to review {topic}; no vote was taken."
    for day in ("Monday", "Friday", "May 3", "June 9")
    for topic in ("taxes", "roads", "schools", "parks")
]
POOL = REPORTS + RECIPES[:8]
REFERENCE = RECIPES[8:]
TEXT_SCORERS = [
    ("dsir", {}),
    ("dsir", {"length": "sum", "pseudo_count": 5.0}),
    ("classifier", {}),
    ("perplexity", {}),
    ("perplexity", {"shape": "step", "corpus": "reference"}),
    ("perplexity", {"shape": "low", "order": 2}),
    ("random", {}),
    ("rs2", {"round": 3}),
]


def context(pool: list[str] = POOL, reference: list[str] = REFERENCE) -> ScorerContext:
    return ScorerContext(Documents.from_texts(reference), Documents.from_texts(pool), seed=1)


def fit(name: str, options: dict | None = None, given: ScorerContext | None = None) -> Fitted:
    return make_scorer(name, options).fit(given or context())


def test_every_scorer_is_registered_by_its_file() -> None:
    assert scorer_names() == (
        "classifier", "cluster_importance", "d4", "datamodel", "dsir", "gradient", "length", "perplexity", "presence",
        "random", "rds_plus", "rs2", "semdedup", "signal",
    )  # fmt: skip


@pytest.mark.parametrize(("name", "options"), TEXT_SCORERS)
def test_a_score_depends_on_neither_order_nor_batches_nor_the_other_documents(name: str, options: dict) -> None:
    texts = [*POOL, "naïve 中文 text", "one"]
    scored = fit(name, options).score(Documents.from_texts(texts)).values
    again = fit(name, options, context(POOL[::-1], REFERENCE[::-1]))
    assert np.array_equal(again.score(Documents.from_texts(texts[::-1])).values[::-1], scored, equal_nan=True)
    alone = [again.score(Documents.from_texts([text])).values[0] for text in texts]
    assert np.array_equal(alone, scored, equal_nan=True)
    ids = ids_to_numpy(doc_ids(texts))
    read = Documents(ids, texts=lambda start, stop: texts[start:stop])
    assert np.array_equal(again.score(read).values, scored, equal_nan=True)


@pytest.mark.parametrize(("name", "options"), TEXT_SCORERS)
def test_an_empty_text_has_no_score_and_a_reason_and_none_is_no_error(name: str, options: dict) -> None:
    scored = fit(name, options).score(Documents.from_texts(["", "some words"]))
    if name not in ("random", "rs2"):
        assert not scored.valid[0] and scored.reasons[0] is not None and scored.excluded() == {scored.reasons[0]: 1}
    assert scored.valid[1] and scored.reasons[1] is None
    assert len(fit(name, options).score(Documents.from_texts([])).values) == 0


@pytest.mark.parametrize(
    ("name", "options"), [("dsir", {}), ("classifier", {}), ("perplexity", {"shape": "low", "corpus": "reference"})]
)
def test_documents_like_the_reference_score_above_the_others(name: str, options: dict) -> None:
    values = fit(name, options).score(Documents.from_texts(POOL)).values
    assert values[16:].min() > values[:16].max()


def test_unknown_names_options_and_missing_needs_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"scorer 'dsri'.*classifier, cluster_importance"):
        make_scorer("dsri")
    with pytest.raises(UserError, match=r"scorer 'dsir', option 'bucket'.*buckets"):
        make_scorer("dsir", {"bucket": 3})
    with pytest.raises(UserError, match=r"scorer 'dsir', option 'length'.*mean or sum"):
        make_scorer("dsir", {"length": "median"})
    with pytest.raises(UserError, match="scorer 'dsir' needs a reference: give the selecting part"):
        make_scorer("dsir").fit(ScorerContext(sample=Documents.from_texts(POOL)))
    with pytest.raises(UserError, match="scorer 'classifier' needs the vectors of the reference"):
        make_scorer("classifier", {"features": "vectors"}).fit(context())
    with pytest.raises(UserError, match="scorer 'dsir' needs the texts of the documents"):
        fit("dsir").score(Documents(ids_to_numpy(doc_ids(["a"]))))
    with pytest.raises(UserError, match="2 documents but 1 texts"):
        Documents(np.zeros((2, 16), np.uint8), texts=["a"])
    short = Documents(np.zeros((2, 16), np.uint8), texts=lambda start, stop: ["a"])
    with pytest.raises(UserError, match="texts of rows 0 to 2: got 1"):
        fit("dsir").score(short)


def test_the_digest_tells_methods_and_options_apart() -> None:
    made = [make_scorer("dsir"), make_scorer("dsir", {"buckets": 500}), make_scorer("random"), make_scorer("rs2")]
    assert len({scorer.digest() for scorer in made}) == 4
    assert make_scorer("dsir", {"buckets": 10_000}).digest() == make_scorer("dsir").digest()


# -- DSIR -------------------------------------------------------------------------------------------------------------


def grams(text: str) -> list[str]:
    words = text.split()
    return words + [f"{a} {b}" for a, b in itertools.pairwise(words)]


def test_dsir_by_hand() -> None:
    reference, pool, document = ["a b"], ["a c", "b c"], "a b c"
    given = context(pool, reference)
    # Reference: a, b, (a b), each 1/3; pool: a, b, c, c, (a c), (b c), of 6.
    shares = {"a": (1 / 3, 1 / 6), "b": (1 / 3, 1 / 6), "c": (0, 2 / 6), "a b": (1 / 3, 0), "b c": (0, 1 / 6)}
    logs = [math.log(shares[gram][0] + 1e-8) - math.log(shares[gram][1] + 1e-8) for gram in grams(document)]
    asked = Documents.from_texts([document])
    wide = {"buckets": 2**20}  # no two of these share a bucket
    assert fit("dsir", wide | {"length": "sum"}, given).score(asked).values[0] == pytest.approx(sum(logs))
    assert fit("dsir", wide, given).score(asked).values[0] == pytest.approx(sum(logs) / 5)
    assert not fit("dsir", wide | {"min_words": 4}, given).score(asked).valid[0]
    # Two more n-grams, spread as the pool: the reference's share of c is (0 + 2 * 2/6) / 5.
    smoothed = fit("dsir", wide | {"pseudo_count": 2.0, "ngrams": 1}, given).score(Documents.from_texts(["c"]))
    assert smoothed.values[0] == pytest.approx(math.log((2 * 2 / 4) / (2 + 2)) - math.log(2 / 4), rel=1e-6)


def test_dsir_counts_words_that_share_a_bucket_together() -> None:
    given = context(["a c e", "b d f"], ["a b e e"])
    fitted = fit("dsir", {"buckets": 2, "ngrams": 1, "length": "sum"}, given)
    where = {word: int(buckets(hash_words([word]).hashes, 2)[0]) for word in "abcdef"}
    reference = Counter(where[word] for word in "abee")
    pool = Counter(where[word] for word in "acebdf")
    expected = sum(
        math.log(reference[where[word]] / 4 + 1e-8) - math.log(pool[where[word]] / 6 + 1e-8) for word in "abc"
    )
    assert fitted.score(Documents.from_texts(["a b c"])).values[0] == pytest.approx(expected)


# -- classifier -------------------------------------------------------------------------------------------------------


def test_the_classifier_does_not_mind_that_a_text_is_repeated() -> None:
    fitted = fit("classifier", {"ngrams": 1})
    once, thrice = fitted.score(Documents.from_texts([REFERENCE[0], f"{REFERENCE[0]} " * 3])).values
    assert once == pytest.approx(thrice)


def test_the_classifier_finds_the_minimum_of_its_loss() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(60, 4)).astype(np.float32)
    vectors[:20] += 0.8
    ids = draw.integers(0, 256, (60, 16), dtype=np.uint8)
    parts = [Documents(ids[rows], vectors=vectors[rows]) for rows in (slice(20), slice(20, 60))]
    fitted = make_scorer("classifier", {"features": "vectors", "C": 2.0}).fit(ScorerContext(*parts))
    margin = fitted.score(Documents(ids, vectors=vectors)).values
    label = np.where(np.arange(60) < 20, 1.0, -1.0)
    weight = np.where(label > 0, 60 / (2 * 20), 60 / (2 * 40))
    pull = weight * label / (1.0 + np.exp(label * margin))
    assert fitted.weights == pytest.approx(2.0 * pull @ vectors, abs=1e-3)  # the gradient of the loss is zero
    assert pull.sum() == pytest.approx(0.0, abs=1e-3)
    alone = fitted.score(Documents(ids[7:8], vectors=vectors[7:8])).values[0]
    assert alone == margin[7]


# -- perplexity -------------------------------------------------------------------------------------------------------


def test_the_bands_by_hand() -> None:
    from winnow.quality.scorers.perplexity import Options, band

    quartiles = (10.0, 20.0, 40.0)
    perplexity = np.array([5.0, 15.0, 20.0, 30.0, 40.0, 100.0, np.nan])
    assert band(perplexity, quartiles, Options("gaussian")) == pytest.approx(
        [-(((p - 20) / 20) ** 2) / 4.5 for p in perplexity], nan_ok=True
    )
    ranges = [10, 10, 20, 20, 400, 400, np.nan]
    assert band(perplexity, quartiles, Options("step")) == pytest.approx([-math.log(r) for r in ranges], nan_ok=True)
    assert band(perplexity, quartiles, Options("low")) == pytest.approx(-np.log(perplexity), nan_ok=True)
    equal = band(np.array([7.0, 7.0, 9.0]), (7.0, 7.0, 7.0), Options("step"))
    assert np.isfinite(equal).all() and equal[0] == equal[1]


def test_no_document_of_the_pool_is_measured_by_a_model_that_has_read_it() -> None:
    from winnow.quality.scorers.perplexity import halves

    unique = [f"token{i} " * 5 for i in range(30)]
    fitted = fit("perplexity", {"shape": "low", "order": 1}, context(unique))
    documents = Documents.from_texts(unique)
    half = halves(documents.doc_ids, 1)
    assert 0 < half.sum() < 30
    # To each half's model the other half's words are all unseen, so each half has one perplexity.
    values = fitted.score(documents).values
    assert len(set(values[half == 0])) == len(set(values[half == 1])) == 1


# -- clusters, chance, length -----------------------------------------------------------------------------------------


def clustered(labels: list[int]) -> Documents:
    return Documents(np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 16), dtype=np.uint8),
                     clusters=np.array(labels))  # fmt: skip


def test_cluster_importance_by_hand() -> None:
    given = ScorerContext(clustered([7, 7, 7, 9]), clustered([7, 7, 8, 8, 8, 8, 9, 9]))
    asked = clustered([7, 8, 9, 5])
    exact = make_scorer("cluster_importance", {"pseudo_count": 0.0}).fit(given).score(asked)
    assert exact.values == pytest.approx([math.log(3), math.nan, math.log(1), math.nan], nan_ok=True)
    assert exact.reasons[1] == exact.reasons[3] == "no reference item lies in its cluster"
    smoothed = make_scorer("cluster_importance", {"pseudo_count": 2.0}).fit(given).score(asked).values
    by_hand = [math.log((3 + 0.5) / 6 / 0.25), math.log(1 / 6 / 0.5), math.log((1 + 0.5) / 6 / 0.25), math.log(2 / 6)]
    assert smoothed == pytest.approx(by_hand)


def test_cluster_importance_counts_an_item_that_the_pool_has_nothing_of() -> None:
    given = ScorerContext(clustered([1, 2]), clustered([1, 1, 3]))
    fitted = make_scorer("cluster_importance", {"pseudo_count": 0.0}).fit(given)
    assert fitted.score(clustered([1])).values == pytest.approx([math.log(1 / 2) - math.log(2 / 3)])


def test_rounds_of_rs2_are_independent_random_subsets() -> None:
    documents = Documents(np.random.default_rng(0).integers(0, 256, (4_000, 16), dtype=np.uint8))
    best = [set(np.argsort(-fit("rs2", {"round": turn}).score(documents).values)[:1_000].tolist()) for turn in range(3)]
    assert all(150 < len(best[a] & best[b]) < 350 for a, b in ((0, 1), (1, 2), (0, 2)))
    values = fit("random").score(documents).values
    assert values.min() >= 0 and values.max() < 1 and values.mean() == pytest.approx(0.5, abs=0.02)


def test_length_counts_tokens_either_way() -> None:
    documents = Documents(np.zeros((2, 16), np.uint8), tokens=[np.arange(5), np.arange(2)])
    assert fit("length").score(documents).values.tolist() == [5, 2]
    assert fit("length", {"sign": "short"}).score(documents).values.tolist() == [-5, -2]


def test_a_signal_is_a_score_either_way_round_and_a_missing_one_has_none() -> None:
    table = pa.table({"words": pa.array([3, 9, None], pa.int64())})
    documents = Documents(np.zeros((3, 16), np.uint8), signals=table)
    scored = fit("signal", {"column": "words"}).score(documents)
    assert scored.values[:2].tolist() == [3, 9] and scored.reasons == (None, None, "it has no words")
    assert fit("signal", {"column": "words", "sign": "low"}).score(documents).values[:2].tolist() == [-3, -9]
    with pytest.raises(UserError, match="no signal 'unigram_entropy'; there are words"):
        fit("signal").score(documents)
