"""What a format is: how a file of it is cut into pieces, and read into documents and quarantine rows.

A format is one module of this package with one subclass of :class:`Format`; that it lies here registers it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, ClassVar

import numpy as np
import pyarrow as pa

from winnow.text.drift import FieldTypes
from winnow.text.limits import Limits
from winnow.text.quarantine import Quarantined
from winnow.text.records import Document, FieldMap


@dataclass(frozen=True)
class Reading:
    """How the files of one source are read: its field map and limits, and what only some formats look at.

    ``format``: a registered name that holds whatever the suffix. ``separator`` cuts plain text into documents,
    ``delimiter`` is CSV's, ``html`` the extractor for WARC responses, ``attributes`` are (name, path) of the attribute
    files of a Dolma document file, ``normalization`` the steps of :mod:`winnow.text.normalize`.
    """

    fields: FieldMap = field(default_factory=FieldMap)
    limits: Limits = field(default_factory=Limits)
    format: str = ""
    separator: str = ""
    delimiter: str = ""
    html: str = "resiliparse"
    normalization: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Span:
    """A piece of a file: ``[start, end)`` in the format's own unit (bytes, row groups, record batches); None = its end.

    ``first_row`` and ``first_line`` are the numbers of the piece's first record (0-based) and line (1-based) in the
    whole file, so that a piece gives the rows that the whole file would.
    """

    start: int = 0
    end: int | None = None
    first_row: int = 0
    first_line: int = 1


WHOLE = Span()


@dataclass(frozen=True)
class Cut:
    """A file cut into spans, in its order; ``sha256`` and ``bytes`` if cutting has read the whole file."""

    spans: list[Span]
    sha256: str | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Block:
    """Many readable records at once, columns of equal length N, in the file's order (the fast path of a format).

    ``rows`` int64, ``texts`` large_string without nulls, NULs or empty texts; ``original_ids``, ``urls``, ``dates``
    string or null; ``metadata`` string (canonical JSON of an object).
    """

    rows: np.ndarray
    texts: pa.Array
    original_ids: pa.Array
    urls: pa.Array
    dates: pa.Array
    metadata: pa.Array


Item = Document | Quarantined | Block


class Format(ABC):
    """A file format.

    ``suffixes`` lead to the name under which a file is recorded (``.csv`` and ``.tsv`` are two names of one format);
    ``compressible`` ones may carry a compression's suffix after it; ``seekable`` ones need a file that can seek.
    """

    suffixes: ClassVar[Mapping[str, str]]
    compressible: ClassVar[bool] = False
    seekable: ClassVar[bool] = False

    def cut(self, file: BinaryIO, target_bytes: int, how: Reading) -> Cut:
        """Cut a plain (uncompressed) seekable file into spans of about ``target_bytes``; one whole span by default.

        Raises ``OSError`` where the file cannot be read; a broken file is one whole span, which reading will report.
        """
        return Cut([WHOLE])

    @abstractmethod
    def read(
        self, file: BinaryIO, name: str, compression: str | None, span: Span, how: Reading, seen: FieldTypes
    ) -> Iterator[Item]:
        """Yield the span's documents (one by one or in blocks) and quarantine rows, and note field types in ``seen``.

        ``name`` is the format's recorded name (a value of ``suffixes``). Raises ``FileFailedError`` where the whole
        file is unusable, ``OSError`` where it cannot be read.
        """
