"""Presets of a selection: one TOML file each, read into the settings that the store's stages and the lab share.

A preset says which groups compete (``arms``), how tokens are shared among them (``policy``, ``reward``), what ranks
documents (``score``), and how they are taken within a group (``within``). Adding one is adding a file to this folder.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from winnow.errors import UserError
from winnow.selection.options import Value
from winnow.selection.rewards import parse_transform

FOLDER = Path(__file__).parent
OWN_SCORE = "score"
"""The reward of a probed document that is its own score: nothing is measured."""


@dataclass(frozen=True)
class ScoreTerm:
    """One summand of a score: ``weight`` times ``transform`` (:mod:`winnow.selection.rewards`) of a scorer's values."""

    scorer: str
    options: Mapping[str, Value] = field(default_factory=dict)
    transform: str = "identity"
    weight: float = 1.0

    def __post_init__(self) -> None:
        parse_transform(self.transform)


@dataclass(frozen=True)
class Preset:
    """A selection as settings.

    ``arms``: clusters, pool or sources; ``policy`` with ``policy_options``, and further settings of the bandit in
    ``bandit`` (fields of :class:`winnow.selection.BanditSettings`; ``probe_share`` of the candidates in place of
    ``max_probes``, ``block_share`` of the budget in place of ``block_tokens``); ``reward``: what a probe of a document
    measures, a term, or None for its own score; ``score``: terms whose sum ranks documents, none = random;
    ``within`` with ``within_options``; ``stages``: how often the choice is made anew, with the model as it is by then,
    ``replace``: a later stage may take a document again; ``weights``: of the losses in training, None = all alike.
    """

    name: str
    description: str = ""
    arms: str = "pool"
    policy: str = "proportional"
    policy_options: Mapping[str, Value] = field(default_factory=dict)
    bandit: Mapping[str, Value] = field(default_factory=dict)
    reward: ScoreTerm | None = None
    score: tuple[ScoreTerm, ...] = ()
    within: str = "top_k"
    within_options: Mapping[str, Value] = field(default_factory=dict)
    stages: int = 1
    replace: bool = False
    weights: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.arms not in ("clusters", "pool", "sources"):
            raise UserError(f"preset '{self.name}', arms '{self.arms}': choose one of clusters, pool, sources")
        if self.stages < 1:
            raise UserError(f"preset '{self.name}', stages: {self.stages}; expected at least 1")

    def record(self) -> dict[str, Any]:
        """Return what the selection depends on, as JSON: all but name and description."""
        found = asdict(self)
        return {name: value for name, value in found.items() if name not in ("name", "description")}

    @property
    def needs_vectors(self) -> bool:
        """Whether documents have to be embedded for it."""
        terms = [term.scorer for term in (*self.score, *((self.reward,) if self.reward else ()))]
        named = {"semdedup", "d4", "cluster_importance", "influence_model"} & set(terms)
        relational = self.within in ("relational", "facility_location", "coverage", "sensitivity")
        return self.arms == "clusters" or bool(named) or relational


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_preset(name: str) -> Preset:
    """Return the preset of that name. Raises :class:`UserError` when there is none such, or its file is wrong."""
    if name not in preset_names():
        raise UserError(f"preset '{name}': no such preset; choose one of {', '.join(preset_names())}")
    return read_preset(FOLDER / f"{name}.toml")


def read_preset(path: Path) -> Preset:
    """Read a preset's file. Raises :class:`UserError` naming the file and the key that is wrong."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not a preset ({error}); see docs/lab.md") from error
    settings = dict(found.pop("selection", {}))
    settings |= {"name": path.stem, "description": found.pop("description", "")}
    known = {one.name for one in fields(Preset)}
    if wrong := sorted((set(settings) | set(found)) - known):
        raise UserError(f"{path}, '{wrong[0]}': no such key; a preset has {', '.join(sorted(known - {'name'}))}")
    settings["score"] = tuple(_terms(path, "score", settings.get("score", [])))
    reward = settings.get("reward", OWN_SCORE)
    settings["reward"] = None if reward == OWN_SCORE else next(iter(_terms(path, "reward", [reward])))
    return Preset(**settings)


def _terms(path: Path, key: str, given: Sequence[Mapping[str, Any]]) -> list[ScoreTerm]:
    try:
        return [ScoreTerm(**one) for one in given]
    except TypeError as error:
        raise UserError(
            f'{path}, {key}: {given!r} is no list of terms; write [{{ scorer = "dsir", transform = "rank" }}]'
        ) from error
