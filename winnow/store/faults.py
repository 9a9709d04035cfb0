"""What goes wrong with the places that data lies in, with place and mend: full disks, remote storage."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import duckdb

from winnow.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SAID_FULL = tuple(os.strerror(number) for number in FULL)


class StorageError(OSError, UserError):
    """A place that data lies in failed: the disk is full, a server or a bucket does not answer as it should.

    Nothing that was being written counts. ``errno`` is that of the original error, where it had one.
    """


def full_disk(error: Exception, place: object, doing: str) -> StorageError | None:
    """Return the error to raise when ``error`` says that a disk or quota is full, else None."""
    said_so = isinstance(error, duckdb.Error) and any(sign in str(error) for sign in SAID_FULL)
    if not said_so and getattr(error, "errno", None) not in FULL:
        return None
    told = StorageError(
        f"{place}: no space left while {doing}; nothing of it counts. Free some space or raise the quota "
        "and run again, or let store.data name another place"
    )
    told.errno = getattr(error, "errno", None)
    return told


def remote_fault(error: BaseException, uri: str, attempts: str = "") -> StorageError | None:
    """Return the error to raise for one of DuckDB's or fsspec's about ``uri``; None where it says nothing known.

    The kinds told apart: refused credentials, a missing bucket, a missing object, a failing server, no connection.
    """
    where = f"{uri} at {endpoint}" if (endpoint := endpoint_url()) else uri
    status, code = _status(error), _code(error)
    if isinstance(error, PermissionError) or status in (401, 403):
        text = f"{where}: access refused ({code or 'HTTP 403'}); {_credentials()}"
    elif code == "NoSuchBucket" or (status == 404 and "NoSuchBucket" in str(error)):
        bucket = urlsplit(uri).netloc
        text = f"{where}: there is no bucket '{bucket}'; create it, or mend store.data (and AWS_ENDPOINT_URL)"
    elif isinstance(error, FileNotFoundError) or status == 404:
        text = f"{where}: not found; `winnow doctor` tells what is missing, a delivery of the same files restores it"
    elif status is not None or (isinstance(error, OSError) and error.errno in (errno.EREMOTEIO, errno.EBUSY)):
        answer = f"HTTP {status}" if status else code or "an error"
        text = f"{where}: the server answered {answer}{attempts}; run again when it is well, what was finished is kept"
    elif _unreachable(error):
        text = f"{where}: no connection{attempts}; check the network and AWS_ENDPOINT_URL, then run again"
    else:
        return None
    told = StorageError(text)
    told.errno = getattr(error, "errno", None)
    return told


@contextmanager
def explained(place: str, doing: str = "writing the store") -> Iterator[None]:
    """Turn errors about a full disk, and DuckDB's about remote files, into :class:`StorageError`; others pass."""
    try:
        yield
    except StorageError:
        raise
    except (duckdb.Error, OSError) as error:
        told = full_disk(error, place, doing)
        if told is None and isinstance(error, duckdb.Error) and "://" in place:
            told = remote_fault(error, place) if "HTTP" in str(error) or _unreachable(error) else None
        if told is None:
            raise
        raise told from error


def endpoint_url() -> str:
    """Return the S3 server's address from the environment; empty for Amazon's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    if status is None:
        status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return int(status) if status else None


def _code(error: BaseException) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))


def _response(error: BaseException) -> dict[str, dict[str, Any]]:
    """Return what the S3 client heard from the server; fsspec's error carries the client's as its cause."""
    found = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    return found if isinstance(found, dict) else {}


def _unreachable(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    signs = ("Could not connect to server", "Could not resolve hostname", "Could not establish connection")
    known = {"ConnectionError", "HTTPClientError", "ClientConnectionError", "TimeoutError", "FSTimeoutError"}
    return bool(names & known) or any(sign in str(error) for sign in signs)


def _credentials() -> str:
    missing = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if not os.environ.get(name)]
    if missing:
        return f"set {' and '.join(missing)} in the environment"
    return "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION, and the bucket's policy"
