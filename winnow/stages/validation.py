"""Training on a manifest and on its random control: the next checkpoint, and the judgement on the selection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow.config import Config
from winnow.mixture.manifest_files import read_manifest
from winnow.stages.checkpoints import StoredCheckpoint, require_unchanged, stored_checkpoint
from winnow.stages.manifests import manifest_row
from winnow.stages.references import stored_reference
from winnow.stages.training import Arm, Say, arms_of, curve_rows, pack_arm, train_arm, without_spans
from winnow.store.stage import Stage, stage_key
from winnow.store.store import Store, insert

TRAINING_VERSION = "1"


@dataclass(frozen=True)
class TrainedStage:
    """The checkpoint that training on a manifest gave; ``skipped`` says why nothing was done."""

    path: Path
    tokens: int = 0
    seconds: float = 0.0
    skipped: str = ""


@dataclass(frozen=True)
class _Plan:
    """Two arms from one checkpoint over the same number of training windows."""

    manifest: dict[str, Any]
    checkpoint: StoredCheckpoint
    arms: tuple[Arm, Arm]
    windows: int
    judging: list[str]
    key: str


def _plan(store: Store, config: Config, checkpoint: str, stage: str, pack: bool) -> _Plan:
    from winnow.train.checkpoint import load_checkpoint

    with store.read() as connection:
        manifest = manifest_row(connection, checkpoint=checkpoint)
    found = stored_checkpoint(store, checkpoint)
    reference = stored_reference(store)
    key = stage_key(
        stage,
        TRAINING_VERSION,
        manifest=manifest["digest"],
        checkpoint=found.weights_digest,
        reference=reference.digest,
        train=config.semantic_settings("train"),
    )
    rows = read_manifest(store.home.resolve(manifest["path"])).rows
    arms = arms_of(store, manifest["selection"], rows, config.train.seed)
    windows = 0
    if pack:
        require_unchanged(found)
        loaded = load_checkpoint(found.path)
        context = loaded.model.config.max_position_embeddings
        first, second = arms  # the spans to leave out follow from the manifest's digest, so they are in the key
        arms = without_spans(store, manifest, first), without_spans(store, manifest, second)
        windows = min(len(pack_arm(store, loaded.tokenizer, arm, context)) for arm in arms)
    return _Plan(manifest, found, arms, windows, reference.texts("judging"), key)


def train_on_manifest(store: Store, config: Config, checkpoint: str, run_id: str, say: Say) -> TrainedStage:
    """Train on the newest manifest of a checkpoint and save the result as the next checkpoint folder."""
    plan = _plan(store, config, checkpoint, "train_stage", pack=False)
    stage = Stage(store, "train_stage", run_id, plan.key, checkpoint)
    # A manifest equal to an earlier one has been trained on under that one's name.
    name = stage.done or f"{plan.manifest['version']}-{plan.key[:8]}"
    path = store.home.checkpoints / name
    if stage.done is not None and path.is_dir():
        return TrainedStage(path, skipped=f"{path.name} was trained on {plan.manifest['version']}")
    plan = _plan(store, config, checkpoint, "train_stage", pack=True)
    state = {"manifest": plan.manifest["version"], "manifest_digest": plan.manifest["digest"], "parent": checkpoint}
    trained = train_arm(
        store, config, plan.checkpoint.path, plan.arms[0], plan.windows, plan.judging, say, save_as=(path, state)
    )
    _record(store, stage, plan.manifest["version"], trained, output=name)
    return TrainedStage(path, trained.tokens, trained.seconds)


def train_control(store: Store, config: Config, checkpoint: str, run_id: str, say: Say) -> Stage:
    """Train the equal-budget random control from the same checkpoint for the same windows; measure, save nothing."""
    plan = _plan(store, config, checkpoint, "validations", pack=False)
    stage = Stage(store, "validations", run_id, plan.key, checkpoint)
    if stage.done is None:
        plan = _plan(store, config, checkpoint, "validations", pack=True)
        trained = train_arm(store, config, plan.checkpoint.path, plan.arms[1], plan.windows, plan.judging, say)
        _record(store, stage, plan.manifest["version"], trained, output=plan.manifest["version"])
    return stage


def _record(store: Store, stage: Stage, version: str, trained: Any, output: str) -> None:
    with store.write() as connection:
        connection.execute(
            "DELETE FROM validations WHERE version = $version AND arm = $arm", {"version": version, "arm": trained.arm}
        )
        insert(connection, "validations", curve_rows(version, trained))
        stage.finish(connection, trained.tokens, output=output, flops=trained.flops)


@dataclass(frozen=True)
class Validated:
    """Both arms' curves: arm -> (tokens, losses)."""

    version: str
    curves: dict[str, tuple[list[int], list[float]]]

    def final(self, arm: str) -> float:
        return self.curves[arm][1][-1]

    @property
    def summary(self) -> str:
        selected, random = self.final("manifest"), self.final("random")
        verdict = "the manifest teaches more" if selected < random else "random teaches as much or more"
        return (
            f"{self.version}: judging loss {selected:.4f} on the manifest, {random:.4f} on equal-budget random data "
            f"({selected - random:+.4f} nats a token: {verdict})"
        )


def validated(store: Store, checkpoint: str) -> Validated:
    """Return the curves of the newest manifest of a checkpoint."""
    with store.read() as connection:
        version = manifest_row(connection, checkpoint=checkpoint)["version"]
        rows = connection.execute(
            "SELECT arm, tokens, loss FROM validations WHERE version = $version ORDER BY arm, tokens",
            {"version": version},
        ).fetchall()
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for arm, tokens, loss in rows:
        xs, ys = curves.setdefault(arm, ([], []))
        xs.append(tokens)
        ys.append(loss)
    return Validated(version, curves)
