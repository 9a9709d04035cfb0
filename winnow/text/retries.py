"""Trying again what a network may mend, and telling it from what only the user can."""

from __future__ import annotations

import errno
import logging
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import TypeVar

from winnow.errors import UserError

T = TypeVar("T")

ATTEMPTS = 6
BACKOFF_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 20.0

_BUSY = (408, 425, 429)
_FINAL = (
    *(FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(NotImplementedError, UserError),
)
_FINAL_NUMBERS = (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG, errno.EREMCHG, errno.ENOSPC)
_NETWORK_ERRORS = (
    ("aiohttp", "ClientConnectionError"),
    ("aiohttp", "ClientPayloadError"),
    ("botocore.exceptions", "ConnectionError"),
    ("botocore.exceptions", "HTTPClientError"),
    ("botocore.parsers", "ResponseParserError"),
    ("google.auth.exceptions", "TransportError"),
    ("httpx", "TransportError"),
    ("httpx2", "TransportError"),
)

log = logging.getLogger(__name__)


class ChangedError(OSError):
    """A remote file is no longer the one that was opened."""


def patiently(work: Callable[[], T], what: str) -> T:
    """Return what ``work`` returns; try again, ever later, while its errors are of the passing kind.

    Raises the last error as it is.
    """
    for attempt in range(ATTEMPTS):
        try:
            return work()
        except Exception as error:  # whatever the client library of a store raises
            if attempt + 1 == ATTEMPTS or not is_passing(error):
                raise
            wait = min(BACKOFF_SECONDS * 2**attempt, LONGEST_WAIT_SECONDS)
            log.warning("%s: %s; trying again in %.1f s", what, explain(error), wait)
            time.sleep(wait)
    raise RuntimeError("at least one attempt is made")


def is_passing(error: Exception) -> bool:
    """Say whether an error may be gone at the next attempt: server errors, time-outs, cut connections."""
    if isinstance(error, (*_FINAL, ChangedError)):
        return False
    if isinstance(error, (HTTPException, EOFError, *_network_errors())):
        return True
    status = http_status(error)
    if status is not None:
        return status >= 500 or status in _BUSY
    return isinstance(error, OSError) and error.errno not in _FINAL_NUMBERS


def _network_errors() -> tuple[type[Exception], ...]:
    """Return the errors of connections of the libraries that are loaded."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in _NETWORK_ERRORS)
    return tuple(kind for kind in found if kind is not None)


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status that an error, or one that caused it, speaks of; each library says it in its own way."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(response, "status_code", None)
        for found in (status, getattr(one, "status", None), getattr(one, "code", None)):
            if str(found).isdecimal():
                return int(str(found))
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def explain(error: BaseException) -> str:
    """Return an error as part of a sentence: its first line, not too long, and its kind where it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip().split("\n", 1)[0][:300].rstrip(".")
    return text or type(error).__name__
