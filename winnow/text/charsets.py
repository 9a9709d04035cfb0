"""Bytes of the web to text: which encoding they are in, and what could not be decoded."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import NamedTuple

BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
META_BYTES = 1024
_LABEL = re.compile(r"[a-z0-9_.:-]{1,40}")
_META = re.compile(rb"""<meta[^>]*?charset\s*=\s*["']?\s*([a-z0-9_.:-]+)""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([a-z0-9_.:-]+)["']""", re.IGNORECASE)

# What browsers decode instead of the named encoding (WHATWG Encoding Standard, "Names and labels").
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "utf-16": "utf-16-le",
}
_KNOWN = frozenset(
    (
        *_SUPERSETS.values(),
        *("utf-8", "utf-16-be", "koi8-r", "koi8-u", "cp866", "mac-roman", "mac-cyrillic", "euc_jp", "iso2022_jp"),
        *(f"cp125{number}" for number in range(9)),
        *(f"iso8859-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
    )
)


class Decoded(NamedTuple):
    """Text, Python's name of the encoding it was decoded from, and how many U+FFFD stand for undecodable bytes."""

    text: str
    encoding: str
    undecodable: int


def known_encoding(label: str | None) -> str | None:
    """Return the encoding that browsers decode for a label (``latin1`` is Windows-1252), None if they know none."""
    label = (label or "").strip().strip("\"'").lower()
    if not _LABEL.fullmatch(label):
        return None
    try:
        name = codecs.lookup(label.removeprefix("x-")).name
    except LookupError:
        return None
    name = _SUPERSETS.get(name, name)
    return name if name in _KNOWN else None


def decode(data: bytes, declared: str | None, markup: bool, detect: Callable[[bytes], str | None]) -> Decoded:
    """Return a payload as text.

    The encoding is that of the byte order mark, else the ``declared`` one (of the HTTP header), else for ``markup``
    that of the first ``META_BYTES``, else UTF-8 if the bytes are, else what ``detect`` says, else Windows-1252; an
    unknown name counts as none. Undecodable bytes become U+FFFD.
    """
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return _decoded(data[len(mark) :], encoding)
    encoding = known_encoding(declared) or (_meta(data[:META_BYTES]) if markup else None) or ""
    if not encoding:
        encoding = "utf-8" if _is_utf8(data) else known_encoding(detect(data)) or "cp1252"
    return _decoded(data, encoding)


def _meta(head: bytes) -> str | None:
    match = _XML.search(head) or _META.search(head)
    encoding = known_encoding(match[1].decode()) if match else None
    # Who could read the name in single bytes is not reading UTF-16.
    return "utf-8" if encoding and encoding.startswith("utf-16") else encoding


def _is_utf8(data: bytes) -> bool:
    """Say whether the bytes are UTF-8, the last character perhaps cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def _decoded(data: bytes, encoding: str) -> Decoded:
    try:
        return Decoded(data.decode(encoding), encoding, 0)
    except UnicodeDecodeError:
        text = data.decode(encoding, "replace")
        genuine = data.count("\ufffd".encode()) if encoding == "utf-8" else 0
        return Decoded(text, encoding, text.count("\ufffd") - genuine)
