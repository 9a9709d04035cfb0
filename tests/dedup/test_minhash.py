"""Signatures against datasketch, bit for bit."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from datasketch import LeanMinHash, MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.dedup.minhash import from_lean, permutations, signatures, to_lean
from winnow.errors import UserError


def datasketch_signature(shingles: list[bytes], num_perm: int = 128, seed: int = 1) -> np.ndarray:
    sketch = MinHash(num_perm=num_perm, seed=seed, hashfunc=xxhash.xxh32_intdigest, scheme="affine32")
    sketch.update_batch(shingles)
    return sketch.hashvalues


def assert_equal_to_datasketch(texts: list[str], oracle) -> None:
    signed, present = signatures(pa.array(texts, pa.large_string()))
    assert signed.dtype == np.uint32 and signed.shape == (len(texts), 128)
    for text, row, has in zip(texts, signed, present, strict=True):
        shingles = oracle(text)
        assert has == bool(shingles)
        assert np.array_equal(row, datasketch_signature(shingles)), text[:80]


def test_signatures_of_library_and_multilingual_texts_equal_datasketch(oracle, library, multilingual):
    texts = multilingual + library[:1500]
    assert len(texts) > 1000
    assert_equal_to_datasketch(texts, oracle)


@pytest.mark.parametrize("folder", ["wiki_en", "wiki_zh", "lang_sentences", "usenet"])
def test_signatures_of_real_documents_equal_datasketch(folder, rows, oracle):
    texts = [row["text"] for row in rows(folder, "docs")]
    assert_equal_to_datasketch(texts[:: len(texts) // 400], oracle)


@given(
    texts=st.lists(
        st.text(st.one_of(st.sampled_from("aB Σİ中_"), st.characters(exclude_categories=["Cs"]))), max_size=8
    ),
    num_perm=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 6),
)
@settings(max_examples=100, deadline=None)
def test_signatures_of_any_text_seed_and_size_equal_datasketch(oracle, texts, num_perm, seed, size):
    signed, present = signatures(pa.array(texts, pa.string()), num_perm, seed, size, threads=1)
    for text, row, has in zip(texts, signed, present, strict=True):
        shingles = oracle(text, size)
        assert has == bool(shingles)
        assert np.array_equal(row, datasketch_signature(shingles, num_perm, seed))


def test_signatures_depend_neither_on_order_nor_on_batches_nor_on_threads(library):
    texts = pa.array(library[:600], pa.large_string())
    whole, _ = signatures(texts, threads=1)
    order = np.random.default_rng(1).permutation(600)
    shuffled = texts.take(pa.array(order))
    chunked = pa.chunked_array([shuffled[:7], shuffled[7:400], shuffled[400:]])
    assert np.array_equal(signatures(chunked, threads=3)[0], whole[order])


def test_texts_without_words_have_no_signature():
    signed, present = signatures(pa.array(["", None, " .!? ", "x"]))
    assert present.tolist() == [False, False, False, True]
    assert (signed[:3] == 0xFFFFFFFF).all() and (signed[3] != 0xFFFFFFFF).any()


def test_agreement_of_signatures_estimates_jaccard():
    words = [f"w{i}" for i in range(3000)]
    pair = pa.array([" ".join(words[:2000]), " ".join(words[1000:])])
    signed, _ = signatures(pair, num_perm=4096)
    assert abs((signed[0] == signed[1]).mean() - 996 / 2996) < 0.03  # three standard deviations are 0.022


def test_lean_sketches_go_in_and_out():
    signed, _ = signatures(pa.array(["the quick brown fox jumps over the lazy dog"] * 2))
    lean = to_lean(signed[0])
    assert isinstance(lean, LeanMinHash) and lean.jaccard(to_lean(signed[1])) == 1.0
    assert np.array_equal(from_lean(lean), signed[0])
    with pytest.raises(UserError, match="legacy"):
        from_lean(MinHash(scheme="legacy"))


def test_permutations_are_bijections():
    a, b = permutations(128, 1)
    assert a.dtype == b.dtype == np.uint32 and (a % 2 == 1).all()


def test_a_signature_needs_a_permutation():
    with pytest.raises(UserError, match="num_perm"):
        signatures(pa.array(["x"]), num_perm=0)
