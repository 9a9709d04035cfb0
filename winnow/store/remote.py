"""Data on a remote file system: URIs that are taken, the way there for DuckDB and fsspec, credentials.

S3 (and what speaks it) is read and written by DuckDB's ``httpfs`` with a secret that lives as long as the connection;
any other URI through the file system that fsspec knows for it.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import duckdb

from winnow.errors import UserError
from winnow.store.extensions import load_extension
from winnow.store.faults import endpoint_url

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

ATTEMPTS = 5
"""How often a request is made in all before its error is told; ``AWS_MAX_ATTEMPTS`` overrides it."""
_one_by_one = threading.Lock()
"""Connections of one process to one file share its secrets, and making the same one at once is a conflict."""
PLAIN = re.compile(r"[a-z][a-z0-9+.-]*://[\w!.'()/ -]+")


def is_remote(data: str) -> bool:
    """Return whether ``store.data`` is a URI and not a path of this machine."""
    return "://" in data


def check_uri(data: str) -> str:
    """Return a data URI without its last slash. Raises :class:`UserError` for credentials in it or odd characters."""
    if "@" in data:  # never echoed: what stands before it may be a password
        raise UserError(
            "store.data holds an '@': credentials do not belong in winnow.toml; write s3://bucket/prefix and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        )
    parts = urlsplit(data)
    if not PLAIN.fullmatch(data) or not parts.netloc or ".." in parts.path.split("/"):
        raise UserError(
            f"store.data = {data!r}: write scheme://bucket/prefix with letters, digits, spaces and !.'()_- in it"
        )
    return data.rstrip("/")


def filesystem(data: str) -> AbstractFileSystem:
    """Return fsspec's file system for a URI. Raises :class:`UserError` when its package or credentials are missing."""
    import fsspec

    protocol = urlsplit(data).scheme
    try:
        files = fsspec.filesystem(protocol, **(_s3_options() if protocol == "s3" else {}))
    except (ImportError, ValueError) as error:
        raise UserError(f"store.data = {data!r}: {error}; S3 needs pip install 'winnow[lake,remote]'") from error
    if protocol == "s3":
        files.retries = 2  # the client below it retries with backoff already
    return files


def _s3_options() -> dict[str, Any]:
    missing = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if not os.environ.get(name)]
    if missing:
        raise UserError(f"store.data is on S3: set {' and '.join(missing)} in the environment")
    config: dict[str, Any] = {"retries": {"mode": "standard", "total_max_attempts": _attempts()}}
    if endpoint_url():
        config["s3"] = {"addressing_style": "path"}
    return {
        "key": os.environ["AWS_ACCESS_KEY_ID"],
        "secret": os.environ["AWS_SECRET_ACCESS_KEY"],
        "token": os.environ.get("AWS_SESSION_TOKEN") or None,
        "endpoint_url": endpoint_url() or None,
        "client_kwargs": {"region_name": _region()},
        "config_kwargs": config,
        "use_listings_cache": False,  # other machines write too
    }


def prepare(connection: duckdb.DuckDBPyConnection, data: str) -> None:
    """Let a connection read and write below a data URI; does nothing for a path of this machine.

    Raises :class:`UserError` when the ``httpfs`` extension or fsspec's package is not installed. Wrong or missing
    credentials show at the first file that is opened.
    """
    if not is_remote(data):
        return
    if urlsplit(data).scheme != "s3":
        files = filesystem(data)
        known = set(connection.list_filesystems())
        if not known & ({files.protocol} if isinstance(files.protocol, str) else set(files.protocol)):
            connection.register_filesystem(files)
        return
    load_extension(connection, "httpfs")
    connection.execute(f"SET http_retries = {_attempts() - 1}")
    endpoint = urlsplit(endpoint_url())
    values = {
        "key_id": os.environ.get("AWS_ACCESS_KEY_ID"),
        "secret": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": os.environ.get("AWS_SESSION_TOKEN"),
        "region": _region(),
        "endpoint": endpoint.netloc + endpoint.path.rstrip("/"),
        "url_style": "path" if endpoint.netloc else "",
        "scope": check_uri(data),
    }
    given = {name: value for name, value in values.items() if value}
    options = "".join(f", {name.upper()} ${name}" for name in given)
    if endpoint.netloc:
        options += f", USE_SSL {'false' if endpoint.scheme == 'http' else 'true'}"
    with _one_by_one:
        connection.execute(f"CREATE SECRET IF NOT EXISTS winnow_data (TYPE s3, PROVIDER config{options})", given)


def _attempts() -> int:
    return max(1, int(os.environ.get("AWS_MAX_ATTEMPTS") or ATTEMPTS))


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
