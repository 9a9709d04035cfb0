"""An HTTP response to the bytes of what it delivers: status, header, and the codings of its body undone."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from winnow.text import decoders
from winnow.text.decoders import BrokenStreamError
from winnow.text.quarantine import BadRecordError, too_large_detail
from winnow.text.warc_records import header_fields

_STATUS = re.compile(rb"HTTP/\d[.\d]*[ \t]+(\d{3})(?!\d)")
_END = re.compile(rb"\n\r?\n")
_CHUNK = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
_STEP = 2**16


class HttpResponse(NamedTuple):
    """Status, header fields (names in lower case) and body, as it was sent."""

    status: int
    fields: dict[str, str]
    body: bytes


def parse_response(block: bytes) -> HttpResponse | None:
    """Split the block of a ``response`` record; None where it does not begin like an HTTP response."""
    status = _STATUS.match(block)
    if not status:
        return None
    end = _END.search(block)
    head, body = (block[: end.end()], block[end.end() :]) if end else (block, b"")
    return HttpResponse(int(status[1]), header_fields(head), body)


def decoded_body(response: HttpResponse, limit: int, cut: bool) -> bytes:
    """Return a response's body with Transfer-Encoding and Content-Encoding undone.

    Known are chunked, gzip, deflate, br (with the package ``brotli``), zstd and identity. A body that does not begin
    like its coding is taken as it is: many crawlers store it decoded and keep the header. One that breaks off is a
    bad record, unless the crawler says that it ``cut`` the record: then what is there counts. Raises
    ``BadRecordError``, also where the result has more than ``limit`` bytes.
    """
    body = response.body
    if "chunked" in response.fields.get("transfer-encoding", "").lower():
        body = _unchunked(body, cut)
    for name in reversed(response.fields.get("content-encoding", "").lower().split(",")):
        if name.strip() in ("", "identity", "none", "utf-8") or not body or body.lstrip()[:1] == b"<":
            continue
        coding = _CODINGS.get(name.strip())
        if not coding:
            raise _broken(f"its Content-Encoding '{name.strip()[:40]}' is unknown")
        if body.startswith(coding.magic):
            body = _gathered(coding.decode(body), limit, cut)
    return body


def _gathered(parts: Iterator[bytes], limit: int, cut: bool) -> bytes:
    gathered: list[bytes] = []
    size = 0
    try:
        for part in parts:
            gathered.append(part)
            size += len(part)
            if size > limit:
                raise BadRecordError("record_too_large", f"decoded, {too_large_detail(limit)}")
    except BrokenStreamError as error:
        if not (cut and gathered):
            raise _broken(f"its compressed body cannot be read: {error}") from error
    return b"".join(gathered)


def _unchunked(body: bytes, cut: bool) -> bytes:
    parts = []
    at = 0
    while True:
        chunk = _CHUNK.match(body, at)
        if not chunk:
            if at == 0:
                return body
            if cut:
                break
            raise _broken(f"its chunked body breaks off at byte {at:,}")
        size = int(chunk[1], 16)
        if size == 0:
            break
        part = body[chunk.end() : chunk.end() + size]
        parts.append(part)
        at = chunk.end() + size
        if len(part) < size and not cut:
            raise _broken(f"its chunked body breaks off at byte {len(body):,}")
        at += 2 if body[at : at + 2] == b"\r\n" else int(body[at : at + 1] == b"\n")
    return b"".join(parts)


def _gunzipped(body: bytes) -> Iterator[bytes]:
    return decoders.DECODERS["gz"](io.BytesIO(body), _STEP)


def _unzstd(body: bytes) -> Iterator[bytes]:
    return decoders.DECODERS["zst"](io.BytesIO(body), _STEP)


def _undeflated(body: bytes) -> Iterator[bytes]:
    """RFC 9110 means zlib's format by ``deflate``; some servers send the bare stream."""
    zlib_header = len(body) > 1 and body[0] & 15 == 8 and (body[0] * 256 + body[1]) % 31 == 0
    decoder = zlib.decompressobj(15 if zlib_header else -15)
    pending = body
    try:
        while not decoder.eof and (part := decoder.decompress(pending, _STEP)):
            yield part
            pending = decoder.unconsumed_tail
    except zlib.error as error:
        raise BrokenStreamError(f"the stream is corrupt ({error})") from error
    if not decoder.eof:
        raise BrokenStreamError("the stream ends before its end mark")


def _unbrotlied(body: bytes) -> Iterator[bytes]:
    try:
        import brotli
    except ImportError as error:
        raise BrokenStreamError("reading Brotli needs pip install 'winnow[html]'") from error
    decoder = brotli.Decompressor()
    pending = body
    try:
        while not decoder.is_finished() and (part := decoder.process(pending, output_buffer_limit=_STEP)):
            yield part
            pending = b""
    except brotli.error as error:
        raise BrokenStreamError(f"the Brotli stream is corrupt ({error})") from error
    if not decoder.is_finished():
        raise BrokenStreamError("the Brotli stream ends before its end mark")


def _broken(why: str) -> BadRecordError:
    return BadRecordError("broken_payload", f"{why}; fetch the page anew")


class _Coding(NamedTuple):
    decode: Callable[[bytes], Iterator[bytes]]
    magic: bytes = b""


_GZIP = _Coding(_gunzipped, b"\x1f\x8b")
_CODINGS = {
    "gzip": _GZIP,
    "x-gzip": _GZIP,
    "deflate": _Coding(_undeflated),
    "br": _Coding(_unbrotlied),
    "zstd": _Coding(_unzstd, decoders.ZSTD_MAGIC),
}
