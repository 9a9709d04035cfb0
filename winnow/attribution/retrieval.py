"""The documents whose gradients have the largest dot products with a query's: exact in blocks, or by a faiss index.

Both take any :class:`~winnow.attribution.autocorrelation.GradientRows`. Ties break by the document's place. ``weights``
float64 ``[N]`` multiply a document's products: one over its norm makes them cosines (up to the query's own norm).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.attribution.autocorrelation import GradientRows, block_height
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

SPARE = 4  # candidates a result that an approximate index is asked for, before the exact products rank them
TRAINED_ON = 40  # rows a list that the lists' centres are fitted to; faiss warns below 39
ADDED_BYTES = 1 << 28  # of rows that are added in memory before they are written, where lists lie on disk
TOP_EXPONENT = 8  # the largest number of the sample in 16 bits; others may be larger by 2^7


def top_rows(
    directions: torch.Tensor, rows: GradientRows, count: int, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``count`` largest products of every direction (``[Q, D]``): float64 ``[Q, K]`` and int64 places.

    K is smaller than ``count`` where there are fewer usable rows. Holds one block of rows and ``count`` results.
    """
    import torch

    usable, flat, height = rows.usable, directions.float().T.contiguous(), block_height(rows.layout.width)
    best = np.empty((len(directions), 0))
    places = np.empty((len(directions), 0), dtype=np.int64)
    for where, values in rows.blocks():
        full = torch.cat([values, values.new_zeros(height - len(values), values.shape[1])])
        found = (full @ flat)[: len(values)].double().T.numpy()
        if weights is not None:
            found = found * weights[where]
        kept = np.flatnonzero(usable[where])
        here = np.broadcast_to(kept + where.start, (len(best), len(kept)))
        best, places = _largest(
            np.concatenate([best, found[:, kept]], axis=1), np.concatenate([places, here], axis=1), count
        )
    return best, places


@dataclass(frozen=True)
class GradientIndex:
    """A faiss index (inner product) over the usable rows of ``documents`` gradients, multiplied by ``scale`` in it."""

    index: Any
    documents: int
    scale: float

    @classmethod
    def build(
        cls, rows: GradientRows, weights: np.ndarray | None = None, *, lists: int = 0, probes: int = 0, seed: int = 0
    ) -> GradientIndex:
        """Index all usable rows, block by block.

        ``lists`` 0: exact, 4 D bytes a row. Otherwise an inverted file of so many lists with 16-bit rows, fitted to 40
        rows a list drawn by ``seed``, of which a search reads ``probes`` lists (0 = an eighth of them, at least one).
        """
        import faiss

        if lists:
            inner, scale = _trained(rows, weights, lists, probes, seed)
        else:
            inner, scale = faiss.IndexIDMap2(faiss.IndexFlatIP(rows.layout.width)), 1.0
        for places, found in _usable_rows(rows, weights):
            inner.add_with_ids(found * np.float32(scale), places)
        return cls(inner, len(rows.usable), scale)

    @classmethod
    def write(cls, path: Path, rows: GradientRows, *, lists: int, probes: int = 0, seed: int = 0) -> None:
        """Build as :meth:`build` does with lists, but on disk: memory is that of the sample and of ``ADDED_BYTES``.

        Writes what :meth:`load` reads and the lists beside it, in ``path.lists``, which searches map.
        """
        import faiss
        from faiss.contrib.ondisk import merge_ondisk

        inner, scale = _trained(rows, None, lists, probes, seed)
        pieces: list[Path] = []
        part, room = faiss.clone_index(inner), max(1, ADDED_BYTES // (2 * rows.layout.width))

        def close() -> None:
            pieces.append(path.with_suffix(f".{len(pieces)}.tmp"))
            faiss.write_index(part, str(pieces[-1]))

        for places, found in _usable_rows(rows, None):
            part.add_with_ids(found * np.float32(scale), places)
            if part.ntotal >= room:
                close()
                part = faiss.clone_index(inner)
        close()
        merge_ondisk(inner, [str(piece) for piece in pieces], str(path.with_suffix(".lists")))
        for piece in pieces:
            piece.unlink()
        cls(inner, len(rows.usable), scale).save(path)

    def top(
        self,
        directions: torch.Tensor,
        count: int,
        rows: GradientRows | None = None,
        weights: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return as :func:`top_rows`, from the index.

        With ``rows``, which must have a ``rows`` method as a store has, four times as many candidates are ranked again
        by their exact products. Places that the index did not fill are -1 and their products -inf.
        """
        wanted = min(count if rows is None else SPARE * count, self.documents)
        found, places = self.index.search(np.ascontiguousarray(directions.float().numpy()), wanted)
        values = np.where(places >= 0, found.astype(np.float64) / self.scale, -np.inf)
        if rows is not None:
            values = _exact(directions, rows, places, weights)
        return _largest(values, places.astype(np.int64), count)

    def save(self, path: Path) -> None:
        """Write the index to a file of faiss's own format, and beside it ``path.json`` with the rest."""
        import faiss

        temporary = path.with_suffix(".tmp")
        faiss.write_index(self.index, str(temporary))
        temporary.replace(path)
        facts = {"documents": self.documents, "scale": self.scale}
        path.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> GradientIndex:
        """Read what :meth:`save` wrote. Raises :class:`UserError` when it is no such file."""
        import faiss

        try:
            facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            inner = faiss.read_index(str(path), faiss.IO_FLAG_ONDISK_SAME_DIR)
            return cls(inner, int(facts["documents"]), float(facts["scale"]))
        except (RuntimeError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a gradient index ({type(error).__name__}); build it again") from error


def _largest(values: np.ndarray, places: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((places, -values), axis=1)[:, :count]
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(places, order, axis=1)


def _trained(rows: GradientRows, weights: np.ndarray | None, lists: int, probes: int, seed: int) -> tuple[Any, float]:
    """Return an inverted file without rows, its lists fitted to a sample, and by what rows are multiplied in it."""
    import faiss

    sample = _sample(rows, weights, lists * TRAINED_ON, seed)
    # Gradients are small: without it float16 would hold zeros. A power of two changes no other bit.
    scale = 2.0 ** (TOP_EXPONENT - int(np.frexp(np.abs(sample).max(initial=1e-30))[1]))
    inner: Any = faiss.index_factory(rows.layout.width, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    inner.nprobe = probes or max(1, lists // 8)
    inner.cp.seed = seed
    sample *= np.float32(scale)
    inner.train(sample)
    return inner, scale


def _usable_rows(rows: GradientRows, weights: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the places of usable rows, some at a time, and the rows, multiplied by their weights."""
    usable = rows.usable
    for where, values in rows.blocks():
        places = np.flatnonzero(usable[where]) + where.start
        yield places, _weighted(values.numpy()[places - where.start], weights, places)


def _weighted(values: np.ndarray, weights: np.ndarray | None, places: np.ndarray) -> np.ndarray:
    return values if weights is None else (values * weights[places, None]).astype(np.float32)


def _sample(rows: GradientRows, weights: np.ndarray | None, count: int, seed: int) -> np.ndarray:
    usable = np.flatnonzero(rows.usable)
    drawn = np.sort(np.random.default_rng(seed).permutation(usable)[:count])
    parts = []
    for where, values in rows.blocks():
        here = drawn[(drawn >= where.start) & (drawn < where.stop)]
        parts.append(_weighted(values.numpy()[here - where.start], weights, here))
    return np.concatenate(parts)


def _exact(directions: torch.Tensor, rows: Any, places: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    out, height = np.full(places.shape, -np.inf), block_height(directions.shape[1])
    for query, direction in enumerate(directions.double()):
        there = np.flatnonzero(places[query] >= 0)
        there = there[np.argsort(places[query, there])]
        for start in range(0, len(there), height):
            here = there[start : start + height]
            chosen = places[query, here].astype(np.int64)
            out[query, here] = (rows.rows(chosen).double() @ direction).numpy()
            if weights is not None:
                out[query, here] *= weights[chosen]
    return out
