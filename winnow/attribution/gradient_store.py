r"""Projected gradients of N documents on disk: flat parts ``[rows, D]`` that are mapped, not read, and a JSON index.

    index.json          layout, documents, dtype, rows a part, and the facts that every part shares
    part-00000.data     float16 or float32 [rows, D], C order, little-endian, no header
    part-00000.json     written last: the part counts only with it. Losses, exponents, reasons, hash of the data

A part is written under another name, made durable and renamed, so whenever writing is killed every part that is listed
is whole, and a later run writes the missing ones only. Nothing is ever unpickled.

float16 holds eleven bits but only numbers from 6e-8 to 65504, and gradients are smaller than that: each row is first
multiplied by the power of two that brings its largest number to [2^13, 2^14), and the exponent is kept beside it.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from winnow.attribution.autocorrelation import block_height
from winnow.attribution.projection import Layout
from winnow.attribution.scores import TOO_SHORT
from winnow.durable import sync
from winnow.errors import UserError

if TYPE_CHECKING:
    import torch

FORMAT = 1
DTYPES = ("float16", "float32")
TOP_EXPONENT = 14
PART_BYTES = 64 * 2**20


@dataclass(frozen=True)
class GradientChunk:
    """Gradients of some documents: ``rows`` int64 ``[R]`` (their places), ``values`` float32 ``[R, D]`` (zero where not
    usable), ``losses`` float64 ``[R]``, ``reasons``: why a gradient is not usable, else None."""

    rows: np.ndarray
    values: np.ndarray
    losses: np.ndarray
    reasons: tuple[str | None, ...]


@dataclass(frozen=True)
class StoreIndex:
    """What all parts share. ``documents`` and ``digest`` (of their tokens, in order) say whose gradients they are;
    ``facts`` how they were made (scope, checkpoint, projection, ...: strings and numbers, compared when resuming)."""

    layout: Layout
    documents: int
    digest: str
    facts: Mapping[str, str | int | float]
    dtype: str = "float16"
    part_rows: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"gradient store of dtype {self.dtype}: use {' or '.join(DTYPES)}")
        if self.part_rows <= 0:
            rows = PART_BYTES // (max(1, self.layout.width) * np.dtype(self.dtype).itemsize)
            object.__setattr__(self, "part_rows", max(1, rows))

    @property
    def parts(self) -> int:
        return -(-self.documents // self.part_rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "sites": [[name, *shape] for name, shape in self.layout.shapes.items()],
            "documents": self.documents,
            "digest": self.digest,
            "dtype": self.dtype,
            "part_rows": self.part_rows,
            "facts": dict(self.facts),
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> StoreIndex:
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}, not {FORMAT}")
        shapes = {str(name): (int(rows), int(columns)) for name, rows, columns in facts["sites"]}
        documents, part_rows = int(facts["documents"]), int(facts["part_rows"])
        if documents < 0 or part_rows < 1:
            raise ValueError("its numbers of rows are impossible")
        return cls(Layout(shapes), documents, facts["digest"], facts["facts"], facts["dtype"], part_rows)


class GradientStore:
    """A folder of gradients; :meth:`create` it or :meth:`open` it. As :class:`GradientRows` once it is complete."""

    def __init__(self, path: Path, index: StoreIndex) -> None:
        self.path, self.index = path, index
        self._columns: tuple[np.ndarray, np.ndarray, list[str | None]] | None = None

    @classmethod
    def create(cls, path: Path, index: StoreIndex) -> GradientStore:
        """Make the folder, or resume the one that is there. Raises :class:`UserError` if it holds other gradients."""
        path.mkdir(parents=True, exist_ok=True)
        if not (path / "index.json").exists():
            _write_json(path / "index.json", index.to_json())
            return cls(path, index)
        store = cls.open(path)
        there, wanted = store.index.to_json(), index.to_json()
        there, wanted = there | there.pop("facts"), wanted | wanted.pop("facts")
        for key in sorted(there.keys() | wanted.keys()):
            if there.get(key) != wanted.get(key):
                short = "" if key == "sites" else f" ({there.get(key)}, not {wanted.get(key)})"
                raise UserError(f"{path}: holds gradients of another {key}{short}; use another folder or delete it")
        return store

    @classmethod
    def open(cls, path: Path) -> GradientStore:
        """Open a folder of gradients. Raises :class:`UserError` when it is none."""
        try:
            return cls(path, StoreIndex.from_json(json.loads((path / "index.json").read_text(encoding="utf-8"))))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a gradient store ({error}); write it again") from error

    @property
    def layout(self) -> Layout:
        return self.index.layout

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not written yet."""
        return [number for number in range(self.index.parts) if not self._json(number).exists()]

    def places(self, number: int) -> range:
        """Return which documents part ``number`` holds."""
        start = number * self.index.part_rows
        return range(start, min(start + self.index.part_rows, self.index.documents))

    def write_part(self, number: int, chunks: Iterable[GradientChunk]) -> None:
        """Write one part from chunks whose ``rows`` count from the part's first document, in any order.

        Documents in no chunk are recorded as too short. Raises :class:`UserError` if another process is at the part.
        """
        count = len(self.places(number))
        losses, exponents = np.full(count, np.nan), np.zeros(count, dtype=np.int64)
        reasons: list[str | None] = [TOO_SHORT] * count
        temporary = self._data(number).with_suffix(".tmp")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(f"{temporary}: another process is writing this part; wait for it") from error
            if self._json(number).exists():  # the other process finished between our looking and our locking
                temporary.unlink(missing_ok=True)
                return
            os.ftruncate(handle, 0)
            os.ftruncate(handle, count * self._row_bytes)
            mapped = np.memmap(temporary, self._dtype, "r+", shape=(count, self.layout.width))
            for chunk in chunks:
                scaled, exponents[chunk.rows] = _scaled(chunk.values, self.index.dtype)
                mapped[chunk.rows] = scaled
                losses[chunk.rows] = chunk.losses
                for row, reason in zip(chunk.rows.tolist(), chunk.reasons, strict=True):
                    reasons[row] = reason
            mapped.flush()
            facts = {
                "rows": count,
                "hash": _hash(mapped),
                "losses": [value if math.isfinite(value) else None for value in losses.tolist()],
                "exponents": exponents.tolist(),
                "reasons": reasons,
            }
            del mapped
            sync(temporary)
            temporary.replace(self._data(number))
            _write_json(self._json(number), facts)
            self._columns = None
        finally:
            os.close(handle)

    @property
    def usable(self) -> np.ndarray:
        """Bool ``[N]``: the document has a gradient."""
        return np.array([reason is None for reason in self._facts()[2]], dtype=bool)

    @property
    def losses(self) -> np.ndarray:
        """Float64 ``[N]``, NaN where not finite."""
        return self._facts()[0]

    @property
    def reasons(self) -> list[str | None]:
        """Why a document has no gradient, else None."""
        return self._facts()[2]

    def rows(self, places: np.ndarray) -> torch.Tensor:
        """Return the gradients of some documents (int64 ``[K]``), float32 ``[K, D]``, in the order asked for."""
        import torch

        exponents = self._facts()[1]
        out = np.empty((len(places), self.layout.width), dtype=np.float32)
        number = places // self.index.part_rows
        for part in np.unique(number).tolist():
            chosen = np.flatnonzero(number == part)
            found = self._map(part)[places[chosen] - part * self.index.part_rows]
            out[chosen] = np.ldexp(found.astype(np.float32), exponents[places[chosen], None].astype(np.int32))
        return torch.from_numpy(out)

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield all rows, float32 ``[R, D]``, a few MiB at a time, and where they lie, whatever the parts."""
        import torch

        exponents, height = self._facts()[1], block_height(self.layout.width)
        for start in range(0, self.index.documents, height):
            where = slice(start, min(start + height, self.index.documents))
            first, last = where.start // self.index.part_rows, (where.stop - 1) // self.index.part_rows
            pieces = []
            for number in range(first, last + 1):
                offset = self.places(number).start
                piece = self._map(number)[max(where.start - offset, 0) : where.stop - offset]
                pieces.append(torch.from_numpy(np.array(piece)).float())
            yield where, torch.cat(pieces).ldexp_(torch.from_numpy(exponents[where])[:, None])

    def verify(self) -> None:
        """Read every part and compare it with its hash. Raises :class:`UserError` naming the first broken one."""
        for number in range(self.index.parts):
            facts = self._part(number)
            if _hash(self._map(number)) != facts["hash"]:
                raise UserError(f"{self._data(number)}: its bytes have changed; delete {self._json(number)} and resume")

    @property
    def _dtype(self) -> np.dtype:
        return np.dtype(self.index.dtype).newbyteorder("<")

    @property
    def _row_bytes(self) -> int:
        return self.layout.width * self._dtype.itemsize

    def _data(self, number: int) -> Path:
        return self.path / f"part-{number:05d}.data"

    def _json(self, number: int) -> Path:
        return self.path / f"part-{number:05d}.json"

    def _map(self, number: int) -> np.ndarray:
        count, path = len(self.places(number)), self._data(number)
        if not path.exists() or path.stat().st_size != count * self._row_bytes:
            raise UserError(f"{path}: missing or cut short; delete {self._json(number)} and write the store again")
        return np.memmap(path, self._dtype, "r", shape=(count, self.layout.width))

    def _part(self, number: int) -> dict[str, Any]:
        try:
            facts = json.loads(self._json(number).read_text(encoding="utf-8"))
            lengths = {len(facts[key]) for key in ("losses", "exponents", "reasons")}
            if lengths != {len(self.places(number))}:
                raise ValueError("its lists have another length than the part")
            return facts
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self._json(number)}: not a finished part ({error}); write the store again") from error

    def _facts(self) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
        if self._columns is None:
            parts = [self._part(number) for number in range(self.index.parts)]
            losses = [np.nan if value is None else value for part in parts for value in part["losses"]]
            exponents = [value for part in parts for value in part["exponents"]]
            reasons = [value for part in parts for value in part["reasons"]]
            self._columns = (np.array(losses, dtype=np.float64), np.array(exponents, dtype=np.int64), reasons)
        return self._columns


def _scaled(values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return rows times a power of two each, and the exponents that undo it."""
    if dtype == "float32":
        return values, np.zeros(len(values), dtype=np.int64)
    largest = np.abs(values).max(axis=1, initial=0.0)
    exponents = np.where(largest > 0.0, np.frexp(largest)[1].astype(np.int64) - TOP_EXPONENT, 0)
    return np.ldexp(values, -exponents[:, None].astype(np.int32)).astype(np.float16), exponents


def _hash(values: np.ndarray) -> str:
    digest = xxhash.xxh3_128()
    for start in range(0, len(values), 1024):
        digest.update(values[start : start + 1024].tobytes())
    return digest.hexdigest()


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)
