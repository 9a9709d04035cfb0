"""Where everything lies: one folder, ``WINNOW_HOME`` (default ``./data``), holds all that a run reads and writes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """The folders and files of one ``WINNOW_HOME``; nothing is created by asking for a path."""

    root: Path

    @classmethod
    def from_environment(cls, override: str | Path | None = None) -> Home:
        """Take the folder from ``override``, else from ``WINNOW_HOME``, else ``./data``; always absolute."""
        return cls(Path(override or os.environ.get("WINNOW_HOME") or "data").expanduser().resolve())

    @property
    def config(self) -> Path:
        return self.root / "winnow.toml"

    @property
    def published(self) -> Path:
        """The DuckDB file that users query; swapped in whole, never written in place."""
        return self.root / "winnow.duckdb"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def store(self) -> Path:
        """The working store: opened only by :mod:`winnow.store`, and only for an instant."""
        return self.root / "store"

    @property
    def parts(self) -> Path:
        return self.store / "parts"

    @property
    def batches(self) -> Path:
        """One JSON file a batch of delivered files: the partitions of the ``shards`` dimension."""
        return self.store / "batches"

    @property
    def scratch(self) -> Path:
        return self.store / "tmp"

    @property
    def gradients(self) -> Path:
        """Projected gradients that questions about influence made: a folder a checkpoint, scope and documents."""
        return self.store / "gradients"

    @property
    def artifacts(self) -> Path:
        """Fitted things that are no tables: tokenizers, centroids, curvature factors, influence models."""
        return self.root / "artifacts"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def manifests(self) -> Path:
        return self.root / "manifests"

    @property
    def dagster(self) -> Path:
        return self.root / "dagster"

    def name(self, path: Path) -> str:
        """Return a path as the store keeps it: relative when it lies in the home, so that a home can be moved."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def resolve(self, path: str) -> Path:
        """Return a configured path as absolute: relative ones are relative to the home."""
        return (self.root / Path(path).expanduser()).resolve()
