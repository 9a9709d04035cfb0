"""Checkpoints in the store: which states of the model are known, and which one is current."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from winnow.config import Config
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import digest, digest_file
from winnow.store.store import Store

if TYPE_CHECKING:
    from winnow.attribution.adamw import AdamW
    from winnow.store.store import Connection


WARMED_UP, GIVEN = "warmup-", "given-"
"""How the names of the two kinds of starts begin."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A registered checkpoint."""

    name: str
    path: Path
    weights_digest: str
    tokenizer: str


def initial_checkpoint(config: Config) -> str:
    """Return the name of the checkpoint that a new loop starts from; another model or corpus location names another.

    A given checkpoint whose files are written anew is another one too.
    """
    settings = config.semantic_settings("model")
    if config.model.checkpoint:
        files = [(str(file), (status := file.stat()).st_size, status.st_mtime_ns) for file in _weights(config)]
        return GIVEN + digest([config.model.checkpoint, files, settings])[:8]
    locations = config.corpus.model_dump(mode="json")["locations"]
    return WARMED_UP + digest([settings, locations])[:8]


def _weights(config: Config) -> list[Path]:
    folder = Path(config.model.checkpoint).expanduser()
    return sorted(folder.glob("*.safetensors")) if folder.is_dir() else []


def current_checkpoint(connection: Connection, config: Config) -> str:
    """Return the checkpoint that new data is judged by: the newest since the configured start of the loop.

    Checkpoints that descend from another start do not count; one of unknown descent does.
    """
    start = initial_checkpoint(config)
    rows = connection.execute("SELECT checkpoint, parent FROM checkpoints ORDER BY sequence").fetchall()
    parents, names = dict(rows), [name for name, _ in rows]
    if start not in parents:
        return start
    later = names[names.index(start) :]
    ours = [
        name for name in later if (root := _root(name, parents)) == start or not root.startswith((GIVEN, WARMED_UP))
    ]
    return ours[-1]


def _root(name: str, parents: dict[str, str | None]) -> str:
    seen = {name}
    while (parent := parents.get(name)) in parents and parent not in seen:
        name = str(parent)
        seen.add(name)
    return name


def stored_checkpoint(store: Store, name: str) -> StoredCheckpoint:
    """Return a registered checkpoint. Raises :class:`UserError` when it is not, or its folder is gone."""
    with store.read() as connection:
        return checkpoint_named(connection, store.home, name)


def checkpoint_named(connection: Connection, home: Home, name: str) -> StoredCheckpoint:
    """Return a registered checkpoint of the store or the published file that is open; raises as the store's does."""
    row = connection.execute(
        "SELECT path, weights_digest, tokenizer FROM checkpoints WHERE checkpoint = $name", {"name": name}
    ).fetchone()
    if row is None:
        raise UserError(f"checkpoint '{name}' is not registered: materialize `checkpoints` for its partition first")
    path = home.resolve(row[0])
    if not path.is_dir():
        raise UserError(f"checkpoint '{name}': {path} is gone; put the folder back or choose another checkpoint")
    return StoredCheckpoint(name, path, row[1], row[2])


@dataclass(frozen=True)
class Ancestor:
    """A checkpoint of a line: the manifest it was trained on and the checkpoint it was trained from, if recorded."""

    name: str
    manifest: str | None
    parent: str | None


def lineage(connection: Connection, name: str) -> list[Ancestor]:
    """Return the registered checkpoints that a checkpoint comes from, the oldest first, itself last."""
    rows = connection.execute("SELECT checkpoint, manifest, parent FROM checkpoints").fetchall()
    known = {row[0]: Ancestor(*row) for row in rows}
    line: dict[str, Ancestor] = {}
    following: str | None = name
    while following is not None and following in known and following not in line:
        line[following] = known[following]
        following = known[following].parent
    return list(line.values())[::-1]


def require_unchanged(checkpoint: StoredCheckpoint) -> None:
    """Raise :class:`UserError` when weights, configuration or tokenizer are no longer those that were registered.

    The tokenizer is the one that ``token_counts`` of that name were counted with. A checkpoint that was registered when
    the digest was of the tensors alone keeps that digest, so its judgements stay; its configuration is not compared.
    """
    from winnow.train.tokenizer import tokenizer_digest
    from winnow.train.weights import weights_digests

    found, tensors_alone = weights_digests(checkpoint.path)
    if checkpoint.weights_digest not in (found, tensors_alone):
        raise UserError(
            f"checkpoint '{checkpoint.name}': the weights or config.json in {checkpoint.path} changed after it was "
            "registered; put them back, or save the new ones under another name"
        )
    if tokenizer_digest(checkpoint.path) != checkpoint.tokenizer:
        raise UserError(
            f"checkpoint '{checkpoint.name}': the tokenizer in {checkpoint.path} is not the one that it was registered "
            "with and that the documents' tokens were counted with; put it back, or save both under another name"
        )


def optimizer_digest(checkpoint: StoredCheckpoint) -> str | None:
    """Return the digest of a checkpoint's optimizer state, None where it has none."""
    path = checkpoint.path / "optimizer.safetensors"
    try:
        status = path.stat()
    except OSError:
        return None
    return _digest_at(path, status.st_size, status.st_mtime_ns, status.st_ino)


def adamw_of(checkpoint: StoredCheckpoint, config: Config) -> AdamW:
    """Return AdamW's settings as the checkpoint recorded them; one that did not takes the configured rate."""
    from winnow.attribution.adamw import AdamW
    from winnow.train.checkpoint import read_state

    return AdamW.recorded(read_state(checkpoint.path).get("optimizer"), config.train.learning_rate)


@lru_cache(maxsize=16)
def _digest_at(path: Path, *state: int) -> str:
    """Return the digest of a file in a state of size, time and inode: it is asked for often, and large."""
    return digest_file(path)
