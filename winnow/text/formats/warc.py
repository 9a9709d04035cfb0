"""WARC and WET: the pages of a crawl, each a record; what a crawler adds to them is none.

Records are ``conversion`` (WET: the text itself), ``response`` and ``resource``. Of these, HTML, XHTML and plain text
of a successful response become documents; the others are quarantined, a row for all of a reason (``http_error``,
``not_text``), and never make a file fail. ``warcinfo``, ``request``, ``metadata``, ``revisit`` and types of other
standards describe such records and are skipped; the log says how many.
"""

from __future__ import annotations

import hashlib
import logging
from base64 import b32encode
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, BinaryIO, ClassVar, NamedTuple

from winnow.text.charsets import decode
from winnow.text.decoders import WrongCompressionError
from winnow.text.drift import FieldTypes
from winnow.text.formats.base import Format, Item, Reading, Span
from winnow.text.html import Extractor, UnreadablePageError, extractor
from winnow.text.http_payload import HttpResponse, decoded_body, parse_response
from winnow.text.quarantine import BadRecordError, FileFailedError, Quarantined, Reason, excerpt, too_large_detail
from winnow.text.records import Document, FieldMap, document_from
from winnow.text.streams import read_blocks
from winnow.text.warc_records import Damage, WarcRecord, WarcRecords

logger = logging.getLogger(__name__)

RECORD_TYPES = {"conversion", "response", "resource", "continuation"}
HTML_TYPES = {"text/html", "application/xhtml+xml"}
PLAIN_TYPES = {"text/plain", "text/markdown"}

_MAPPED = {"warc-record-id", "warc-target-uri", "warc-date", "content-length"}
_FIELDS = FieldMap()


class Warc(Format):
    """WARC and WET, plain or compressed (usually a gzip member a record); never cut into pieces."""

    suffixes: ClassVar[Mapping[str, str]] = {".warc": "warc", ".wet": "wet"}
    compressible = True

    def read(
        self, file: BinaryIO, name: str, compression: str | None, span: Span, how: Reading, seen: FieldTypes
    ) -> Iterator[Item]:
        """Yield the documents and quarantine rows of all records, numbered in the file's order.

        ``original_id`` is the record's id, ``url`` its target, ``date`` its date; the source's field map only chooses
        among the metadata. Bytes that are no record are one row ``broken_record`` up to the next record, and one row
        ``truncated_stream`` if none follows. Raises ``FileFailedError`` where nothing in the file is WARC, and
        ``UserError`` at the first page where the extractor's package is missing.
        """
        pages = _Pages(how, seen)
        records = WarcRecords(
            read_blocks(file, compression, how.limits),  # type: ignore[arg-type]
            how.limits.max_record_bytes,
            lambda fields: fields.get("warc-type", "").lower() in RECORD_TYPES,
        )
        try:
            for record in records:
                if isinstance(record, Damage):
                    yield pages.damaged(record)
                elif item := pages.judge(record):
                    yield item
        except WrongCompressionError as error:
            raise FileFailedError(Quarantined(None, 0, "unreadable_file", str(error), "")) from error
        yield from pages.summed()


class Payload(NamedTuple):
    """What a record delivers: its media type and declared charset, its bytes, and what the response says of them."""

    media_type: str
    charset: str | None
    data: bytes
    response: HttpResponse | None


class _NoDocumentError(Exception):
    """A record is none that a document could be made of; the message says what it is."""

    def __init__(self, reason: Reason, kind: str) -> None:
        super().__init__(kind)
        self.reason: Reason = reason
        self.kind = kind


class _Pages:
    """The rows of one file, from its records."""

    def __init__(self, how: Reading, seen: FieldTypes) -> None:
        self._how = how
        self._seen = seen
        self._fields = replace(_FIELDS, metadata=how.fields.metadata)
        self._row = 0
        self._left_out: dict[Reason, Counter[str]] = {}
        self._skipped: Counter[str] = Counter()

    def judge(self, record: WarcRecord) -> Document | Quarantined | None:
        """Turn a record into a document or a quarantine row; None for one that is counted only."""
        kind = record.fields.get("warc-type", "").lower()
        if kind not in RECORD_TYPES:
            self._skipped[kind or "no type"] += 1
            return None
        try:
            document = self._document(record, kind)
        except _NoDocumentError as no:
            self._left_out.setdefault(no.reason, Counter())[no.kind] += 1
            return None
        except BadRecordError as bad:
            document = None
            place = record.fields.get("warc-target-uri") or record.fields.get("warc-record-id") or "a record without id"
            shown = excerpt(record.block, bad.position)
            row = Quarantined(self._row, record.offset, bad.reason, f"{place[:200]}: {bad.detail}", shown)
        self._row += 1
        return document or row

    def damaged(self, damage: Damage) -> Quarantined:
        if damage.ended and damage.offset == 0 and damage.head[:5] != b"WARC/"[: len(damage.head)]:
            detail = f"the file is no WARC: {damage.why}; convert it (warcio recompress does from ARC), or rename it"
            raise FileFailedError(Quarantined(None, 0, "unreadable_file", detail, excerpt(damage.head)))
        place = f"the record at byte {damage.offset:,}"
        if damage.ended:
            reason: Reason = "truncated_stream"
            detail = f"{place} and what follows cannot be read: {damage.why}; deliver the file anew"
        else:
            reason = "broken_record"
            size = damage.end - damage.offset
            detail = f"{place} is none: {damage.why}; reading goes on {size:,} bytes later: deliver the file anew"
        row = Quarantined(self._row, damage.offset, reason, detail, excerpt(damage.head))
        self._row += 1
        return row

    def summed(self) -> Iterator[Quarantined]:
        """Yield a row for all records of each reason that are no bad ones, and log what was skipped."""
        what = {"http_error": "no success", "not_text": "no text"}
        for reason, kinds in sorted(self._left_out.items()):
            total = kinds.total()
            listed = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items(), key=_by_count)[:20])
            detail = f"{total} records are {what[reason]} and no documents: {listed}"
            yield Quarantined(None, None, reason, detail, "", total)
        if self._skipped:
            listed = ", ".join(f"{kind} {count}" for kind, count in sorted(self._skipped.items()))
            logger.info("skipped %d records that describe others: %s", self._skipped.total(), listed)

    def _document(self, record: WarcRecord, kind: str) -> Document:
        payload = _payload(record, kind)
        if not record.whole:
            raise BadRecordError("record_too_large", too_large_detail(self._how.limits.max_record_bytes, record.size))
        _check_digest(record)
        data = payload.data
        if payload.response:
            cut = "warc-truncated" in record.fields
            data = decoded_body(payload.response, self._how.limits.max_record_bytes, cut)
        html = payload.media_type in HTML_TYPES
        extract = extractor(self._how.html) if html else None
        decoded = decode(data, payload.charset, html, extract.detect if extract else _no_guess)
        text = _extracted(extract, decoded.text) if extract else decoded.text
        values: dict[str, Any] = {
            "text": text,
            "id": record.fields.get("warc-record-id", "").strip("<> ") or None,
            "url": record.fields.get("warc-target-uri", "").strip("<> ") or None,
            "date": record.fields.get("warc-date"),
            "media_type": payload.media_type,
            "charset": decoded.encoding,
            "undecodable": decoded.undecodable,
            "extractor": extract.name if extract else None,
            **{name: value for name, value in record.fields.items() if name not in _MAPPED},
        }
        if payload.response:
            values |= {"status": payload.response.status, "http": payload.response.fields}
        self._seen.add(values)
        return document_from(values, self._row, self._fields)


def _payload(record: WarcRecord, kind: str) -> Payload:
    """Return what a record delivers. Raises :class:`_NoDocumentError` where that is no page."""
    declared = record.fields.get("content-type", "")
    response = None
    data = record.block
    if kind == "continuation":
        raise _NoDocumentError("not_text", "continuation of a record in segments")
    if kind == "response":
        response = parse_response(record.block)
        if not response:
            raise _NoDocumentError("not_text", _media_type(declared) or "no HTTP response")
        if response.status != 200:
            raise _NoDocumentError("http_error", f"status {response.status}")
        declared, data = response.fields.get("content-type", ""), response.body
    media_type = _media_type(record.fields.get("warc-identified-payload-type", "")) or _media_type(declared)
    if not media_type:
        media_type = "text/plain" if kind == "conversion" else _by_its_look(data)
    if media_type not in HTML_TYPES | PLAIN_TYPES:
        raise _NoDocumentError("not_text", media_type or "no media type")
    _, _, charset = declared.lower().partition("charset=")
    return Payload(media_type, charset.split(";")[0].strip() or None, data, response)


def _media_type(declared: str) -> str:
    kind = declared.split(";")[0].split(",")[0].strip().lower()
    return kind if "/" in kind else ""


def _by_its_look(data: bytes) -> str:
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip()[:15].lower()
    return "text/html" if start.startswith((b"<!doctype html", b"<html", b"<head")) else ""


def _extracted(extract: Extractor, html: str) -> str:
    try:
        text = extract.extract(html)
    except UnreadablePageError as error:
        raise BadRecordError("broken_payload", f"the page cannot be read: {error}; leave it out") from error
    if not text or text.isspace():
        raise BadRecordError("no_main_text", f"{extract.name} finds no text in the page; another extractor may")
    return text


def _check_digest(record: WarcRecord) -> None:
    """Compare the block with its digest, where there is one of a known algorithm. Raises ``BadRecordError``."""
    name, colon, stated = record.fields.get("warc-block-digest", "").partition(":")
    algorithm = name.strip().lower().replace("-", "")
    if not colon or algorithm not in ("sha1", "sha256", "sha512", "md5"):
        return
    digest = hashlib.new(algorithm, record.block, usedforsecurity=False)
    stated = stated.strip().rstrip("=").lower()
    if stated not in (digest.hexdigest(), b32encode(digest.digest()).decode().rstrip("=").lower()):
        detail = "its block is not that of its WARC-Block-Digest: deliver the file anew, or mend its writer"
        raise BadRecordError("digest_mismatch", detail)


def _no_guess(_: bytes) -> None:
    return None


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
