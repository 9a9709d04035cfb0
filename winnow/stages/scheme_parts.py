"""Rows of one scheme straight from the parts of ``sketches`` or ``bands``, a few columns, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from winnow.store.store import Store

if TYPE_CHECKING:
    import pyarrow.parquet as pq

ROWS = 1 << 14
"""Rows of a batch: their keys stay in the second cache."""
PIECE_GROUPS = 4


@dataclass(frozen=True)
class Piece:
    """A few row groups of one part, with how many rows they have."""

    digest: str
    groups: tuple[int, ...]
    rows: int


@dataclass(frozen=True)
class SchemeParts:
    """The live parts of a kind and the scheme whose rows are read; those of documents that are gone are among them."""

    store: Store
    kind: str
    digests: Sequence[str]
    scheme: str

    def pieces(self) -> list[Piece]:
        """Return runs of row groups that hold the rows of the scheme."""
        found = []
        for digest in self.digests:
            with self.store.storage.open(self.kind, digest) as file:
                groups = self._groups(file)
                for start in range(0, len(groups), PIECE_GROUPS):
                    some = groups[start : start + PIECE_GROUPS]
                    rows = sum(file.metadata.row_group(group).num_rows for group in some)
                    found.append(Piece(digest, tuple(some), rows))
        return found

    def batches(self, *columns: str, size: int = ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the rows' ``columns``, those of all pieces."""
        for piece in self.pieces():
            yield from self.read(piece, *columns, size=size)

    def read(self, piece: Piece, *columns: str, size: int = ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the ``columns`` of a piece's rows."""
        with self.store.storage.open(self.kind, piece.digest) as file:
            # The footer may vouch for the scheme, and Arrow's own threads cost more than they save on few columns.
            uniform = all(_schemes(file, group) == (self.scheme, self.scheme) for group in piece.groups)
            wanted = list(columns if uniform else {*columns, "scheme"})
            for rows in file.iter_batches(size, row_groups=list(piece.groups), columns=wanted, use_threads=False):
                yield rows if uniform else rows.filter(pc.equal(rows["scheme"], self.scheme))

    def _groups(self, file: pq.ParquetFile) -> list[int]:
        """Return the row groups that may hold rows of the scheme, as the footer tells."""
        groups = []
        for group in range(file.metadata.num_row_groups):
            schemes = _schemes(file, group)
            if schemes is None or schemes[0] <= self.scheme <= schemes[1]:
                groups.append(group)
        return groups


def _schemes(file: pq.ParquetFile, group: int) -> tuple[str, str] | None:
    """Return the smallest and the largest scheme of a row group, None where its footer does not tell."""
    facts = file.metadata.row_group(group).column(file.schema_arrow.names.index("scheme")).statistics
    return (facts.min, facts.max) if facts is not None and facts.has_min_max and not facts.null_count else None
