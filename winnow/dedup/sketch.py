"""Sketch rows as the store keeps them: signatures and band keys under one scheme name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from winnow.config import Duplicates
from winnow.dedup.bands import BandPlan, band_keys, plan_bands
from winnow.dedup.minhash import SCHEME, signatures


@dataclass(frozen=True)
class SketchPlan:
    """Permutations, seed and bands; ``scheme`` names all that two comparable sketches must share."""

    bands: BandPlan
    permutations: int
    seed: int

    @property
    def scheme(self) -> str:
        return (
            f"{SCHEME}/{self.permutations}x{self.seed}/{self.bands.bands}b{self.bands.rows}r@{self.bands.threshold:g}"
        )

    @property
    def summary(self) -> str:
        return (
            f"{self.permutations} permutations in {self.bands.bands} bands of {self.bands.rows} rows, "
            f"expected recall {self.bands.recall_at_threshold:.4f} at Jaccard {self.bands.threshold:g}"
        )


@dataclass(frozen=True)
class Sketched:
    """Rows of the tables ``sketches`` and ``bands``."""

    sketches: pa.Table
    bands: pa.Table


def make_plan(settings: Duplicates) -> SketchPlan:
    """Plan the bands for the configured threshold and recall. Raises ``UserError`` if no plan reaches them."""
    plan = plan_bands(settings.threshold, settings.permutations, settings.recall)
    return SketchPlan(plan, settings.permutations, settings.seed)


def sketch(texts: pa.Table, plan: SketchPlan) -> Sketched:
    """Sign and band documents: ``texts`` has ``doc_id`` and ``text``. A text without words has no band."""
    signed, has_words = signatures(texts["text"], plan.permutations, plan.seed)
    storage = np.ascontiguousarray(signed, "<u4")
    width = storage.shape[1] * 4
    blobs = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(storage), [None, pa.py_buffer(storage.tobytes())]
    )
    keys = band_keys(signed[has_words], plan.bands)
    count = plan.bands.bands
    banded = texts["doc_id"].combine_chunks().filter(pa.array(has_words))
    rows = pa.array(np.repeat(np.arange(len(banded)), count))
    return Sketched(
        pa.table(
            {
                "doc_id": texts["doc_id"],
                "scheme": pa.array([plan.scheme] * len(texts), pa.string()),
                "signature": blobs.cast(pa.binary()),
            }
        ),
        pa.table(
            {
                "doc_id": banded.take(rows),
                "scheme": pa.array([plan.scheme] * len(rows), pa.string()),
                "band": np.tile(np.arange(count, dtype=np.int16), len(banded)),
                "key": keys.reshape(-1).astype(np.uint64),
            }
        ),
    )
