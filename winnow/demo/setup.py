"""The demo's configuration, and what each of its stages should cost."""

from __future__ import annotations

import time

from winnow.config import Config, Quality, Reference, Selection
from winnow.demo.corpus import gather_corpus
from winnow.home import Home

REFERENCE = "reference/python_language.jsonl.zst"

PLAN = {
    "start": 15,
    "corpus, signals, duplicates, contamination": 40,
    "embeddings": 110,
    "model": 70,
    "influence": 90,
    "selection, mixture": 15,
    "training and validation": 90,
}
"""Planned seconds on two cores with avx512_bf16."""


def demo_config() -> Config:
    """Return the demo's configuration: its reference, and Gopher's rules loosened to the size of a docstring."""
    return Config(
        reference=Reference(path=REFERENCE, name="python_language"),
        # The paper's thresholds are for web pages; a docstring or a function is shorter, with longer "words".
        quality=Quality(
            gopher={
                "min_words": 10,
                "max_mean_word_length": 14,
                "min_stop_words_distinct": 1,
                "min_frac_words_alpha": 0.6,
                "max_hash_symbol_ratio": 0.2,
            }
        ),
        selection=Selection(budget_tokens=200_000),
    )


def gather(home: Home) -> str:
    """Write the demo's files into the inbox as a user's would be, and its reference; return a line that counts them."""
    started = time.monotonic()
    corpus = gather_corpus(home.inbox, home.root / REFERENCE)
    documents = ", ".join(f"{source} {count}" for source, count in sorted(corpus.documents.items()))
    return (
        f"gathered {sum(corpus.documents.values())} documents from this Python installation ({documents}), median "
        f"{corpus.median_characters:.0f} characters\n"
        f"reference: {corpus.reference['selecting']} selecting and {corpus.reference['judging']} judging items; "
        f"removed {corpus.reference_repeated} repeated and {corpus.reference_shared} shared items, and "
        f"{sum(corpus.removed.values())} pool documents that overlap with it; overlap left: 0 "
        f"({time.monotonic() - started:.1f} s)"
    )
