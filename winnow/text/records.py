"""One record: its fields, its text, and what is wrong with it when it is no document."""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Any, NamedTuple

from winnow.errors import UserError
from winnow.identity import canonical_json
from winnow.text.quarantine import BadRecordError, kind_of, missing_text_detail

DEEPEST_NESTING = 100


@dataclass(frozen=True)
class FieldMap:
    """Which fields of a record mean what; the others become its metadata, or of these only the ones ``metadata`` names.

    A name with dots leads into nested objects (``data.text``) unless a field of that very name exists. A name that is
    None or empty, or that a record lacks, gives null; only ``text`` is required. Raises ``UserError`` where that is
    empty.
    """

    text: str = "text"
    id: str | None = "id"
    url: str | None = "url"
    date: str | None = "date"
    metadata: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.text:
            raise UserError("field map: the text field's name is empty (set text_field=...)")


class Document(NamedTuple):
    """A readable record; ``utf8`` is its text, ``characters`` the text's length."""

    row: int
    utf8: bytes
    characters: int
    original_id: str | None
    url: str | None
    date: str | None
    metadata: str


def parse_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object of one line. Raises ``BadRecordError``."""
    text = decode_utf8(line)
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # besides syntax errors: integers of thousands of digits
        if b"\0" in line:
            raise BadRecordError("nul_byte", _RAW_NUL, line.index(b"\0")) from error
        raise _invalid_json(line, text, error) from error
    if type(value) is not dict:
        raise BadRecordError("not_an_object", f"the line is {kind_of(value)}; write one JSON object a line")
    return value


def decode_utf8(data: bytes) -> str:
    """Return UTF-8 bytes as text. Raises ``BadRecordError``."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        encoding = "is UTF-16 by its look" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "may have another encoding"
        detail = (
            f"byte 0x{data[error.start]:02x} at {error.start} is not UTF-8; the file {encoding}: convert it to UTF-8"
        )
        raise BadRecordError("invalid_utf8", detail, error.start) from error


def document_from(record: dict[str, Any], row: int, fields: FieldMap) -> Document:
    """Turn a record into a document; takes the mapped fields out of ``record``. Raises ``BadRecordError``.

    Numbers as id, url or date become their JSON text. In those and in the metadata, lone surrogates become U+FFFD,
    NaN and infinity null, bytes their UTF-8 text or else base64, dates and decimals their text; the text itself is
    never altered.
    """
    _check_nesting(record)
    text = value_at(record, fields.text)
    if type(text) is not str:
        raise _no_text(record, text, fields.text)
    utf8 = encode_text(text, f"field {fields.text!r}")
    original_id = as_text(value_at(record, fields.id)) if fields.id else None
    url = as_text(value_at(record, fields.url)) if fields.url else None
    date = as_text(value_at(record, fields.date)) if fields.date else None
    rest = remaining(record, fields)
    return Document(row, utf8, len(text), original_id, url, date, _metadata(rest) if rest else "{}")


def remaining(record: dict[str, Any], fields: FieldMap) -> dict[str, Any]:
    """Take the mapped fields out of a record and return the fields that its metadata keeps."""
    for name in (fields.text, fields.id, fields.url, fields.date):
        if name:
            _remove(record, name)
    if fields.metadata is None:
        return record
    kept: dict[str, Any] = {}
    for name in fields.metadata:
        value = value_at(record, name)
        if value is MISSING:
            continue
        *parents, last = [name] if name in record else name.split(".")
        inner = kept
        for part in parents:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return kept


def encode_text(text: str, place: str) -> bytes:
    """Return a document's text as UTF-8. Raises ``BadRecordError`` naming ``place`` if it is empty or not storable."""
    if not text or text.isspace():
        raise BadRecordError("empty_text", f"{place} is empty or white space; leave such records out at the source")
    if "\0" in text:
        detail = f"{place} has a NUL at character {text.index(chr(0))}; remove NULs at the source"
        raise BadRecordError("nul_byte", detail)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        detail = (
            f"{place} has half a surrogate pair at character {error.start}, which UTF-8 cannot hold; "
            "it was cut or escaped wrongly: repair it at the source"
        )
        raise BadRecordError("lone_surrogate", detail) from error


MISSING = object()
_SURROGATES = re.compile("[\ud800-\udfff]")
_RAW_NUL = "the line has NUL bytes, as a file has that was cut short by a crash; write it anew"


def value_at(record: dict[str, Any], name: str) -> Any:
    """Return the value of a field or of a dotted path into nested objects, ``MISSING`` if there is none."""
    if name in record:
        return record[name]
    value: Any = record if "." in name else MISSING
    for part in name.split("."):
        if not isinstance(value, dict):
            return MISSING
        value = value.get(part, MISSING)
    return value


def _remove(record: dict[str, Any], name: str) -> None:
    if name in record:
        del record[name]
    elif "." in name:
        *parents, last = name.split(".")
        inner: Any = record
        for part in parents:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(last, None)


def _no_text(record: dict[str, Any], text: object, name: str) -> BadRecordError:
    if text is MISSING:
        return BadRecordError("missing_text", missing_text_detail(name, list(record)))
    if text is None:
        return BadRecordError("missing_text", f"field {name!r} is null; expected a string (set text_field=...)")
    detail = f"field {name!r} is {kind_of(text)}; expected a string (set text_field=...)"
    return BadRecordError("text_not_string", detail)


def _invalid_json(line: bytes, text: str, error: ValueError) -> BadRecordError:
    if line.strip() in (b"[", b"{", b"]", b"}", b"],", b"},"):
        detail = "the file looks like one JSON value spread over lines; write one object a line (jq -c does)"
        return BadRecordError("invalid_json", detail)
    if isinstance(error, json.JSONDecodeError):
        detail = f"{error.msg} at character {error.pos}; write one JSON object a line"
        return BadRecordError("invalid_json", detail, len(text[: error.pos].encode()))
    return BadRecordError("invalid_json", f"{str(error).split(';')[0]}; write such numbers as strings")


def _too_deep() -> BadRecordError:
    detail = f"the record is nested more than {DEEPEST_NESTING} levels deep; flatten it or leave the field out"
    return BadRecordError("invalid_json", detail)


def _metadata(record: dict[str, Any]) -> str:
    try:
        text = canonical_json(record)
    except (TypeError, ValueError):
        text = canonical_json(_json_value(record))
    return text if text.isascii() else _storable(text)


def _check_nesting(record: dict[str, Any]) -> None:
    level: list[Any] = [value for value in record.values() if type(value) in (dict, list)]
    depth = 1
    while level:
        depth += 1
        if depth > DEEPEST_NESTING:
            raise _too_deep()
        inner = (value.values() if type(value) is dict else value for value in level)
        level = [value for values in inner for value in values if type(value) in (dict, list)]


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else str(_json_value(key)): _json_value(inner) for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_json_value(inner) for inner in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return b64encode(value).decode()
    return str(value)


def as_text(value: Any) -> str | None:
    """Return an id, a URL or a date as what is stored: numbers as their JSON text, null for none."""
    if value is None or value is MISSING:
        return None
    if type(value) is not str:
        value = _json_value(value)
        if value is None:
            return None
        if not isinstance(value, str):
            value = canonical_json(value)
    return _storable(value.replace("\0", "\ufffd"))


def _storable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text)
    return text
