"""Which of a location's files are shards, and of which source: plain folders, Dolma's layout, saved datasets.

* ``files``: every corpus file; its folder below the root is its source.
* ``dolma``: files below ``documents/``, each with the files of the same path below ``attributes/<tagger>/``, whose
  records the reader joins by id (https://github.com/allenai/dolma, docs/data-format.md).
* ``huggingface``: the Arrow files that ``state.json`` names in a folder written by ``Dataset.save_to_disk``; of a
  ``DatasetDict``, each split is a source.
* ``auto``: saved datasets wherever one lies, Dolma's layout where the root has both folders, plain files for the rest.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from winnow.errors import UserError
from winnow.text.globs import Globs, Parts
from winnow.text.locations import Listed, list_files, open_binary, root_name, scheme_of, without_secrets

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
DOCUMENTS, ATTRIBUTES = "documents", "attributes"
MAX_STATE_BYTES = 64 * 2**20

log = logging.getLogger(__name__)


class Shard(NamedTuple):
    """A file to read: ``name`` is its shard, ``attributes`` the (tagger, file) pairs of a Dolma documents file."""

    name: str
    source: str
    file: Listed
    attributes: tuple[tuple[str, Listed], ...] = ()

    @property
    def version(self) -> int:
        """The file's version; with attributes a 63-bit number that changes when any of the files does."""
        if not self.attributes or not self.file.version:
            return self.file.version
        state = [self.file.version, *((tagger, one.bytes, one.version) for tagger, one in self.attributes)]
        return xxhash.xxh3_64_intdigest(json.dumps(state).encode()) >> 1 or 1


def find_shards(
    root: str | Path,
    include: Sequence[str],
    layout: str = "auto",
    source: str = "",
    is_corpus_file: Callable[[str, Listed], bool] = lambda source, file: True,
) -> list[Shard]:
    """Return the shards of a location in the order of their paths.

    ``source`` names the source of all of them; otherwise it is the file's folder. ``is_corpus_file`` is asked about
    (source, file), but for the files that a saved dataset names. Raises ``UserError`` for a root that cannot be listed
    or is a file of no known format, a layout that is not there, and a saved dataset that is broken or holds an indices
    mapping.
    """
    listable = scheme_of(root) not in ("http", "https")
    saved = layout == "huggingface" or (layout == "auto" and listable)
    dolma = layout == "dolma" or (layout == "auto" and listable)
    wanted = [*include, f"{ATTRIBUTES}/**"] if dolma else include
    files = list_files(root, wanted, (STATE, INFO, SPLITS) if saved else ())
    place = str(root) if isinstance(root, Path) else without_secrets(root)
    lone = len(files) == 1 and files[0].path == str(root)
    location = _Location(place, root_name(_parent(root) if lone else root), source, Globs(place, include))
    if lone:
        shard = location.shard(files[0])
        if not is_corpus_file(shard.source, shard.file):
            raise UserError(
                f"{place}: the name does not say the file's format; give it, as in "
                f'[corpus.sources.{json.dumps(shard.source)}] format = "jsonl"'
            )
        return [shard]
    found: dict[str, Shard] = {}
    if saved:
        found, files = _saved_datasets(location, files, required=layout == "huggingface")
    attributes = [file for file in files if file.parts[0] == ATTRIBUTES and len(file.parts) > 2] if dolma else []
    documents = [file for file in files if file.parts[0] == DOCUMENTS and location.includes(file)]
    if layout == "dolma" and not documents:
        raise UserError(f"{place}: layout 'dolma' needs a folder {DOCUMENTS}/ with files; there is none")
    if layout == "dolma" or (documents and attributes):
        joined = _joined(place, documents, attributes)
        plain = [location.shard(file, 1, joined.get(file.relative, ())) for file in documents]
        others = [file for file in files if file.parts[0] not in (DOCUMENTS, ATTRIBUTES)] if layout == "auto" else []
    else:
        plain, others = [], files if layout != "huggingface" else []
    plain += [location.shard(file) for file in others if location.includes(file)]
    found |= {shard.file.relative: shard for shard in plain if is_corpus_file(shard.source, shard.file)}
    return sorted(found.values(), key=lambda shard: shard.file.parts)


class _Location(NamedTuple):
    place: str
    name: str
    source: str
    globs: Globs

    def includes(self, file: Listed) -> bool:
        return self.globs.match(file.parts)

    def shard(self, file: Listed, skip: int = 0, attributes: tuple[tuple[str, Listed], ...] = ()) -> Shard:
        """Return the file as a shard; its source is its folder, less the first ``skip`` parts, or the root's name."""
        inside = file.parts[skip:]
        source = self.source or "/".join(inside[:-1]) or self.name
        below = inside if self.source else inside[-1:]
        return Shard("/".join((source, *below)), source, file, attributes)


def _parent(root: str | Path) -> str | Path:
    if isinstance(root, Path):
        return root.parent
    address = root.partition("?")[0] if scheme_of(root) in ("http", "https") else root
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rstrip('/').rpartition('/')[0]}"


def _joined(
    place: str, documents: Sequence[Listed], attributes: Sequence[Listed]
) -> Mapping[str, tuple[tuple[str, Listed], ...]]:
    """Return the attribute files of each documents file; a tagger is as few folders as leave such a file's path."""
    paths = {file.parts[1:]: file.relative for file in documents}
    joined: dict[str, list[tuple[str, Listed]]] = {}
    orphans: list[Listed] = []
    for file in attributes:
        parts = file.parts[1:]
        cut = next((cut for cut in range(1, len(parts)) if parts[cut:] in paths), None)
        if cut is None:
            orphans.append(file)
        else:
            joined.setdefault(paths[parts[cut:]], []).append(("/".join(parts[:cut]), file))
    if orphans:
        _warn_once(
            f"{place}: {len(orphans)} files below {ATTRIBUTES}/ have no file of the same path below {DOCUMENTS}/ and "
            f"are not read; the first: {orphans[0].relative}"
        )
    return {relative: tuple(sorted(pairs)) for relative, pairs in joined.items()}


@cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


def _saved_datasets(
    location: _Location, files: Sequence[Listed], required: bool
) -> tuple[dict[str, Shard], list[Listed]]:
    """Return the shards of the saved datasets among the files, by path, and the files that belong to none."""
    by_path = {file.parts: file for file in files}
    folders = {file.parts[:-1] for file in files if file.parts[-1] == STATE and (*file.parts[:-1], INFO) in by_path}
    splits = {file.parts[:-1]: _names(location, file, "splits") for file in files if file.parts[-1] == SPLITS}
    for folder, names in splits.items():
        for name in names:
            split = (*folder, name)
            if split not in folders and location.globs.leads_to(split):
                raise UserError(
                    f"{location.place}: {'/'.join((*folder, SPLITS))} names the split '{name}', but there is no saved "
                    "dataset of that name beside it: copy the folder whole"
                )
    if required and not folders:
        raise UserError(
            f"{location.place}: layout 'huggingface' needs a folder with {STATE} and {INFO}, as save_to_disk writes it"
        )
    found: dict[str, Shard] = {}
    for folder in sorted(folders):
        for parts in _data_files(location, folder, by_path):
            shard = location.shard(by_path[parts])
            if not location.source and folder[:-1] in splits and not folder[:-1]:  # splits right in the root
                source = "/".join((location.name, *folder))
                shard = shard._replace(source=source, name=f"{source}/{parts[-1]}")
            found[shard.file.relative] = shard
    rest = [
        file
        for file in files
        if file.parts[:-1] not in folders and not (file.parts[-1] == SPLITS and file.parts[:-1] in splits)
    ]
    return found, [file for file in rest if file.relative not in found]


def _data_files(location: _Location, folder: Parts, by_path: Mapping[Parts, Listed]) -> list[Parts]:
    """Return the Arrow files that a saved dataset consists of and that the globs take."""
    state = by_path[*folder, STATE]
    where = f"{location.place}: {state.relative}"
    described = _read_json(where, state)
    if any(key.startswith("_indices") and value for key, value in described.items()):
        raise UserError(
            f"{where} holds an indices mapping, rows that are selected or shuffled but not written so: call "
            "dataset.flatten_indices() before save_to_disk"
        )
    named = described.get("_data_files")
    if not isinstance(named, list) or not all(
        isinstance(one, dict) and _is_inside(one.get("filename")) for one in named
    ):
        raise UserError(f"{where} names no data files below its folder (_data_files): save the dataset anew")
    found = []
    for one in named:
        parts = (*folder, *one["filename"].split("/"))
        if not location.globs.match(parts):
            continue
        if parts not in by_path:
            raise UserError(f"{where} names {one['filename']}, which is not there: copy the folder whole")
        found.append(parts)
    return found


def _is_inside(name: object) -> bool:
    return isinstance(name, str) and all(part not in ("", ".", "..") for part in name.split("/"))


def _names(location: _Location, file: Listed, key: str) -> list[str]:
    where = f"{location.place}: {file.relative}"
    names = _read_json(where, file).get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where}: '{key}' is no list of names; save the dataset anew")
    return names


def _read_json(where: str, file: Listed) -> dict[str, Any]:
    try:
        with open_binary(file.path) as opened:
            data = opened.read(MAX_STATE_BYTES + 1)
        if len(data) > MAX_STATE_BYTES:
            raise ValueError(f"over {MAX_STATE_BYTES} bytes")
        described = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{where} cannot be read ({error}): copy the folder whole, or save the dataset anew") from error
    if not isinstance(described, dict):
        raise UserError(f"{where} is no JSON object: save the dataset anew")
    return described
