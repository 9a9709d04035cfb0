"""Repeated lines, paragraphs and substrings of a corpus that is read twice, in bounded memory.

Lines and paragraphs are hashed in their normal form (``normal_form``) and met again by bucket of the hash (``spill``).

Substrings: a character repeats if a window of L bytes that covers it whole occurs at two places at least. All windows
of a corpus are too many to compare, so winnowing (Schleimer, Wilkerson and Aiken, SIGMOD 2003) selects first. A window
is w k-grams, ``k + w - 1 = L``; its *fingerprint* is the least of their hashes. Neighbouring windows mostly share one,
so a text is cut into *runs* of windows with the same fingerprint, about 2 / (w + 1) for each byte.

1. Two bitmaps count the runs of each fingerprint to two. A window that occurs at two places has one fingerprint, and
   that comes twice: in two runs, or in one run in which the least hash came up again (overlapping copies, "abababab"),
   which counts as two. So no repeated window is missed; two fingerprints that share a place in the bitmap, and k-grams
   that repeat alone, only let windows through in vain.
2. The windows of runs whose fingerprint came twice are hashed in full, to 96 bits, and counted by bucket of the hash.

Two different units are taken for one with probability below n**2 / 2**97 for n hashed units: 6e-12 for a thousand
million of them. Else the result is exact.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.dedup.shingles import over_ranges
from winnow.dedup.spans.normal_form import normal_form
from winnow.dedup.spans.plan import KINDS, SpanPlan
from winnow.dedup.spans.spill import BUCKETS, HIT, REPEAT, Spill

log = logging.getLogger(__name__)

MEMORY = 512 * 2**20
PLACES_A_FINGERPRINT = 16  # of the bitmaps: below 1 in 16 fingerprints is taken for one that came twice


@dataclass(frozen=True)
class Found:
    """What repeats in the documents ``first`` to ``last`` (exclusive) of the canonical order.

    ``spans``: document (position in the order, int64), kind, span_start, span_end (characters), copies; sorted by the
    first four. Int64 ``[last - first]``: ``counts`` by name of the kind in a row, ``characters`` inside any span.
    """

    first: int
    last: int
    spans: pa.Table
    counts: dict[str, np.ndarray]
    characters: np.ndarray


class SpanFinder(AbstractContextManager["SpanFinder"]):
    """Finds repeated spans: give :meth:`read` all texts, then :meth:`compare` all texts again, then ask :meth:`found`.

    ``lengths``: characters of every document, int64 ``[N]``, in the canonical order that says which copy is first.
    ``size``: bytes of all texts. ``folder``: where to spill (about 24 bytes a line and a window that may repeat).
    ``memory``: bytes held beside a batch of texts, roughly. Batches may come in any order and cut.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        size: int,
        plan: SpanPlan,
        folder: Path,
        memory: int = MEMORY,
        threads: int | None = None,
    ) -> None:
        self.plan, self.threads, self.memory = plan, threads, memory
        self.starts = np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))])
        documents, total = len(lengths), int(self.starts[-1])
        marks = np.arange(BUCKETS + 1, dtype=np.int64) * max(total, 1) // BUCKETS
        self._edges = np.searchsorted(self.starts[:-1], marks)  # the first document of each bucket
        self._edges[0], self._edges[-1] = 0, documents
        folder.mkdir(parents=True, exist_ok=True)
        share = memory // 4
        self._hits = {
            kind: Spill(folder / f"{kind}.hits", HIT, share if kind == "substrings" else share // 2)
            for kind in plan.kinds
        }
        self._repeats = Spill(folder / "repeats", REPEAT, share)
        wanted = PLACES_A_FINGERPRINT * max(1, size // (4 if plan.words else 1) * 2 // (plan.width + 1))
        bits = min(max(int(wanted - 1).bit_length(), 16), int(memory).bit_length())  # both: half of memory at most
        self._shift = 64 - bits
        places = (1 << bits) // 8 if "substrings" in plan.kinds else 0
        self._once, self._twice = np.zeros(places, np.uint8), np.zeros(places, np.uint8)
        self.candidates = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for spill in (*self._hits.values(), self._repeats):
            spill.close()

    def read(self, texts: pa.Array | pa.ChunkedArray, documents: np.ndarray) -> None:
        """Take texts (large_string) for the first time; ``documents`` integer ``[n]``: their canonical positions.

        Raises ``ValueError`` for a text of another length than was said.
        """
        from winnow.dedup import _span_kernels as kernels

        documents = np.asarray(documents, np.int64)
        other = pc.utf8_length(texts).to_numpy() != (self.starts[1:] - self.starts[:-1])[documents]
        if other.any():
            raise ValueError(f"the text at position {documents[np.argmax(other)]} has not the length that was said")
        for data, offsets, bases in self._buffers(texts, documents):
            if "lines" in self.plan.kinds or "paragraphs" in self.plan.kinds:
                self._read_blocks(data, offsets, bases)
            if "substrings" in self.plan.kinds:
                plan = self.plan

                def fingerprints(
                    first: int, last: int, data: np.ndarray = data, offsets: np.ndarray = offsets, plan: SpanPlan = plan
                ) -> np.ndarray:
                    return kernels.fingerprints(data, offsets, first, last, plan.words, plan.gram, plan.width)

                for values in over_ranges(fingerprints, offsets, self.threads):
                    kernels.mark(values, self._shift, self._once, self._twice)

    def _read_blocks(self, data: np.ndarray, offsets: np.ndarray, bases: np.ndarray) -> None:
        from winnow.dedup import _span_kernels as kernels

        def blocks(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
            most, longest = kernels.count_lines(data, offsets, first, last)
            lines, paragraphs = np.empty(most, HIT), np.empty(most, HIT)
            text = np.empty(2 * longest + 8, np.uint8)  # lower case turns at most 2 bytes into 3
            found = kernels.blocks(
                data, offsets, first, last, normal_form(), self.plan.min_characters, bases, lines, paragraphs, text
            )
            return lines[: found[0]].copy(), paragraphs[: found[1]].copy()

        for parts in over_ranges(blocks, offsets, self.threads):
            for kind, hits in zip(("lines", "paragraphs"), parts, strict=True):
                if kind in self._hits:
                    _spill_hits(self._hits[kind], hits)

    def compare(self, texts: pa.Array | pa.ChunkedArray, documents: np.ndarray) -> None:
        """Take texts for the second time, after :meth:`read` took all of them; only substrings need it."""
        from winnow.dedup import _span_kernels as kernels

        if "substrings" not in self.plan.kinds:
            return
        plan, empty, twice = self.plan, np.empty(0, HIT), self._twice
        for data, offsets, bases in self._buffers(texts, documents):

            def windows(
                first: int, last: int, data: np.ndarray = data, offsets: np.ndarray = offsets, bases: np.ndarray = bases
            ) -> np.ndarray:
                return kernels.windows(
                    data, offsets, first, last, plan.words, plan.gram, plan.width, bases, self._shift, twice, empty
                )  # fmt: skip

            for hits in over_ranges(windows, offsets, self.threads):
                self.candidates += len(hits)
                _spill_hits(self._hits["substrings"], hits)

    def _buffers(
        self, texts: pa.Array | pa.ChunkedArray, documents: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        bases = self.starts[np.asarray(documents, np.int64)]
        at = 0
        for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
            if not len(chunk):
                continue
            _, offsets, data = chunk.cast(pa.large_string()).buffers()
            raw = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
            yield np.frombuffer(data or b"", np.uint8), raw, bases[at : at + len(chunk)]
            at += len(chunk)

    def found(self) -> Iterator[Found]:
        """Yield what repeats, in the canonical order of the documents; every document is in one of the results."""
        self._once = self._twice = np.zeros(0, np.uint8)
        for number, kind in enumerate(KINDS):
            if kind in self._hits:
                self._count(kind, number)
        for first, last, repeats in self._repeats.groups():
            yield self._gather(int(self._edges[first]), int(self._edges[last]), repeats)

    def _count(self, kind: str, number: int) -> None:
        """Put every hit of a kind that occurs more than once, by the rule, into the spill of repeats."""
        from winnow.dedup import _span_kernels as kernels

        edges = self.starts[self._edges[1:-1]]
        spill, kept = self._hits[kind], 0
        for _, _, hits in spill.groups():
            out = np.empty(len(hits), REPEAT)
            order = np.argsort(hits["hash"])
            out = out[: kernels.repeats(hits, order, self.plan.every_copy, out)].copy()
            out["kind"] = number
            kept += len(out)
            self._repeats.add(out, np.searchsorted(edges, out["position"].astype(np.int64), "right").astype(np.uint16))
        log.info("%s: %d compared, %d of them recorded", kind, spill.records, kept)
        spill.close()

    def _gather(self, first: int, last: int, repeats: np.ndarray) -> Found:
        """Return the spans of the documents ``first`` to ``last`` from all their repeats."""
        from winnow.dedup import _span_kernels as kernels

        starts = self.starts[first : last + 1]
        pieces: list[tuple[np.ndarray, np.ndarray]] = []
        for number, kind in enumerate(KINDS):
            of_kind = repeats[repeats["kind"] == number]
            position = of_kind["position"].astype(np.int64)
            order = np.argsort(position, kind="stable")
            if kind == "substrings":
                out = np.empty((len(order), 3), np.int64)
                out = out[: kernels.united(position, of_kind["length"], of_kind["copies"], order, starts, out)]
            else:
                ends = position + of_kind["length"].astype(np.int64)
                out = np.stack([position, ends, of_kind["copies"].astype(np.int64)], axis=1)[order]
            pieces.append((np.full(len(out), number), out))
        kinds = np.concatenate([numbers for numbers, _ in pieces])
        found = np.concatenate([out for _, out in pieces])
        documents = np.searchsorted(starts, found[:, 0], "right") - 1
        counts = {
            KINDS[kind]: np.bincount(documents[kinds == number], minlength=last - first)
            for number, kind in enumerate(KINDS)
        }
        characters = np.zeros(last - first, np.int64)
        kernels.covered(found[:, 0].copy(), found[:, 1].copy(), np.argsort(found[:, 0]), documents, characters)
        order = np.lexsort((found[:, 1], found[:, 0], kinds, documents))
        begin = starts[documents] if len(documents) else np.zeros(0, np.int64)
        names = pa.array(list(KINDS.values()), pa.string())
        spans = pa.table(
            {
                "document": documents[order] + first,
                "kind": names.take(pa.array(kinds[order])),
                "span_start": (found[:, 0] - begin)[order],
                "span_end": (found[:, 1] - begin)[order],
                "copies": found[:, 2][order],
            }
        )
        return Found(first, last, spans, counts, characters)


def _spill_hits(spill: Spill, hits: np.ndarray) -> None:
    spill.add(hits, (hits["hash"] >> np.uint64(54)).astype(np.uint16))
