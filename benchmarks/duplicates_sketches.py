"""Text to signatures: Winnow and its peers, each called as its own documentation does, with the shingling it needs.

Most peers take shingles or words and leave it to the user to make them: here by Python's ``re.findall(r"\\w+",
text.lower())`` and ``" ".join``, which is the definition that Winnow's default follows. text-dedup cannot be installed
beside this project's dependencies; its procedure is implemented from its description (see ``text_dedup``).
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from duplicates_data import read_documents
from duplicates_peers import NUM_PERM, SEED, SHINGLE_WORDS, datatrove_documents, signature_stage

SCHEMES = ("winnow", "datasketch")
ENOUGH_SECONDS = 30  # no further repeat after so long
BATCH = 512  # documents whose shingles a peer holds at once
WORDS, NOT_WORD = re.compile(r"\w+"), re.compile(r"\W")

Sketch = Callable[[], float]
"""One run over all texts; returns the seconds of it that went to the peer itself, its input made beforehand."""


@dataclass(frozen=True)
class Peer:
    """A contender: ``prepare(texts, threads)`` returns what is timed; ``target`` times its CPU time we aim at."""

    prepare: Callable[[list[str], int], Sketch]
    modules: tuple[str, ...] = ()
    threads: bool = False  # else two cores are two processes
    target: float = 0.0
    note: str = ""

    @property
    def missing(self) -> list[str]:
        return [name for name in self.modules if importlib.util.find_spec(name) is None]


def words_of(text: str) -> list[str]:
    return WORDS.findall(text.lower())


def shingles(text: str) -> list[bytes]:
    """The definition: 5 words joined by a space; a shorter text is one shingle."""
    words = words_of(text)
    width = min(SHINGLE_WORDS, len(words))
    return [" ".join(words[i : i + width]).encode() for i in range(len(words) - width + 1)] if words else []


def shingled(texts: list[str], sketch: Callable[[list[list[bytes]]], object]) -> Sketch:
    """Shingle and sketch in batches."""

    def run() -> float:
        sketching, left = 0.0, iter(texts)
        while batch := [shingles(text) for text in islice(left, BATCH)]:
            began = time.perf_counter()
            sketch(batch)
            sketching += time.perf_counter() - began
        return sketching

    return run


def whole(call: Callable[[], object]) -> Sketch:
    """Time a peer that takes texts: everything is its own."""

    def run() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return run


def winnow(texts: list[str], threads: int, scheme: str) -> Sketch:
    """Our own kernel; ``texts`` are emptied into an Arrow array, which is where it takes them from."""
    from winnow.dedup.minhash import Sketching, signatures

    array = pa.array(texts, pa.large_string())
    texts.clear()
    sketching = Sketching(scheme=scheme, permutations=NUM_PERM, seed=SEED)
    return whole(lambda: signatures(array, sketching, threads=threads))


def datasketch(texts: list[str], threads: int) -> Sketch:
    import xxhash
    from datasketch import MinHash

    empty = MinHash(num_perm=NUM_PERM, seed=SEED, hashfunc=xxhash.xxh32_intdigest, scheme="affine32")

    def sketch(batch: list[list[bytes]]) -> None:
        for document in batch:
            empty.copy().update_batch(document)

    return shingled(texts, sketch)


def rensa_r(texts: list[str], threads: int) -> Sketch:
    from rensa import RMinHash

    return shingled(texts, lambda batch: RMinHash.digest_matrix_from_token_byte_sets(batch, NUM_PERM, SEED))


def rensa_c(texts: list[str], threads: int) -> Sketch:
    from rensa import CMinHash

    return shingled(texts, lambda batch: CMinHash.digests64_from_token_sets(batch, NUM_PERM, SEED))


def text_dedup(texts: list[str], threads: int) -> Sketch:
    """The published procedure, from its description: lower case, split at every character that is no word character
    (empty words stay), the distinct 5-grams joined by spaces, SHA-1 cut to 32 bits, ``(a * h + b) mod (2**61 - 1)`` for
    all permutations in numpy, the low 32 bits, the least of each column.
    """
    prime = np.uint64((1 << 61) - 1)
    draw = np.random.RandomState(SEED)
    a = draw.randint(1, prime, size=NUM_PERM, dtype=np.uint64)
    b = draw.randint(0, prime, size=NUM_PERM, dtype=np.uint64)

    def sign() -> None:
        for text in texts:
            words = NOT_WORD.split(text.lower())
            width = min(SHINGLE_WORDS, len(words))
            grams = {" ".join(words[i : i + width]).encode() for i in range(len(words) - width + 1)}
            hashes = [int.from_bytes(hashlib.sha1(gram).digest()[:4], "little") for gram in grams]
            permuted = (np.array(hashes, np.uint64)[:, None] * a + b) % prime & np.uint64(0xFFFFFFFF)
            permuted.min(axis=0)

    return whole(sign)


def daft(texts: list[str], threads: int) -> Sketch:
    from daft import col, from_arrow

    frame = from_arrow(pa.table({"text": pa.array(texts, pa.large_string())}))
    # As its guide to near duplicates does: normalise, then shingle and sketch. daft splits words at single spaces.
    text = col("text").normalize(remove_punct=True, lowercase=True, nfd_unicode=True, white_space=True)
    sketch = text.minhash(num_hashes=NUM_PERM, ngram_size=SHINGLE_WORDS, seed=SEED, hash_function="xxhash32")
    return whole(lambda: frame.select(sketch.alias("signature")).to_arrow())


def daft_plain(texts: list[str], threads: int) -> Sketch:
    from daft import col, from_arrow

    frame = from_arrow(pa.table({"text": pa.array(texts, pa.large_string())}))
    sketch = col("text").minhash(num_hashes=NUM_PERM, ngram_size=SHINGLE_WORDS, seed=SEED, hash_function="xxhash32")
    return whole(lambda: frame.select(sketch.alias("signature")).to_arrow())


def datatrove(texts: list[str], threads: int) -> Sketch:
    """The signature stage as it is shipped: simplified text, spaCy's English words, signatures written and sorted."""

    def sign() -> None:
        with tempfile.TemporaryDirectory() as folder:
            signature_stage(Path(folder), buckets=NUM_PERM // 8).run(datatrove_documents(texts), 0, 1)

    return whole(sign)


def datatrove_words(texts: list[str], threads: int) -> Sketch:
    """The same stage given words: neither its simplification nor its tokeniser runs."""
    from datatrove.pipeline.dedup import minhash

    words = [words_of(text) for text in texts]

    class Given:
        def __init__(self) -> None:
            self.left = iter(words)

        def word_tokenize(self, text: str) -> list[str]:
            return next(self.left)

    def sign() -> None:
        simplify, minhash.simplify_text = minhash.simplify_text, lambda text, config: text
        try:
            with tempfile.TemporaryDirectory() as folder:
                stage = signature_stage(Path(folder), buckets=NUM_PERM // 8)
                stage.word_tokenizer = Given()
                stage.run(datatrove_documents(texts), 0, 1)
        finally:
            minhash.simplify_text = simplify

    return whole(sign)


OURS = {f"winnow, {scheme}": Peer(partial(winnow, scheme=scheme), threads=True) for scheme in SCHEMES}
PEERS = {
    "datasketch": Peer(datasketch, ("datasketch",), target=20, note="copy + update_batch, xxh32, Python's shingles"),
    "rensa R-MinHash": Peer(rensa_r, ("rensa",), True, 12, "digest_matrix_from_token_byte_sets, Python's shingles"),
    "rensa C-MinHash": Peer(rensa_c, ("rensa",), True, 12, "digests64_from_token_sets, Python's shingles"),
    "datatrove, words given": Peer(datatrove_words, ("datatrove",), target=15, note="signature stage, 16 x 8, xxh64"),
    "datatrove, as shipped": Peer(datatrove, ("datatrove", "spacy"), target=200, note="its spaCy word tokeniser"),
    "daft": Peer(daft, ("daft",), True, note="normalize().minhash(), xxhash32"),
    "daft, not normalised": Peer(daft_plain, ("daft",), True, note="minhash() alone: words split at spaces, case kept"),
    "text-dedup's procedure": Peer(text_dedup, note="implemented here from its description; SHA-1, numpy"),
}


def timed_sketch(
    name: str, folder: str, repeats: int, threads: int, share: int = 0, shares: int = 1
) -> dict[str, float]:
    """Time one contender on every ``shares``-th batch of the documents."""
    batches = islice(read_documents(Path(folder)), share, None, shares)
    texts = [text for batch in batches for text in batch.to_pylist()]
    documents, size = len(texts), sum(len(text.encode()) for text in texts)
    contender = (OURS | PEERS)[name]
    contender.prepare(texts[:64], threads)()
    run = contender.prepare(texts, threads)
    timed: list[tuple[float, float, float]] = []
    while len(timed) < repeats and sum(seconds for seconds, _, _ in timed) < ENOUGH_SECONDS:
        began, used = time.perf_counter(), time.process_time()
        own = run()
        timed.append((time.perf_counter() - began, time.process_time() - used, own))
    seconds, cpu, own = (min(column) for column in zip(*timed, strict=True))
    return {"documents": documents, "bytes": size, "seconds": seconds, "cpu": cpu, "own": own}
