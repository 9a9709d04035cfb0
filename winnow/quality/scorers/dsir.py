r"""DSIR: how much more likely a document's n-grams are in the reference than in the pool.

    log w(x) = sum_g n_g(x) [log(p_ref(g) + e) - log(p_pool(g) + e)]        (``length = "sum"``, a log weight)
    score(x) = log w(x) / sum_g n_g(x)                                      (``length = "mean"``)

g are hashed buckets of the words and pairs of words in lower case (:mod:`winnow.quality.ngrams`), n_g(x) their counts
in the document, p their shares in all texts of the reference and of the sample of the pool, e = 1e-8. The sum grows
with the document's length and so ranks by length among alike documents; the paper cuts its texts into pieces of equal
length first. The mean is the log ratio per n-gram; top-k of it is what most later work calls DSIR. ``pseudo_count``
spreads that many n-grams over the reference's buckets as the pool has them: a small reference leaves most buckets
empty, and an empty one costs log(e).

The released code counts every n-gram of the target, drops documents of fewer than 100 words (``min_words``) and takes
the largest of log w + Gumbel noise. It hashes by SHA-256, so scores differ from these in which n-grams share a bucket.

Source: Xie et al. 2023, "Data Selection for Language Models via Importance Resampling" (arXiv 2302.03169), section 4;
p-lambda/dsir.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.quality.ngrams import Words, buckets, hash_words
from winnow.quality.scorers import Fitted, Scorer
from winnow.quality.scorers.documents import Documents, Scored, ScorerContext, with_reason
from winnow.selection.options import option

EPSILON = 1e-8


@dataclass(frozen=True)
class Options:
    buckets: int = option(10_000, 2, 2**24)
    ngrams: int = option(2, 1, 5)
    length: str = option("mean", choices=("mean", "sum"))
    min_words: int = option(0, 0)
    pseudo_count: float = option(0.0, 0.0)


@dataclass(eq=False)
class FittedDsir(Fitted):
    """``log_ratio`` float64 ``[buckets]``: what one n-gram adds to log w."""

    options: Options
    log_ratio: np.ndarray

    def _score(self, documents: Documents) -> Scored:
        values = np.empty(len(documents))
        for place, texts in documents.batches("texts"):
            words = hash_words(texts)
            total, count = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
            for bucket, owner in _features(words, self.options):
                # Added in the order of the text: no other document changes a bit.
                total += np.bincount(owner, weights=self.log_ratio[bucket], minlength=len(texts))
                count += np.bincount(owner, minlength=len(texts))
            if self.options.length == "mean":
                total /= np.maximum(count, 1)
            values[place] = np.where((count > 0) & (words.counts >= self.options.min_words), total, np.nan)
        return with_reason(values, f"fewer than {max(1, self.options.min_words)} words")


class Dsir(Scorer, name="dsir", needs=("texts", "reference", "sample")):
    """Importance weights of hashed n-grams."""

    Options = Options

    def _fit(self, context: ScorerContext) -> FittedDsir:
        assert context.reference is not None and context.sample is not None
        pool = _counts(context.sample, self.options)
        pool = pool / max(1.0, pool.sum())
        reference = _counts(context.reference, self.options) + self.options.pseudo_count * pool
        reference /= max(1.0, reference.sum())
        return FittedDsir(self.options, np.log(reference + EPSILON) - np.log(pool + EPSILON))


def _features(words: Words, options: Options) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the buckets and the texts of the runs of 1, 2 ... words, int64 ``[G]`` each."""
    runs = [words.ngrams(n) for n in range(1, options.ngrams + 1)]
    return [(buckets(hashes, options.buckets), owner) for hashes, owner in runs]


def _counts(documents: Documents, options: Options) -> np.ndarray:
    total = np.zeros(options.buckets)
    for _, texts in documents.batches("texts"):
        for bucket, _ in _features(hash_words(texts), options):
            total += np.bincount(bucket, minlength=options.buckets)
    return total
