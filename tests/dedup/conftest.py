"""Texts, ground truth and a small near-duplicate store, shared by the tests of duplicate detection."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zstandard

from winnow.dedup.bands import BandPlan, band_keys, plan_bands
from winnow.dedup.buckets import BandColumns, KeyFilter
from winnow.dedup.candidates import CENTERS, MAX_BUCKET, CandidateReport, Centers, find_candidates, still_candidates
from winnow.dedup.keepers import Keepers, assign_keepers
from winnow.dedup.minhash import Sketching, signatures
from winnow.dedup.pair_spool import PairSpool
from winnow.dedup.positions import Positions, pack, unpack
from winnow.dedup.verify import verify_pairs
from winnow.identity import doc_ids, ids_to_numpy

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
    """The store's part in duplicate detection, in memory: what a run keeps for the next one.

    ``touched``: a run sees the keys of touched buckets only, as when few documents are new.
    """

    plan: BandPlan = field(default_factory=lambda: plan_bands(0.8))
    max_bucket: int = MAX_BUCKET
    centers: int = CENTERS
    touched: bool = False
    texts: dict[bytes, str] = field(default_factory=dict)
    keys: dict[bytes, np.ndarray] = field(default_factory=dict)
    unpaired: set[bytes] = field(default_factory=set)
    former: list[tuple[int, int, bytes]] = field(default_factory=list)  # band, key, id of a center
    pairs: dict[tuple[bytes, bytes], float] = field(default_factory=dict)  # candidates now, verified
    report: CandidateReport | None = None

    def deliver(self, texts: list[str]) -> None:
        texts = sorted(set(texts) - set(self.texts.values()))
        ids = ids_to_numpy(doc_ids(texts))
        self.texts |= dict(zip(map(bytes, ids), texts, strict=True))
        signed, present = signatures(
            pa.array(texts, pa.large_string()), Sketching(permutations=self.plan.permutations), threads=1
        )
        self.insert_bands(ids[present], band_keys(signed[present], self.plan, threads=1))

    def insert_bands(self, ids: np.ndarray, keys: np.ndarray) -> None:
        self.keys |= dict(zip(map(bytes, ids), keys, strict=True))
        self.unpaired |= set(map(bytes, ids))

    def withdraw(self, ids: list[bytes]) -> None:
        for key in ids:
            for kept in (self.texts, self.keys):
                kept.pop(key, None)
            self.unpaired.discard(key)
        self.pairs = {pair: s for pair, s in self.pairs.items() if not set(pair) & set(ids)}

    def _seen(self) -> list[bytes]:
        """Return the documents whose keys a run reads."""
        if not self.touched:
            return list(self.keys)
        wanted = [self.keys[one] for one in self.unpaired] + [np.array([key], np.uint64) for _, key, _ in self.former]
        asked = KeyFilter(np.concatenate([np.zeros(0, np.uint64), *wanted]))
        every = np.array(list(self.keys.values()))
        return [one for one, hit in zip(self.keys, asked.hits(every) if len(every) else [], strict=True) if hit]

    def find(self, verify=None) -> list[tuple[bytes, bytes]]:
        """Make the candidates of this run, drop stored pairs that are none any more, and keep what the next run needs.

        ``verify(spool, positions)`` gives the pairs to store; all candidates without it.
        """
        seen = self._seen()
        ids = np.frombuffer(b"".join(seen), np.uint8).reshape(-1, 16)
        positions = Positions(ids)
        bands = len(next(iter(self.keys.values()), [0]))
        keys = np.array([self.keys[one] for one in seen], np.uint64).reshape(len(seen), bands)
        fresh = np.zeros(len(seen), np.bool_)
        fresh[positions.of(as_ids(sorted(self.unpaired)))] = True
        former = Centers.of(
            np.array([band for band, _, _ in self.former], np.int32),
            np.array([key for _, key, _ in self.former], np.uint64),
            positions.of(as_ids([one for _, _, one in self.former])),
        )
        with BandColumns.of(keys, positions.of(ids)) as columns, PairSpool(held=64) as pairs:
            found = find_candidates(columns, fresh, former, pairs, self.max_bucket, self.centers, threads=1)
            codes = np.concatenate([np.zeros(0, np.uint64), *(chunk.copy() for chunk in pairs.chunks())])
            named = [one.tobytes() for one in positions.ids]
            candidates = [(named[a], named[b]) for a, b in zip(*unpack(codes), strict=True)]
            crowded = {one for one, inside in zip(named, found.crowded, strict=True) if inside}
            asked = sorted(pair for pair in self.pairs if set(pair) <= crowded)
            asked_codes = pack(*(positions.of(as_ids([pair[side] for pair in asked])) for side in (0, 1)))
            valid = still_candidates(columns, found.centers, asked_codes, len(seen))
            for pair, holds in zip(asked, valid, strict=True):
                if not holds:
                    del self.pairs[pair]
            self.pairs |= dict.fromkeys(candidates, 1.0) if verify is None else verify(pairs, positions)
        self.unpaired.clear()
        centers = found.centers
        self.former = [
            (int(band), int(key), named[place])
            for band, key, place in zip(centers.band, centers.key, centers.place, strict=True)
        ]
        self.report = found.report
        return candidates

    def run(self, threshold: float = 0.8) -> tuple[list[bytes], Keepers]:
        """Find, verify and store pairs; return the live ids and their keepers."""

        def verify(pairs: PairSpool, positions: Positions) -> dict[tuple[bytes, bytes], float]:
            named = [one.tobytes() for one in positions.ids]
            texts = pa.array([self.texts[one] for one in named], pa.large_string())
            verified = verify_pairs(
                pairs, len(named), lambda places: [(places, texts.take(pa.array(places)))], threshold
            )
            places = zip(*unpack(verified.codes), strict=True)
            return {(named[a], named[b]): float(s) for (a, b), s in zip(places, verified.similarity, strict=True)}

        self.find(verify)
        ids = sorted(self.texts)
        place = {key: i for i, key in enumerate(ids)}
        edges = sorted(self.pairs)
        return ids, assign_keepers(
            as_ids(ids),
            np.array([[place[a], place[b]] for a, b in edges], np.int64).reshape(-1, 2),
            np.array([self.pairs[pair] for pair in edges]),
            np.zeros(len(ids), np.int32),
            np.array([len(self.texts[key]) for key in ids], np.int64),
        )


def as_ids(names: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(names), np.uint8).reshape(-1, 16)


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
