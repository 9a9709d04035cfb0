"""Rows of ``sketches`` and ``bands`` as the store keeps them, and the plan that names both.

Signatures do not depend on the bands, so a change of threshold or recall bands the stored signatures anew and reads no
text. A text without shingles has no signature and no keys (null): it is nobody's duplicate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from winnow.config import Duplicates
from winnow.dedup.bands import BandPlan, band_keys, plan_bands
from winnow.dedup.minhash import Sketching, signatures
from winnow.dedup.shingles import Shingling


@dataclass(frozen=True)
class SketchPlan:
    """How documents are sketched and banded.

    ``sketch_scheme`` names all that two comparable signatures share, ``scheme`` all that two comparable keys share.
    """

    sketching: Sketching
    bands: BandPlan

    @property
    def sketch_scheme(self) -> str:
        return self.sketching.name

    @property
    def scheme(self) -> str:
        return f"{self.sketching.name}/{self.bands.name}"

    @property
    def threshold(self) -> float:
        return self.bands.threshold

    @property
    def summary(self) -> str:
        return (
            f"{self.sketching.permutations} permutations in {self.bands.bands} bands of {self.bands.rows} rows, "
            f"expected recall {self.bands.recall_at_threshold:.4f} at Jaccard {self.bands.threshold:g}"
        )


def make_plan(settings: Duplicates) -> SketchPlan:
    """Plan sketches and bands as configured. Raises ``UserError`` if no plan reaches the recall at the threshold."""
    shingling = Shingling(settings.normalization, settings.shingle, settings.shingle_size)
    sketching = Sketching(shingling, settings.scheme, settings.permutations, settings.seed)
    return SketchPlan(
        sketching, plan_bands(settings.threshold, settings.permutations, settings.recall, settings.banding)
    )


def sketch(texts: pa.Table, plan: SketchPlan, threads: int | None = None) -> pa.Table:
    """Return rows of the table ``sketches`` for documents: ``texts`` has ``doc_id`` and ``text``."""
    signed, present = signatures(texts["text"], plan.sketching, threads=threads)
    little = plan.sketching.dtype.newbyteorder("<")
    storage = np.ascontiguousarray(signed, little)
    width = storage.shape[1] * little.itemsize
    blobs = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(storage), [_bitmap(present), _buffer(storage)])
    return pa.table(
        {
            "doc_id": texts["doc_id"],
            "scheme": pa.array([plan.sketch_scheme] * len(texts), pa.string()),
            "signature": blobs.cast(pa.binary()),
        }
    )


def band(sketches: pa.Table, plan: SketchPlan, threads: int | None = None) -> pa.Table:
    """Return rows of the table ``bands`` from rows of ``sketches`` of the plan's sketch scheme."""
    signed, present = signatures_of(sketches, plan.sketching)
    keys = band_keys(signed, plan.bands, threads)
    lengths = np.where(present, plan.bands.bands, 0)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    lists = pa.ListArray.from_arrays(offsets, pa.array(keys.reshape(-1)), mask=pa.array(~present))
    return pa.table(
        {
            "doc_id": sketches["doc_id"],
            "scheme": pa.array([plan.scheme] * len(sketches), pa.string()),
            "keys": lists,
        }
    )


def signatures_of(sketches: pa.Table | pa.RecordBatch, sketching: Sketching) -> tuple[np.ndarray, np.ndarray]:
    """Return the signatures ``[n, K]`` of the rows that have one, and which rows those are, bool ``[N]``."""
    blobs = sketches["signature"]
    if isinstance(blobs, pa.ChunkedArray):
        blobs = blobs.combine_chunks()
    present = np.asarray(blobs.is_valid())
    blobs = blobs.drop_null()
    little = sketching.dtype.newbyteorder("<")
    _, offsets, data = blobs.buffers()
    if not len(blobs) or offsets is None or data is None:
        return np.zeros((0, sketching.permutations), sketching.dtype), present
    bounds = np.frombuffer(offsets, np.int32)[blobs.offset : blobs.offset + len(blobs) + 1]
    raw = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    return np.ascontiguousarray(raw.view(little).reshape(-1, sketching.permutations), sketching.dtype), present


def keys_of(bands: pa.Table | pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys uint64 ``[n, B]`` of the rows that have some, and which rows those are, bool ``[N]``."""
    lists = bands["keys"]
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    present = np.asarray(lists.is_valid()) if lists.null_count else np.ones(len(lists), np.bool_)
    values = lists.flatten() if lists.null_count else lists.values.slice(lists.offsets[0].as_py())
    count = int(present.sum())
    offsets = lists.offsets
    width = (offsets[-1].as_py() - offsets[0].as_py()) // max(count, 1)
    return values.to_numpy()[: count * width].reshape(count, width), present


def _bitmap(present: np.ndarray) -> pa.Buffer | None:
    return None if present.all() else pa.array(present).buffers()[1]


def _buffer(values: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(values)
