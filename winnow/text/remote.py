"""Files of object stores and hubs through fsspec: their listing, and ranges of one of them."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
from datetime import datetime
from functools import partial
from typing import Any, BinaryIO, cast

from winnow.errors import UserError
from winnow.text.globs import Globs, is_ignored
from winnow.text.locations import Listed, file_name, scheme_of, without_secrets
from winnow.text.remote_file import BLOCK_BYTES, Ranges, RemoteFile, as_os_error
from winnow.text.retries import ChangedError, explain, http_status, is_passing, patiently

WEB = ("http", "https")
# Their files hold a range by the conditions of opening; of others, any range is taken by itself.
OPENED_ONCE = ("s3", "s3a", "hf")
BUFFER_BYTES = 2**17

log = logging.getLogger(__name__)


def list_remote(root: str, globs: Globs) -> list[Listed]:
    """List a remote root; see :func:`winnow.text.locations.list_files`. Raises ``UserError`` naming cause and mend."""
    place = without_secrets(root)
    try:
        if scheme_of(root) in WEB:
            from winnow.text.web import list_web

            return list_web(root, globs)
        return patiently(partial(_list_store, root, globs), place)
    except UserError:
        raise
    except Exception as error:  # whatever the client library of a store raises
        log.debug("listing %s", place, exc_info=True)
        raise UserError(f"{place} cannot be listed ({explain(error)}): {_mend(root, error)}") from error


def open_remote(path: str) -> BinaryIO:
    """Open one remote file; see :func:`winnow.text.locations.open_binary`. Raises ``OSError``."""
    try:
        ranges: Ranges | BinaryIO
        if scheme_of(path) in WEB:
            from winnow.text.web import open_web

            ranges = open_web(path)
            if isinstance(ranges, io.IOBase):
                return cast(BinaryIO, ranges)
        else:
            ranges = patiently(partial(StoredObject, path), path)
    except UserError as error:
        raise OSError(errno.EINVAL, str(error), path) from error
    except Exception as error:  # whatever the client library of a store raises
        raise as_os_error(path, error) from error
    return cast(BinaryIO, io.BufferedReader(RemoteFile(cast(Ranges, ranges), path), BUFFER_BYTES))


def filesystem(scheme: str) -> Any:
    """Return fsspec's filesystem for a scheme, which remembers no listing. Raises ``UserError`` if there is none."""
    import fsspec

    options: dict[str, Any] = {} if scheme == "hf" else {"use_listings_cache": False}
    if scheme in ("s3", "s3a"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        options |= {"endpoint_url": endpoint} if endpoint else {}
    try:
        found = fsspec.filesystem(scheme, **options)
    except ImportError as error:
        mend = "pip install huggingface_hub" if scheme == "hf" else "pip install 'winnow[remote]'"
        raise UserError(f"{scheme}:// needs a package that is not installed ({explain(error)}): {mend}") from error
    except ValueError as error:
        raise UserError(
            f"there are no locations '{scheme}://'; give a path, file, s3, gs, hf, http, https or memory"
        ) from error
    if scheme in ("s3", "s3a"):
        found.retries = 1  # botocore tries each request again, and so does `patiently`
    return found


def _list_store(root: str, globs: Globs) -> list[Listed]:
    scheme = scheme_of(root)
    store = filesystem(scheme)
    fresh = {"refresh": True} if scheme == "hf" else {}
    base = str(store.resolve_path(root).unresolve() if hasattr(store, "resolve_path") else store._strip_protocol(root))
    found: dict[str, Any] = {}
    for folder in globs.folders():
        found |= store.find("/".join((base, *folder)), detail=True, **fresh)
    files = {name: info for name, info in found.items() if info["type"] == "file" and not name.endswith("/")}
    if base in files:
        return [Listed(file_name(root), root, *fingerprint(files[base]))]
    if not found:
        store.info(base)  # raises if there is no such bucket or folder
    listed = []
    for name, info in files.items():
        relative = name[len(base) :].lstrip("/") if name.startswith(base) else ""
        parts = tuple(relative.split("/"))
        if relative and not any(map(is_ignored, parts)) and globs.takes(parts):
            listed.append(Listed(relative, f"{root.rstrip('/')}/{relative}", *fingerprint(info)))
    return listed


def fingerprint(info: dict[str, Any]) -> tuple[int, int]:
    """Return size and version of a file from what fsspec's filesystems tell of it, each under names of its own."""
    size = int(info.get("size") or 0)
    for key in ("blob_id", "xet_hash", "md5Hash", "crc32c", "ETag", "etag", "generation"):
        if info.get(key):
            return size, number_of(str(info[key]))
    for key in ("LastModified", "mtime", "updated", "modified", "created"):
        if isinstance(info.get(key), datetime):
            return size, int(info[key].timestamp() * 1e6) * 1000
        if info.get(key):
            return size, number_of(str(info[key]))
    return size, 1


def number_of(text: str) -> int:
    """Return a number of 63 bits, not 0, that stands for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1 or 1


class StoredObject:
    """Ranges of one object. Raises what its library raises, :class:`ChangedError` when it changed meanwhile.

    S3 itself refuses a range of an object that is another than the one opened; elsewhere, size and version are asked
    for after every range.
    """

    def __init__(self, path: str) -> None:
        scheme = scheme_of(path)
        self._store = filesystem(scheme)
        self._path = self._store._strip_protocol(path)
        self._fresh = {"refresh": True, "expand_info": True} if scheme == "hf" else {}
        self._refuses = scheme in ("s3", "s3a")
        self._handle: Any = None
        if self._refuses:
            self._handle = self._store.open(self._path, "rb", block_size=BLOCK_BYTES, cache_type="none")
            self.size = int(self._handle.size)
            return
        self._before = self._now()
        self.size = self._before[0]
        if scheme in OPENED_ONCE:
            options = {"block_size": BLOCK_BYTES, "cache_type": "none", "size": self.size}
            self._handle = self._store.open(self._path, "rb", **options)

    def _now(self) -> tuple[int, int]:
        info = self._store.info(self._path, **self._fresh)
        if info["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, "it is a folder", self._path)
        return fingerprint(info)

    def read(self, start: int, stop: int) -> bytes:
        try:
            if self._handle is None:
                data = self._store.cat_file(self._path, start=start, end=stop)
            else:
                self._handle.seek(start)
                data = self._handle.read(stop - start)
        except Exception as error:  # whatever the client library of a store raises
            if http_status(error) == 412 or type(error).__name__ == "FileExpired":
                raise ChangedError from error
            if self._refuses or is_passing(error) or self._now() == self._before:
                raise
            raise ChangedError from error
        if not self._refuses and self._now() != self._before:
            raise ChangedError
        return bytes(data)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.close()


_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE; FSSPEC_S3_ANON=1 for a public bucket)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (FSSPEC_GS_TOKEN=anon for a public bucket)",
    "hf": "HF_TOKEN",
}


def _mend(root: str, error: Exception) -> str:
    scheme = {"s3a": "s3", "gcs": "gs"}.get(scheme_of(root), scheme_of(root))
    names = _CREDENTIALS.get(scheme, "the credentials that it asks for")
    status = http_status(error)
    if isinstance(error, PermissionError) or status in (401, 403) or "redential" in f"{type(error).__name__}{error}":
        return f"set {names} in the environment, and check that they may list it"
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        private = "; a private one needs HF_TOKEN" if scheme == "hf" else ""
        return f"there is no such bucket, folder or file; check the name{private}"
    if is_passing(error):
        endpoint = " and AWS_ENDPOINT_URL" if scheme == "s3" else ""
        return f"the server did not answer as it should, several times; check the network{endpoint}, or try again later"
    return "check the location's root"
