"""What can be known to be wrong before anything is written."""

from __future__ import annotations

import re
from pathlib import Path

from winnow.attribution.estimators import make_directional
from winnow.attribution.sites import SCOPES
from winnow.attribution.surrogates import make_surrogate
from winnow.config import Config
from winnow.contamination.sets import place_of, read_evaluation_set, read_reference
from winnow.errors import UserError
from winnow.home import Home
from winnow.mixture.weights import source_weights
from winnow.quality.judge import thresholds
from winnow.selection.policies import policy_class
from winnow.stages.corpus import reading_of
from winnow.stages.training import model_sizes
from winnow.text.deliveries import DeliveredFile, scan
from winnow.text.formats import suffixes
from winnow.text.locations import resolve_root
from winnow.text.readers import ShardReader

NEEDS_REFERENCE = ("contamination", "embeddings", "model", "influence", "selection", "mixture")


def check_before_run(home: Home, config: Config, until: str | None, checkpoint: str | None = None) -> None:
    """Raise :class:`UserError` for a missing corpus, reference, encoder or checkpoint, a bad budget or setting."""
    for location in config.corpus.locations:
        root = resolve_root(location.root, home.root)
        if isinstance(root, Path) and not root.exists():
            raise UserError(f"no corpus: there is no folder {root}; give --corpus GLOB, or put files there")
    files = scan(home, config.corpus)
    if not files:
        places = ", ".join(str(resolve_root(location.root, home.root)) for location in config.corpus.locations)
        raise UserError(f"no corpus: {places} holds no corpus file ({suffixes()}); give --corpus GLOB")
    thresholds(config.quality)
    make_directional(config.influence.estimator)
    _check_scope(config.influence.scope)
    make_surrogate(config.influence.surrogate, config.influence.surrogate_loss)
    policy_class(config.selection.policy)
    if config.mixture.method != "selected":
        source_weights({"one": 1, "other": 1}, config.mixture.method, **config.mixture.parameters)
    model_sizes(config).validate()
    if until is None or until in NEEDS_REFERENCE:
        if not config.reference.path:
            raise UserError(
                "no reference: influence is measured on one; give --reference FILE (JSON Lines with 'text')"
            )
        read_reference(home.resolve(config.reference.path), config.reference)
        for name, settings in config.contamination.evaluation_sets.items():
            read_evaluation_set(name, place_of(settings, home.root), settings)
        _check_encoder(home, config)
        _check_model(home, config)
    if checkpoint:
        _check_checkpoint(home, config, checkpoint)
    _check_budget(config, files)


def _check_scope(scope: str) -> None:
    """Refuse what cannot be a scope of any model; whether its layers are there only the model knows."""
    try:
        re.compile(scope)
    except re.error as error:
        raise UserError(
            f"influence.scope '{scope}': not a regular expression ({error}); use {', '.join(SCOPES)}, several joined "
            "by '+', or a regular expression over names of layers"
        ) from error


def _check_encoder(home: Home, config: Config) -> None:
    from winnow.embed.encoder import resolve_encoder

    local = home.resolve(config.encoder.name)
    resolve_encoder(str(local) if local.is_dir() else config.encoder.name)


def _check_checkpoint(home: Home, config: Config, name: str) -> None:
    from winnow.stages.checkpoints import initial_checkpoint
    from winnow.store.published import open_published
    from winnow.train.checkpoint import problem

    if name == initial_checkpoint(config):
        return
    try:
        with open_published(home) as connection:
            if connection.execute("SELECT 1 FROM checkpoints WHERE checkpoint = $name", {"name": name}).fetchone():
                return
    except UserError:  # nothing has been published yet
        pass
    path = home.checkpoints / name
    wrong = problem(path)
    if wrong:
        raise UserError(f"--checkpoint {name}: {path}: {wrong}")


def _check_model(home: Home, config: Config) -> None:
    if config.model.checkpoint:
        from winnow.train.checkpoint import problem

        path = home.resolve(config.model.checkpoint)
        wrong = problem(path)
        if wrong:
            raise UserError(f"model checkpoint {path}: {wrong}")


def _check_budget(config: Config, files: list[DeliveredFile]) -> None:
    """Refuse a budget above the corpus' bytes: a token is at least one byte, so no pool can hold it.

    Files are read only when the budget is large beside their size on disk.
    """
    budget = config.selection.budget_tokens
    if budget <= sum(file.bytes for file in files) // 8:
        return
    most = 0
    for file in files:
        for batch in ShardReader(file.path, reading=reading_of(config.corpus, file)):
            most += sum(batch.documents["bytes"].to_pylist()) + len(batch.documents)
        if budget <= most:
            return
    raise UserError(
        f"a budget of {budget:,} tokens is larger than the pool: its files hold at most {most:,}; "
        "give a smaller --budget"
    )
