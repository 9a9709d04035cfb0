"""The demo: a corpus and a reference made of text that every Python installation holds."""

from winnow.demo.corpus import DemoCorpus, gather_corpus

__all__ = ["DemoCorpus", "gather_corpus"]
