"""The arguments of ``winnow run`` as configuration: corpus globs and URIs become locations."""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from winnow.config import Config, EvaluationSet, Location
from winnow.errors import UserError


def configured(config: Config, options: argparse.Namespace) -> Config:
    """Return the configuration with the command line's corpus, reference and budget in it."""
    from winnow.demo.setup import demo_config

    changes: dict[str, Any] = {}
    if options.corpus:
        if config == demo_config():  # its thresholds are made for docstrings
            config = Config()
        changes["corpus"] = config.corpus.model_copy(update={"locations": _locations(options.corpus)})
    if options.reference:
        path = Path(options.reference).expanduser().resolve()
        changes["reference"] = config.reference.model_copy(update={"path": str(path), "name": path.name.split(".")[0]})
    if options.evaluation:
        own = config.contamination.evaluation_sets
        sets = {
            name: own[name].model_copy(update={"path": path}) if name in own else EvaluationSet(path=path)
            for name, path in map(_evaluation_set, options.evaluation)
        }
        changes["contamination"] = config.contamination.model_copy(update={"evaluation_sets": sets})
    if options.model:
        changes["model"] = config.model.model_copy(
            update={"checkpoint": str(Path(options.model).expanduser().resolve())}
        )
    if options.budget:
        changes["selection"] = config.selection.model_copy(update={"budget_tokens": options.budget})
    return config.model_copy(update=changes)


def _evaluation_set(text: str) -> tuple[str, str]:
    """Return name and place of ``NAME=PLACE``, or of ``PLACE``, whose name is then the set's; a path becomes absolute.

    What is before the first ``=`` is a name when it has no slash, so that an address may hold ``=``.
    """
    from winnow.text.locations import file_name, is_remote

    name, mark, place = text.partition("=")
    if not mark or "/" in name:
        name, place = "", text
    if not is_remote(place):
        place = str(Path(place).expanduser().resolve())
    return name or file_name(place.rstrip("/")).split(".")[0], place


def _locations(texts: Iterable[str]) -> list[Location]:
    """Return one location for all local globs, and one for each URI.

    That of the globs is their common root and each glob below it, so that later files are found too; a folder stands
    for all that is in it. A text that names nothing as it stands may hold several globs; ``{a,b}`` means both. Raises
    :class:`UserError` when a glob names no corpus file.
    """
    from winnow.text.formats import suffixes

    patterns: list[Path] = []
    remote: list[Location] = []
    for text in texts:
        words = [text] if _files(text) else text.split()
        for pattern in (one for word in words for one in _braces(word)):
            if "://" in pattern:
                remote.append(_remote(pattern))
                continue
            if Path(pattern).expanduser().is_dir():
                pattern = str(Path(glob.escape(pattern)) / "**" / "*")
            if not _files(pattern):
                raise UserError(f"--corpus {pattern}: no corpus file there ({suffixes()}); check the glob")
            patterns.append(Path(os.path.normpath(Path(pattern).expanduser().absolute())))
    if not patterns:
        return remote
    root = Path(os.path.commonpath([_anchor(pattern) for pattern in patterns]))
    if any(pattern.parent == root for pattern in patterns):  # the folder's name is the source
        root = root.parent
    include = sorted({pattern.relative_to(root).as_posix() for pattern in patterns})
    return [Location(root=str(root), include=include), *remote]


def _remote(uri: str) -> Location:
    """Return the location of a URI: the folder before its first wildcard, and what follows as the glob.

    In a web address ``?`` begins the query, which stays with the root. Raises :class:`UserError` for a URI that holds a
    secret, before any server is asked.
    """
    from winnow.text.locations import list_files, refuse_secrets, scheme_of

    refuse_secrets(uri)
    scheme, _, rest = uri.partition("://")
    rest, mark, query = rest.partition("?") if scheme_of(uri) in ("http", "https") else (rest, "", "")
    host, *parts = rest.split("/")
    fixed = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    root = f"{scheme}://{'/'.join((host, *parts[:fixed]))}{mark}{query}"
    include = ["/".join(parts[fixed:])] if fixed < len(parts) else ["**/*"]
    if not list_files(root, include):
        raise UserError(f"--corpus {uri}: no file there; check the glob")
    return Location(root=root, include=include)


def _files(pattern: str) -> list[str]:
    from winnow.text.formats import format_of

    found = glob.glob(str(Path(pattern).expanduser()), recursive=True)  # noqa: PTH207 - patterns may be absolute
    return [name for name in found if Path(name).is_file() and format_of(PurePosixPath(name))]


def _anchor(pattern: Path) -> Path:
    """Return the folder above the first part with a wildcard, or above the file."""
    for folder in reversed(pattern.parents):
        if glob.has_magic(folder.name):
            return folder.parent
    return pattern.parent


def _braces(pattern: str) -> list[str]:
    start = pattern.find("{")
    end = pattern.find("}", start)
    if start < 0 or end < 0:
        return [pattern]
    choices = pattern[start + 1 : end].split(",")
    return [text for choice in choices for text in _braces(pattern[:start] + choice + pattern[end + 1 :])]
