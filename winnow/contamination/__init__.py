"""Contamination: documents that repeat words of an evaluation item or of the reference."""

from winnow.contamination.ngrams import NgramIndex, build_index, contaminated, find_overlap

__all__ = ["NgramIndex", "build_index", "contaminated", "find_overlap"]
