"""Signatures: each scheme against whom it follows, bit for bit, and the kernels against one_text."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from datasketch import LeanMinHash, MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.dedup.minhash import DEFAULT_SKETCHING, Sketching, from_lean, signatures, to_lean
from winnow.dedup.normalizations import NORMALIZATIONS, UNITS
from winnow.dedup.one_text import joined_shingles, sign_text
from winnow.dedup.schemes import SCHEMES
from winnow.dedup.shingles import Shingling
from winnow.errors import UserError

DATASKETCH = {"datasketch": "affine32", "datasketch-legacy": "legacy"}
TEXTS = st.text(st.one_of(st.sampled_from("aB Σİ中_"), st.characters(exclude_categories=["Cs"])))


def sign(texts: list[str], sketching: Sketching = DEFAULT_SKETCHING) -> tuple[np.ndarray, np.ndarray]:
    signed, present = signatures(pa.array(texts, pa.large_string()), sketching, threads=1)
    assert signed.shape == (len(texts), sketching.permutations) and signed.dtype == sketching.dtype
    return signed, present


def assert_equal_to_datasketch(texts: list[str], oracle, scheme: str = "datasketch") -> None:
    signed, present = sign(texts, Sketching(scheme=scheme))
    empty = MinHash(128, 1, hashfunc=xxhash.xxh32_intdigest, scheme=DATASKETCH[scheme])
    for text, row, has in zip(texts, signed, present, strict=True):
        shingles, sketch = oracle(text), empty.copy()
        sketch.update_batch(shingles)
        assert has == bool(shingles)
        assert np.array_equal(row, sketch.hashvalues), text[:80]


@pytest.mark.parametrize("scheme", DATASKETCH)
def test_signatures_of_library_and_multilingual_texts_equal_datasketch(scheme, oracle, library, multilingual):
    assert_equal_to_datasketch(multilingual + library[:300], oracle, scheme)


@pytest.mark.parametrize("folder", ["wiki_en", "wiki_zh", "lang_sentences", "usenet"])
def test_signatures_of_real_documents_equal_datasketch(folder, rows, oracle):
    texts = [row["text"] for row in rows(folder, "docs")]
    assert_equal_to_datasketch(texts[:: len(texts) // 200], oracle)


@given(
    texts=st.lists(TEXTS, max_size=6),
    scheme=st.sampled_from(list(DATASKETCH)),
    permutations=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_signatures_of_any_text_seed_and_size_equal_datasketch(oracle, texts, scheme, permutations, seed, size):
    signed, _ = sign(texts, Sketching(Shingling(size=size), scheme, permutations, seed))
    for text, row in zip(texts, signed, strict=True):
        sketch = MinHash(permutations, seed, hashfunc=xxhash.xxh32_intdigest, scheme=DATASKETCH[scheme])
        sketch.update_batch(oracle(text, size))
        assert np.array_equal(row, sketch.hashvalues)


@pytest.mark.parametrize(("permutations", "seed", "size"), [(112, 1, 5), (8, 7, 2)])
def test_datatrove_signatures_equal_its_signature_stage_given_the_same_words(
    permutations, seed, size, monkeypatch, tmp_path, library, multilingual
):
    stage_module = pytest.importorskip("datatrove.pipeline.dedup.minhash")
    # Its tokeniser needs spaCy; the stage gets our words instead.
    monkeypatch.setattr(stage_module, "load_word_tokenizer", lambda language: SplitAtSpaces())
    config = stage_module.MinhashConfig(n_grams=size, num_buckets=permutations // 4, hashes_per_bucket=4, seed=seed)
    stage = stage_module.MinhashDedupSignature(str(tmp_path), config)
    stage._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())  # xxhash 4 no longer takes the text itself
    texts = multilingual + library[:300]
    sketching = Sketching(Shingling("datatrove", "words", size), "datatrove", permutations, seed)
    for text, row, has in zip(texts, *sign(texts, sketching), strict=True):
        shingles = stage.get_shingles(text)
        assert has == (shingles.size > 0)
        if has:
            assert row.tolist() == [value for bucket in stage.get_signature(shingles) for value in bucket]


class SplitAtSpaces:
    """A word tokeniser as datatrove calls it."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()


@given(
    texts=st.lists(TEXTS, max_size=5),
    normalization=st.sampled_from(NORMALIZATIONS),
    unit=st.sampled_from(UNITS),
    scheme=st.sampled_from(list(SCHEMES)),
    permutations=st.integers(1, 150),
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 9),
)
@settings(max_examples=150, deadline=None)
def test_kernels_sign_as_one_text_does(texts, normalization, unit, scheme, permutations, seed, size):
    sketching = Sketching(Shingling(normalization, unit, size), scheme, permutations, seed)
    for text, row, has in zip(texts, *sign(texts, sketching), strict=True):
        expected = sign_text(text, sketching)
        assert has == (expected is not None)
        assert (row == (np.iinfo(row.dtype).max if expected is None else expected)).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_kernels_sign_long_texts_as_one_text_does(scheme, library):
    texts = [" ".join(library[start : start + 60]) for start in (0, 200)]
    sketching = Sketching(scheme=scheme)
    for text, row in zip(texts, sign(texts, sketching)[0], strict=True):
        assert np.array_equal(row, sign_text(text, sketching))


def test_one_text_is_signed_without_compiling():
    code = (
        "import sys; from winnow.dedup.one_text import hash_text, sign_text; "
        "from winnow.dedup.minhash import DEFAULT_SKETCHING, Sketching; from winnow.dedup.shingles import Shingling; "
        "signed = sign_text('one two three four five six', Sketching()); hash_text('one two', Shingling()); "
        "print(len(signed), 'numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["128", "False"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_signatures_depend_neither_on_order_nor_on_batches_nor_on_threads(scheme, library):
    texts = pa.array(library[:400], pa.large_string())
    sketching = Sketching(scheme=scheme)
    whole, _ = signatures(texts, sketching, threads=1)
    order = np.random.default_rng(1).permutation(400)
    shuffled = texts.take(pa.array(order))
    chunked = pa.chunked_array([shuffled[:7], shuffled[7:300], shuffled[300:]])
    assert np.array_equal(signatures(chunked, sketching, threads=3)[0], whole[order])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_texts_without_words_have_no_signature(scheme):
    sketching = Sketching(Shingling(size=1), scheme)
    signed, present = signatures(pa.array(["", None, " .!? ", "x"]), sketching)
    assert present.tolist() == [False, False, False, True]
    highest = np.iinfo(sketching.dtype).max
    assert (signed[:3] == highest).all() and (signed[3] != highest).any()


def test_texts_shorter_than_a_shingle_have_one_shingle_but_for_datatrove():
    texts = ["one two three four", "one two three four five"]
    for scheme in SCHEMES:
        assert sign(texts, Sketching(scheme=scheme))[1].tolist() == [scheme != "datatrove", True]
    assert joined_shingles(texts[0], Shingling()) == [b"one two three four"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_agreement_of_signatures_estimates_jaccard(scheme):
    words = [f"w{i}" for i in range(3000)]
    signed, _ = sign([" ".join(words[:2000]), " ".join(words[1000:])], Sketching(scheme=scheme, permutations=4096))
    assert abs((signed[0] == signed[1]).mean() - 996 / 2996) < 0.03  # four standard deviations


def test_lean_sketches_go_in_and_out():
    signed, _ = sign(["the quick brown fox jumps over the lazy dog"] * 2, Sketching(scheme="datasketch"))
    lean = to_lean(signed[0])
    assert isinstance(lean, LeanMinHash) and lean.jaccard(to_lean(signed[1])) == 1.0
    assert np.array_equal(from_lean(lean), signed[0])
    with pytest.raises(UserError, match="legacy"):
        from_lean(MinHash(scheme="legacy"))


def test_names_differ_wherever_signatures_do():
    every = [
        *(Sketching(scheme=scheme) for scheme in SCHEMES),
        Sketching(Shingling("rpv2")),
        Sketching(seed=2),
        Sketching(permutations=64),
    ]
    assert len({sketching.name for sketching in every}) == len(every)
    assert Sketching().name == "winnow/1/poly64/datasketch-words/words5/1/128x1"


def test_unknown_schemes_wrong_numbers_and_types_are_refused():
    for wrong, message in (
        ({"permutations": 0}, "at least 1 permutation"),
        ({"seed": 1 << 32}, "below 2"),
        ({"scheme": "other"}, "datasketch-legacy"),
    ):
        with pytest.raises(UserError, match=message):
            Sketching(**wrong)
    with pytest.raises(UserError, match="int64"):
        signatures(pa.array([1]))
