"""``winnow doctor``: all checks there are, made on one state of the store."""

from __future__ import annotations

import winnow.stages.integrity
import winnow.stages.manifest_integrity
import winnow.store.checks  # noqa: F401 - the checks in these register themselves
from winnow.config import Config, load_config
from winnow.store import doctor
from winnow.store.doctor import CHECKS, Check, Examined
from winnow.store.store import Store


def all_checks(deep: bool = True) -> list[Check]:
    """Return every check in the order in which they are made; the ``deep`` ones read every byte."""
    return [one for one in CHECKS.values() if deep or not one.deep]


def examine(store: Store, config: Config | None = None, deep: bool = False) -> list[Examined]:
    """Make all checks; ``config`` is that of the home unless given.

    Raises :class:`UserError` when there is no store, or it stays locked.
    """
    return doctor.examine(store, config or load_config(store.home.config), all_checks(deep))
