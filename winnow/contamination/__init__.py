"""Contamination: documents that hold an evaluation item, or repeat words of the reference."""

from winnow.contamination.gapped import GappedIndex, build_gapped, find_matches
from winnow.contamination.items import Item, item_from
from winnow.contamination.ngrams import NgramIndex, build_index, contaminated, find_overlap
from winnow.contamination.words import Words, split_words

__all__ = [
    "GappedIndex",
    "Item",
    "NgramIndex",
    "Words",
    "build_gapped",
    "build_index",
    "contaminated",
    "find_matches",
    "find_overlap",
    "item_from",
    "split_words",
]
