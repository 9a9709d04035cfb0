"""Checkpoints in the store: which states of the model are known, and which one is current."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from winnow.config import Config
from winnow.errors import UserError
from winnow.identity import digest
from winnow.store.store import Store

if TYPE_CHECKING:
    from winnow.store.store import Connection


@dataclass(frozen=True)
class StoredCheckpoint:
    """A registered checkpoint."""

    name: str
    path: Path
    weights_digest: str
    tokenizer: str


def initial_checkpoint(config: Config) -> str:
    """Return the name of the checkpoint that a new loop starts from; another model or corpus location names another."""
    settings = config.semantic("model")
    if config.model.checkpoint:
        return "given-" + digest([config.model.checkpoint, settings])[:8]
    locations = config.corpus.model_dump(mode="json")["locations"]
    return "warmup-" + digest([settings, locations])[:8]


def current_checkpoint(connection: Connection, config: Config) -> str:
    """Return the checkpoint that new data is judged by: the newest one, once the initial one is registered."""
    initial = initial_checkpoint(config)
    names = connection.execute("SELECT checkpoint FROM checkpoints ORDER BY sequence DESC").fetchall()
    return names[0][0] if (initial,) in names else initial


def stored_checkpoint(store: Store, name: str) -> StoredCheckpoint:
    """Return a registered checkpoint. Raises :class:`UserError` when it is not, or its folder is gone."""
    rows = store.query(
        "SELECT path, weights_digest, tokenizer FROM checkpoints WHERE checkpoint = $name", {"name": name}
    )
    if not rows:
        raise UserError(f"checkpoint '{name}' is not registered: materialize `checkpoints` for its partition first")
    path = store.home.resolve(rows[0][0])
    if not path.is_dir():
        raise UserError(f"checkpoint '{name}': {path} is gone; put the folder back or choose another checkpoint")
    return StoredCheckpoint(name, path, rows[0][1], rows[0][2])
