"""Texts, ground truth and a small near-duplicate store, shared by the tests of duplicate detection."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import zstandard

from winnow.dedup.bands import BandPlan, band_keys, plan_bands
from winnow.dedup.candidates import find_candidates, valid_pairs
from winnow.dedup.keepers import Keepers, assign_keepers
from winnow.dedup.minhash import signatures
from winnow.dedup.verify import verify_pairs
from winnow.identity import doc_ids, ids_from_numpy, ids_to_numpy

DATA = Path(os.environ.get("WINNOW_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))

# Lower cases that depend on the context, grow, shrink or become two characters; words of scripts without spaces;
# marks, digits, joiners and controls that end or do not end a word; and texts on either side of one full shingle.
MULTILINGUAL = [
    "ΟΔΥΣΣΕΥΣ και ο Σίσυφος ΣΟΦΟΣ. Σ 'Σ' AΣ, ΑΣ.Β ΑΣ-Σ Σ́ ςΣς σαςΣ",
    "İSTANBUL'da İyi günler, ISPARTA ılık İİ xİy",
    "Straße STRASSE ẞ ß ﬁne ﬂow Ǆ ǅ ǆ ŉ",
    "ȺȾ Ⱥ Ɐ ȺȺȺȺ K Å Ω ϴ 𐐀𐐁𐐂 𐐨 𞤀𞤁 ᲐᲑᲒ Ꭰ ꭰ",
    "维基百科是一个自由内容的百科全书 你好，世界。 日本語のテキスト、カタカナ ﾊﾝｶｸ 한국어 위키백과",
    "हिन्दी में लिखा हुआ पाठ ภาษาไทยไม่มีช่องว่าง நன்றி မြန်မာ",
    "العربية ١٢٣ ۴۵۶ עברית ²³¹ ½ Ⅷ ⅷ ① ㊀ 𝟘𝟙 𝐀𝐁",
    "snake_case __init__ _ __ a_1 don't re-use e.g. i.e. 3.14 1,000 C++ C# .NET a\u0301 e\u0301te\u0301",
    "family 👨‍👩‍👧 flag 🇩🇪 zero\u200bwidth soft\u00adhyphen nul\x00byte\ttab\r\nline\u2028sep \ufeffbom \U0010ffff",
    "one two three four",
    "one two three four five",
    "one two three four five six",
    "word",
    "a" * 5000 + " " + "b c " * 3000,
    "!!! ... ---",
    "",
    " ",
]

WORD = re.compile(r"\w+")


def naive_shingles(text: str, size: int = 5) -> list[bytes]:
    """The definition: the oracle of every kernel here."""
    words = WORD.findall(text.lower())
    width = min(size, len(words))
    return [" ".join(words[i : i + width]).encode() for i in range(len(words) - width + 1)] if words else []


def read_rows(folder: str, file: str) -> list[dict]:
    path = DATA / folder / f"{file}.jsonl.zst"
    if not path.exists():
        pytest.skip(f"{path} is absent; set WINNOW_TEST_DATA to the folder of test corpora")
    with path.open("rb") as raw:
        return [json.loads(line) for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), "utf-8")]


def library_texts() -> list[str]:
    """More than a thousand English paragraphs and tables that every Python carries."""
    from pydoc_data.topics import topics

    return list(topics.values()) + [part for topic in topics.values() for part in topic.split("\n\n")]


@dataclass
class Store:
    """The store's part in duplicate detection, in memory: what a run keeps for the next one."""

    plan: BandPlan = field(default_factory=lambda: plan_bands(0.8))
    max_bucket: int = 256
    centers: int = 8
    texts: dict[bytes, str] = field(default_factory=dict)
    similarity: dict[tuple[bytes, bytes], float] = field(default_factory=dict)  # of verified pairs, never dropped

    def __post_init__(self) -> None:
        self.connection = duckdb.connect(config={"threads": 1})
        self.connection.execute("SET arrow_lossless_conversion = true")
        self.connection.execute("CREATE TABLE bands (band INTEGER, key UBIGINT, doc_id UUID)")
        self.connection.execute("CREATE TABLE unpaired (doc_id UUID)")
        self.connection.execute("CREATE TABLE former_centers (band INTEGER, key UBIGINT, doc_id UUID)")
        self.connection.execute("CREATE TABLE pairs (doc_a UUID, doc_b UUID)")

    def insert(self, table: str, **columns) -> None:
        self.connection.register("frame", pa.table(columns))
        self.connection.execute(f"INSERT INTO {table} SELECT * FROM frame")
        self.connection.unregister("frame")

    def read_pairs(self, table: str) -> list[tuple[bytes, bytes]]:
        frame = self.connection.sql(f"SELECT doc_a, doc_b FROM {table} ORDER BY ALL").to_arrow_table()
        return [
            (a.tobytes(), b.tobytes())
            for a, b in zip(ids_to_numpy(frame["doc_a"]), ids_to_numpy(frame["doc_b"]), strict=True)
        ]

    def deliver(self, texts: list[str]) -> None:
        texts = sorted(set(texts) - set(self.texts.values()))
        ids = ids_to_numpy(doc_ids(texts))
        self.texts |= dict(zip(map(bytes, ids), texts, strict=True))
        signed, present = signatures(pa.array(texts, pa.large_string()), num_perm=self.plan.num_perm, threads=1)
        keys = band_keys(signed[present], self.plan, threads=1)
        self.insert_bands(ids[present], keys)

    def insert_bands(self, ids: np.ndarray, keys: np.ndarray) -> None:
        bands = keys.shape[1]
        self.insert(
            "bands",
            band=np.tile(np.arange(bands, dtype=np.int32), len(ids)),
            key=keys.reshape(-1).astype(np.uint64),
            doc_id=ids_from_numpy(np.repeat(ids, bands, axis=0)),
        )
        self.insert("unpaired", doc_id=ids_from_numpy(ids))

    def withdraw(self, ids: list[bytes]) -> None:
        self.connection.register("gone", pa.table({"doc_id": ids_from_numpy(np.frombuffer(b"".join(ids), np.uint8))}))
        for table in ("bands", "unpaired"):
            self.connection.execute(f"DELETE FROM {table} WHERE doc_id IN (SELECT doc_id FROM gone)")
        for key in ids:
            self.texts.pop(key, None)

    def find(self) -> list[tuple[bytes, bytes]]:
        """Make the candidates of this run and remember what the next run needs."""
        find_candidates(self.connection, self.max_bucket, self.centers)
        self.connection.execute("DELETE FROM unpaired")
        self.connection.execute("DELETE FROM former_centers")
        self.connection.execute("INSERT INTO former_centers SELECT band, key, doc_id FROM bucket_centers")
        return self.read_pairs("candidate_pairs")

    def keep_pairs(self, pairs: list[tuple[bytes, bytes]]) -> None:
        if pairs:
            columns = [np.frombuffer(b"".join(side), np.uint8) for side in zip(*pairs, strict=True)]
            self.insert("pairs", doc_a=ids_from_numpy(columns[0]), doc_b=ids_from_numpy(columns[1]))

    def run(self, threshold: float = 0.8) -> tuple[list[bytes], Keepers]:
        """Find, verify and store pairs; return the live ids and their keepers."""
        ids = sorted(self.texts)
        place = {key: i for i, key in enumerate(ids)}
        texts = pa.array([self.texts[key] for key in ids], pa.large_string())
        found = self.find()
        left, right = np.array([[place[a], place[b]] for a, b in found], np.int64).reshape(-1, 2).T
        sizes = np.array([len(self.texts[key].encode()) for key in ids], np.int64)
        similarity = verify_pairs(left, right, sizes, lambda rows: texts.take(pa.array(rows)), batch_bytes=1 << 20)
        verified = {pair: float(s) for pair, s in zip(found, similarity, strict=True) if s >= threshold}
        self.keep_pairs(sorted(verified.keys() - self.similarity.keys()))
        self.similarity |= verified
        valid_pairs(self.connection)
        edges = self.read_pairs("valid_pairs")
        return ids, assign_keepers(
            np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16),
            np.array([[place[a], place[b]] for a, b in edges], np.int64).reshape(-1, 2),
            np.array([self.similarity[pair] for pair in edges]),
            np.zeros(len(ids), np.int32),
            np.array([len(self.texts[key]) for key in ids], np.int64),
        )


@pytest.fixture(scope="session")
def new_store():
    return Store


@pytest.fixture(scope="session")
def multilingual() -> list[str]:
    return MULTILINGUAL


@pytest.fixture(scope="session")
def library() -> list[str]:
    return library_texts()


@pytest.fixture(scope="session")
def rows():
    """Reader of a test corpus: ``rows(folder, "docs" | "pairs")``; skips the test if the corpora are absent."""
    return read_rows


@pytest.fixture(scope="session")
def oracle():
    return naive_shingles
