"""Stored features come whole and in place, however the store cuts them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from winnow.config import Store as StoreSettings
from winnow.home import Home
from winnow.identity import doc_ids
from winnow.stages.features import SIGNALS, features, stored_features
from winnow.store.store import Store, add_parts, insert

TEXTS = [f"text {number}" for number in range(9)]
IDS = doc_ids(TEXTS)
VECTORS = np.arange(18, dtype=np.float32).reshape(9, 2)
MEASURED = np.arange(9 * len(SIGNALS), dtype=np.float64).reshape(9, len(SIGNALS))


@pytest.fixture
def store(tmp_path: Path, backend: str) -> Store:
    """Vectors by two encoders in parts of three documents; text 4 has no signals, and the first signal of 7 is null."""
    made = Store(Home(tmp_path / "home"), StoreSettings(backend=backend))
    parts = [
        part
        for model, offset in (("encoder", 0), ("other", 100))
        for rows in (slice(0, 3), slice(3, 6), slice(6, 9))
        for part in made.write_parts(
            "embeddings",
            [pa.table({"doc_id": IDS[rows], "model": [model] * 3, "vector": list(VECTORS[rows] + offset)})],
        )
    ]
    columns = {name: pa.array(MEASURED[:, number]) for number, name in enumerate(SIGNALS)}
    columns[SIGNALS[0]] = pa.array(MEASURED[:, 0], mask=np.arange(9) == 7)
    signals = pa.table({"doc_id": IDS, "version": ["1"] * 9, **columns})
    with made.write() as connection:
        insert(connection, "documents", pa.table({"doc_id": IDS}))
        insert(connection, "signals", signals.filter(pa.array(np.arange(9) != 4)))
        add_parts(connection, parts)
    return made


def test_features_are_those_of_each_document_in_the_order_asked_for(store: Store) -> None:
    asked = [7, 4, 0]
    documents = pa.table({"doc_id": IDS.take(pa.array(asked))})
    embeddings, signals = features(store, "encoder", documents)
    assert embeddings.tolist() == VECTORS[asked].tolist()
    assert np.isnan(signals[1]).all() and np.isnan(signals[0, 0])
    assert signals[0, 1:].tolist() == MEASURED[7, 1:].tolist() and signals[2].tolist() == MEASURED[0].tolist()
    cut = list(stored_features(store, "encoder", documents, rows=1))
    assert sorted(int(place) for places, _, _ in cut for place in places) == [0, 1, 2]
    for places, vectors, _ in cut:
        assert vectors.tolist() == embeddings[places].tolist()


def test_documents_without_an_embedding_are_said_to_lack_it(store: Store) -> None:
    with pytest.raises(LookupError, match="9 documents have no embedding"):
        features(store, "third", pa.table({"doc_id": IDS}))
    none = features(store, "encoder", pa.table({"doc_id": IDS[:0]}))
    assert [len(part) for part in none] == [0, 0]
