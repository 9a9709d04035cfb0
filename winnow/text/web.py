"""Single files of web servers, by ranges where the server knows them, else through a file in the temporary folder.

The standard library's client is used rather than fsspec's: it goes on where a connection broke off, and it sees what
each answer says of the file (size, ``ETag``, ``Last-Modified``), so that a changed or cut file is noticed.
"""

from __future__ import annotations

import errno
import re
import tempfile
import urllib.request
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO, BinaryIO, NamedTuple, cast
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit, urlunsplit

from winnow.errors import UserError
from winnow.text.globs import Globs
from winnow.text.locations import Listed, file_name, without_secrets
from winnow.text.remote import number_of
from winnow.text.retries import ChangedError, patiently

TIMEOUT_SECONDS = 30.0
PIECE_BYTES = 2**18


class Answer(NamedTuple):
    """What a server says of a file; ``size`` None = not told, ``ranges`` whether it sends only the part asked for."""

    size: int | None
    etag: str
    modified: str
    ranges: bool

    @property
    def version(self) -> int:
        """A number that changes with the file if the server tells anything at all of its state; else 1."""
        if self.etag:
            return number_of(self.etag)
        with suppress(ValueError):
            return int(parsedate_to_datetime(self.modified).replace(tzinfo=UTC).timestamp()) * 10**9 or 1
        return 1

    def same(self, other: Answer) -> bool:
        """Say whether both may be of one state of the file: not so when size, tag or else time contradict."""
        if self.size != other.size:
            return False
        if self.etag and other.etag:
            return self.etag == other.etag
        return not (self.modified and other.modified) or self.modified == other.modified


def list_web(root: str, globs: Globs) -> list[Listed]:
    """List a URL of one file, or the files below a URL that the globs name one by one. Raises as the client does."""
    names = globs.names()
    if names is None and not file_name(root):
        raise UserError(
            f"{without_secrets(root)}: a web server has no listing; give the URL of one file, or name the files in "
            "include"
        )
    split = urlsplit(root)
    urls = {file_name(root): root} if names is None else {}
    for name in names or ():
        path = f"{split.path.rstrip('/')}/{quote(name)}"
        urls[name] = urlunsplit((split.scheme, split.netloc, path, split.query, ""))
    found = []
    for name, url in urls.items():
        answer = patiently(partial(_look, url), without_secrets(url))
        found.append(Listed(name, url, answer.size or 0, answer.version))
    return found


def open_web(url: str) -> WebObject | BinaryIO:
    """Return the ranges of a file, or a whole copy of it if the server sends no ranges or not its size."""
    whole = patiently(partial(_look, url), without_secrets(url))
    if whole.ranges and whole.size is not None:
        return WebObject(url, whole)
    return patiently(partial(_download, url), without_secrets(url))


class WebObject:
    """Ranges of a file on one connection as long as they follow each other; raises ``OSError``, ``HTTPException``."""

    def __init__(self, url: str, whole: Answer) -> None:
        self._url, self._whole = url, whole
        self.size = whole.size or 0
        self._response: HTTPResponse | None = None
        self._position = 0

    def read(self, start: int, stop: int) -> bytes:
        if self._response is None or self._position != start:
            self.close()
            self._response = self._open(start)
            self._position = start
        pieces: list[bytes] = []
        try:
            while self._position < stop:
                piece = self._response.read(min(PIECE_BYTES, stop - self._position))
                if not piece:
                    raise ConnectionError("the connection ended before the file did")
                pieces.append(piece)
                self._position += len(piece)
        except (OSError, HTTPException):
            self.close()
            if not pieces:
                raise
        return b"".join(pieces)

    def _open(self, start: int) -> HTTPResponse:
        try:
            response = _request(self._url, f"bytes={start}-")
        except HTTPError as error:
            if error.code == 416:  # it has become shorter
                raise ChangedError from error
            raise
        now = _answer(response)
        if not now.same(self._whole) or not now.ranges:
            response.close()
            raise ChangedError
        return response

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects from web address to web address alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme.lower() not in ("http", "https"):
            raise OSError(errno.EINVAL, "the server redirects to what is no web address", without_secrets(newurl))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _request(url: str, wanted: str | None) -> HTTPResponse:
    split = urlsplit(url)
    if split.scheme.lower() not in ("http", "https"):
        raise OSError(errno.EINVAL, "it is no web address", url)
    path, query = (quote(part, safe="/%:=&?~+!$,;'@()*[]") for part in (split.path, split.query))
    headers = {"User-Agent": "winnow", "Accept-Encoding": "identity"} | ({"Range": wanted} if wanted else {})
    request = urllib.request.Request(urlunsplit((split.scheme, split.netloc, path, query, "")), headers=headers)  # noqa: S310 - checked above
    try:
        return cast(HTTPResponse, urllib.request.build_opener(_WebRedirects).open(request, timeout=TIMEOUT_SECONDS))
    except HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise FileNotFoundError(errno.ENOENT, f"the server answers {error.code} {error.reason}", url) from error
        if error.code in (401, 403):
            raise PermissionError(errno.EACCES, f"the server answers {error.code} {error.reason}", url) from error
        raise


def _look(url: str) -> Answer:
    """Ask for one byte: the answer tells the size, and whether ranges are known, where ``HEAD`` is often refused."""
    try:
        with _request(url, "bytes=0-0") as response:
            return _answer(response)
    except HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range", "").endswith("/0"):
            return Answer(0, *_validators(error.headers), ranges=True)
        raise


def _answer(response: HTTPResponse) -> Answer:
    headers = response.headers
    ranged = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", "").strip())
    size = ranged[1] if ranged else headers.get("Content-Length") if response.status != 206 else None
    known = int(size) if size and size.isdecimal() else None
    return Answer(known, *_validators(headers), ranges=response.status == 206 and bool(ranged))


def _validators(headers: object) -> tuple[str, str]:
    get = getattr(headers, "get")  # noqa: B009 - HTTPMessage and Message alike
    return get("ETag", "").removeprefix("W/"), get("Last-Modified", "")


def _download(url: str) -> BinaryIO:
    """Return a temporary file with all that the server sends; raises ``ConnectionError`` if it is less than it said."""
    copy = tempfile.TemporaryFile(prefix="winnow-")  # noqa: SIM115 - handed on open
    try:
        with _request(url, None) as response:
            size = _answer(response).size
            while piece := response.read(PIECE_BYTES):
                copy.write(piece)
        if size is not None and copy.tell() != size:
            raise ConnectionError(f"the connection ended after {copy.tell()} of {size} bytes")
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return cast(BinaryIO, copy)
