"""The files of a location, on this machine or remote, and how one of them is opened.

A root is a path or a URI: ``file://``, ``s3://bucket/folder``, ``gs://``, ``hf://datasets/owner/name[@revision]``,
``http(s)://``, ``memory://``, or another that fsspec knows. Credentials come from the environment alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import url2pathname

from winnow.errors import UserError
from winnow.text.formats import format_of
from winnow.text.globs import UNFINISHED_SUFFIXES, Globs, Parts, is_ignored

__all__ = [
    "UNFINISHED_SUFFIXES",
    "Listed",
    "discover",
    "file_name",
    "is_ignored",
    "is_remote",
    "list_files",
    "open_binary",
    "resolve_root",
    "root_name",
]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRET_WORDS = ("signature", "token", "secret", "password", "credential", "apikey", "accesskey")
_SECRET_KEYS = ("sig", "key", "auth", "pwd", "passwd", "authorization")


class Listed(NamedTuple):
    """A file of a root.

    ``relative`` is its posix path below the root, ``path`` its absolute path or full URI. ``version`` tells an
    unchanged file, with ``bytes``: modification time in nanoseconds, of a remote file a 63-bit number of its ETag or
    checksum or, where there is none, of its time; 0 for one that may not be read.
    """

    relative: str
    path: str
    bytes: int
    version: int

    @property
    def parts(self) -> Parts:
        return tuple(self.relative.split("/"))


def scheme_of(path: str | Path) -> str:
    """Return the scheme of a URI in lower case; "" for a path, and for ``file://``."""
    found = _SCHEME.match(path) if isinstance(path, str) else None
    scheme = found[1].lower() if found else ""
    return "" if scheme == "file" else scheme


def is_remote(path: str | Path) -> bool:
    """Say whether a path or URI is to be read through the network (or fsspec's ``memory``)."""
    return bool(scheme_of(path))


def resolve_root(root: str, base: Path) -> str | Path:
    """Return a configured root: a URI as it is, or a path made absolute (a relative one is relative to ``base``).

    Raises ``UserError`` for a URI that holds a user, a password or a secret query parameter, without repeating it.
    """
    if is_remote(root):
        refuse_secrets(root)
        return root.rstrip("/") if scheme_of(root) not in ("http", "https") else root
    return (base / _local_path(root).expanduser()).resolve()


def root_name(root: str | Path) -> str:
    """Return the name of a root's last folder: the source of the files that lie right in it."""
    if isinstance(root, Path):
        return root.name or "corpus"
    web = scheme_of(root) in ("http", "https")
    address = root.partition("?")[0] if web else root
    segments = [part for part in address.partition("://")[2].split("/") if part]
    name = segments[-1] if segments else scheme_of(root)
    if scheme_of(root) == "hf" and len(segments) <= 3:  # a revision belongs to the address, not to the name
        name = name.partition("@")[0]
    return unquote(name) if web else name


def file_name(path: str | Path) -> str:
    """Return the last part of a path or URI, without a URL's query: what :func:`format_of` is to look at."""
    if scheme_of(path) in ("http", "https"):
        return unquote(urlsplit(str(path)).path.rsplit("/", 1)[-1])
    return str(path).rsplit("/", 1)[-1]


def list_files(root: str | Path, include: Sequence[str], markers: Collection[str] = ()) -> list[Listed]:
    """Return the files under ``root`` that match one of the globs, sorted by the parts of their path.

    A glob is relative to ``root``, ``**`` stands for any number of folders and ``*`` stays within one. Names that
    begin with ``.`` or ``_`` or end in ``.tmp``, ``.part``, ``.partial`` are ignored, folders too. Linked folders are
    followed, each folder is visited once (under its own name rather than a link's), so loops end. A link that leads
    nowhere is returned: reading it reports it. Files named like one of ``markers`` are returned too, wherever the globs
    lead through their folder. A root that is a file gives that file, whatever the globs. Of an ``http`` root, which has
    no listing, the globs must name the files. Raises ``UserError`` for a root or folder that cannot be listed, lest its
    files look withdrawn.
    """
    globs = Globs(str(root) if isinstance(root, Path) else without_secrets(root), include, markers)
    if is_remote(root):
        from winnow.text.remote import list_remote

        refuse_secrets(str(root))
        return sorted(list_remote(str(root), globs), key=lambda listed: listed.parts)
    return list_local(_local_path(root), globs)


def discover(root: str | Path, include: Sequence[str]) -> list[Path]:
    """Return the paths of the corpus files in a folder of this machine, as :func:`list_files` does.

    Raises ``UserError`` also for a file whose name is not UTF-8.
    """
    found = [listed for listed in list_files(root, include) if format_of(listed.relative)]
    return [Path(check_name(listed, str(root)).path) for listed in found]


def open_binary(path: str | Path) -> BinaryIO:
    """Open a local path or URI for reading, seekable; remote ones are read in blocks, in bounded memory.

    A remote read is tried again, from where it broke off, when the server fails or the connection is cut. Raises
    ``OSError`` when that does not help, when the object changes while it is read, and when fewer bytes come than it
    has: never is its end cut off unnoticed.
    """
    if is_remote(path):
        from winnow.text.remote import open_remote

        return open_remote(str(path))
    return _local_path(path).open("rb")


def check_name(listed: Listed, place: str) -> Listed:
    """Return the file; raise ``UserError`` if its name is not UTF-8, so that no table can hold it."""
    try:
        listed.relative.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: the name of the file {listed.relative!r} is not UTF-8; rename it") from error
    return listed


def without_secrets(uri: str) -> str:
    """Return a URI without user, password and query, for messages."""
    if not is_remote(uri):
        return uri
    split = urlsplit(uri)
    return f"{split.scheme}://{split.netloc.rpartition('@')[2]}{split.path}"


def refuse_secrets(uri: str) -> None:
    """Raise ``UserError``, without repeating it, for a URI with a user, a password or a secret in its query."""
    split = urlsplit(uri)
    plain = [re.sub(r"[^a-z0-9]", "", key.lower()) for key, _ in parse_qsl(split.query, keep_blank_values=True)]
    secret = any(key in _SECRET_KEYS or any(word in key for word in _SECRET_WORDS) for key in plain)
    if "@" in split.netloc or secret:
        raise UserError(
            f"{without_secrets(uri)}: a location's URI holds a user, password, key or signature; take it out and give "
            "credentials in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, HF_TOKEN, ...)"
        )


def _local_path(path: str | Path) -> Path:
    """Return the path that a path or ``file://`` URI names. Raises ``UserError`` for a URI of another host."""
    if isinstance(path, Path) or path[:7].lower() != "file://":
        return Path(path)
    host, _, rest = path[7:].partition("/")
    if host not in ("", "localhost"):
        raise UserError(f"{path}: a file URI has no host; write file:///{host}/{rest} or the path itself")
    return Path(url2pathname(f"/{rest}"))


def list_local(root: Path, globs: Globs) -> list[Listed]:
    """List a folder, or a single file, of this machine; see :func:`list_files`."""
    if _is_file(root):
        return [_listed(root.parent, (root.name,))]
    found: list[Parts] = []
    visited: set[tuple[int, int]] = set()
    folders: list[Parts] = [()]
    links: list[Parts] = []
    while folders or links:
        parts = folders.pop() if folders else links.pop()
        entries, identity = _entries(root.joinpath(*parts))
        if identity in visited:
            continue
        visited.add(identity)
        for entry in entries:
            if is_ignored(entry.name):
                continue
            here = (*parts, entry.name)
            if _is_folder(entry):
                if globs.leads_to(here):
                    (links if entry.is_symlink() else folders).append(here)
            elif globs.takes(here) and _is_delivered(entry):
                found.append(here)
        links.sort(reverse=True)
    return [_listed(root, parts) for parts in sorted(found)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # its folder may not be entered: listing it says so
        return False


def _listed(root: Path, parts: Parts) -> Listed:
    path = root.joinpath(*parts)
    try:
        status = path.stat()
        # A file that may not be read looks different once it may, so that it is tried again.
        size, version = status.st_size, status.st_mtime_ns if os.access(path, os.R_OK) else 0
    except OSError:  # a link that leads nowhere, or just gone: the reader says why, in quarantine
        size, version = 0, 0
    return Listed("/".join(parts), str(path), size, version)


def _entries(folder: Path) -> tuple[list[os.DirEntry[str]], tuple[int, int]]:
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name), (status.st_dev, status.st_ino)
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}): name an existing, readable folder") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_delivered(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry that is no folder is a file, or a link that leads nowhere; pipes and devices are neither."""
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return True
