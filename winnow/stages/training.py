"""The model in training: tokenizer, warm-up, the stage trained on a manifest, and its comparison with random data.

Tokenizer and warm-up are fitted once and pinned; new data never refits them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from winnow.attribution.batching import within_tokens
from winnow.config import Config
from winnow.errors import UserError
from winnow.identity import ids_from_numpy, ids_to_numpy, seeded_keys
from winnow.stages.pool import admissible
from winnow.stages.spans import leave_out, spans_left_out
from winnow.store.judgements import all_texts, texts_of
from winnow.store.stage import Stage, pinned, stage_key
from winnow.store.store import Store, insert_row, now

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from winnow.train.model import ModelConfig

log = logging.getLogger(__name__)
Say = Callable[[str], None]

TOKENIZER_VERSION = "1"
TOKENIZER_DOCUMENTS = 20_000
"""The tokenizer is trained on at most so many documents, drawn by a seeded hash."""


def _drawn(documents: pa.Table, seed: int, salt: str) -> pa.Table:
    """Return documents in seeded random order."""
    keys = seeded_keys(ids_to_numpy(documents["doc_id"]), seed, salt)
    return documents.take(pa.array(np.argsort(keys, kind="stable")))


# -- tokenizer --------------------------------------------------------------------------------------------------------


def tokenizer_key(config: Config) -> str:
    """Return the key that pins the tokenizer: vocabulary, seed, and which corpus locations it was trained for."""
    locations = config.corpus.model_dump(mode="json")["locations"]
    model = config.model
    return stage_key("tokenizer", TOKENIZER_VERSION, vocabulary=model.vocabulary, seed=model.seed, locations=locations)


def fit_tokenizer(store: Store, config: Config, stage: Stage) -> Path:
    """Train the tokenizer on admissible documents and pin it under the stage's key."""
    from winnow.train.tokenizer import save_tokenizer, tokenizer_digest, train_tokenizer

    drawn = _drawn(admissible(store, config), config.model.seed, "tokenizer")[:TOKENIZER_DOCUMENTS]
    if not len(drawn):
        raise UserError(
            "no document passes the filters, so there is nothing to train a tokenizer on: "
            "see gopher_reason in `signals`, or set quality.filter = false"
        )

    def texts() -> Iterator[str]:
        for batch in texts_of(store, drawn):
            yield from batch["text"].to_pylist()

    folder = store.home.artifacts / f"tokenizer-{stage.key[:12]}"
    save_tokenizer(train_tokenizer(texts(), config.model.vocabulary), folder)
    with store.write() as connection:
        stage.finish(connection, len(drawn), output=tokenizer_digest(folder))
    return folder


def fitted_tokenizer(store: Store, config: Config) -> Path:
    """Return the folder of the pinned tokenizer. Raises ``LookupError`` before it is trained."""
    key = tokenizer_key(config)
    if pinned(store, "tokenizer", key) is None:
        raise LookupError("no tokenizer is trained for this configuration: materialize `tokenizer` first")
    return store.home.artifacts / f"tokenizer-{key[:12]}"


# -- checkpoints ------------------------------------------------------------------------------------------------------


def model_sizes(config: Config) -> ModelConfig:
    """Return the sizes of the model that is warmed up."""
    from winnow.train.model import ModelConfig

    settings = config.model
    return ModelConfig(
        vocab=settings.vocabulary,
        hidden=settings.hidden,
        layers=settings.layers,
        heads=settings.heads,
        intermediate=settings.intermediate,
        context=settings.context,
    )


def warm_up(store: Store, config: Config, name: str, say: Say) -> Path:
    """Train a small model on random admissible documents and save it as the named checkpoint."""
    from winnow.train.batches import pack
    from winnow.train.checkpoint import save_checkpoint
    from winnow.train.loop import train
    from winnow.train.model import build_model, count_parameters
    from winnow.train.tokenizer import load_tokenizer

    settings = config.model
    tokenizer = load_tokenizer(fitted_tokenizer(store, config))
    eos = int(tokenizer.eos_token_id)
    model = build_model(model_sizes(config), settings.seed, eos)
    documents = _drawn(admissible(store, config), settings.seed, "warmup")
    tokens = _tokens_up_to(store, documents, tokenizer, settings.warmup_tokens)
    windows = pack(tokens, settings.context, eos)
    say(f"warming up {count_parameters(model):,} parameters on {len(tokens)} random documents, {windows.size:,} tokens")
    result = train(model, windows, _settings(config, warmup=True), progress=_progress(say))
    path = store.home.checkpoints / name
    state = {
        "step": result.steps,
        "tokens": result.tokens,
        "manifest": None,
        "parent": None,
        "optimizer": result.optimizer,
    }
    save_checkpoint(path, model, tokenizer, result.optimizer_state, state)
    return path


def _tokens_up_to(
    store: Store, documents: pa.Table, tokenizer: PreTrainedTokenizerBase, budget: int
) -> list[np.ndarray]:
    """Return the tokens of documents in their order until ``budget`` is reached."""
    from winnow.train.tokenizer import tokenise

    taken: list[np.ndarray] = []
    total = 0
    for start in range(0, len(documents), 1_000):
        for tokens in _tokens(store, documents.slice(start, 1_000), lambda texts: tokenise(tokenizer, texts)):
            if total >= budget:
                return taken
            taken.append(tokens)
            total += len(tokens) + 1
    return taken


def _tokens(
    store: Store,
    documents: pa.Table,
    tokenise: Callable[[pa.ChunkedArray], list[np.ndarray]],
    left_out: pa.Table | None = None,
) -> list[np.ndarray]:
    """Return the tokens of documents in the order given, without the spans that are ``left_out``."""
    ids = ids_to_numpy(documents["doc_id"])
    order = np.lexsort(tuple(ids[:, column] for column in range(15, -1, -1)))
    texts = all_texts(store, pa.table({"doc_id": ids_from_numpy(ids[order])}))
    if left_out is not None:
        texts = leave_out(texts, left_out)
    sorted_tokens = tokenise(texts["text"])
    tokens: list[np.ndarray] = [np.empty(0, np.int32)] * len(ids)
    for place, index in enumerate(order.tolist()):
        tokens[index] = sorted_tokens[place]
    return tokens


def register(store: Store, name: str, path: Path, stage: Stage) -> None:
    """Write the ``checkpoints`` row of a complete checkpoint folder. Raises ``UserError`` saying what is missing."""
    from winnow.train.checkpoint import problem, read_state
    from winnow.train.tokenizer import tokenizer_digest
    from winnow.train.weights import weights_digest

    wrong = problem(path)
    if wrong:
        raise UserError(f"checkpoint {path}: {wrong}")
    state = read_state(path)
    with store.write() as connection:
        row = connection.execute("SELECT coalesce(max(sequence), 0) + 1 FROM checkpoints").fetchone()
        connection.execute("DELETE FROM checkpoints WHERE checkpoint = $name", {"name": name})
        insert_row(
            connection,
            "checkpoints",
            checkpoint=name,
            sequence=row[0] if row else 1,
            path=store.home.name(path),
            weights_digest=weights_digest(path),
            tokenizer=tokenizer_digest(path),
            parameters=_parameters(path),
            step=state.get("step"),
            tokens=state.get("tokens"),
            manifest=state.get("manifest"),
            parent=state.get("parent"),
            registered_at=now(),
        )
        stage.finish(connection, 1, output=name)


def _parameters(path: Path) -> int:
    from safetensors import safe_open

    from winnow.train.weights import weight_files

    total = 0
    for file in weight_files(path):
        with safe_open(file, framework="numpy") as weights:
            total += sum(int(np.prod(weights.get_slice(key).get_shape())) for key in weights.keys())  # noqa: SIM118
    return total


def _settings(config: Config, warmup: bool) -> Any:
    from winnow.train.loop import TrainSettings

    train = config.train
    return TrainSettings(
        lr=train.learning_rate,
        warmup_steps=train.warmup_steps if warmup else 0,
        batch_windows=train.batch_windows,
        schedule="constant",
        seed=train.seed,
        dtype=train.dtype,
    )


def _progress(say: Say) -> Callable[[int, int, float], None]:
    shown = [0]

    def report(done: int, total: int, rate: float) -> None:
        share = 10 * done // max(total, 1)
        if share > shown[0]:
            shown[0] = share
            say(f"{done:,} of {total:,} tokens ({rate:,.0f} tokens/s)")

    return report


# -- the stage on a manifest, and its control -----------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """One arm: ``curve`` holds (tokens, judging loss in nats a token), first before training, last at the end."""

    arm: str
    curve: list[tuple[int, float]]
    tokens: int
    seconds: float
    flops: float


@dataclass(frozen=True)
class Arm:
    """What one arm trains on: documents in training order, and the repeated spans left out of their texts, if any."""

    name: str
    documents: pa.Table
    left_out: pa.Table | None = None


def arms_of(store: Store, selection: str, manifest: pa.Table, seed: int) -> tuple[Arm, Arm]:
    """Return the manifest's documents in its order, and the equal-budget random ones in seeded order."""
    with store.scratch("decisions", only={"selection": selection}) as connection:
        control = connection.execute("SELECT doc_id FROM decisions WHERE in_control ORDER BY doc_id").to_arrow_table()
    return Arm("manifest", manifest.select(["doc_id"])), Arm("random", _drawn(control, seed, "control order"))


def without_spans(store: Store, manifest: Mapping[str, Any], arm: Arm) -> Arm:
    """Return an arm whose texts lack the repeated spans that the settings of a manifest (its row) leave out."""
    return replace(arm, left_out=spans_left_out(store, manifest, arm.documents))


def train_arm(
    store: Store, config: Config, checkpoint: Path, arm: Arm, windows: int, judging: list[str], say: Say,
    save_as: tuple[Path, dict[str, Any]] | None = None,
) -> Trained:  # fmt: skip
    """Train from a checkpoint on the first ``windows`` windows of an arm, measuring the judging loss on the way."""
    from winnow.train.checkpoint import load_checkpoint, save_checkpoint
    from winnow.train.evaluate import evaluate_loss
    from winnow.train.loop import train
    from winnow.train.model import count_parameters
    from winnow.train.tokenizer import tokenise

    loaded = load_checkpoint(checkpoint)
    context = loaded.model.config.max_position_embeddings
    packed = pack_arm(store, loaded.tokenizer, arm, context, say)[:windows]
    items = tokenise(loaded.tokenizer, judging)
    items = [items[position] for position in within_tokens(items, config.train.judging_tokens)]
    result = train(
        loaded.model,
        packed,
        _settings(config, warmup=False),
        loaded.optimizer_state,
        evaluate=lambda model: evaluate_loss(model, items, context).mean,
        eval_every_tokens=max(1, packed.size // config.train.evaluations),
        progress=_progress(lambda text: say(f"{arm.name}: {text}")),
    )
    if save_as:
        path, state = save_as
        before = loaded.state
        state = {
            **state,
            "step": (before.get("step") or 0) + result.steps,
            "tokens": (before.get("tokens") or 0) + result.tokens,
            "optimizer": result.optimizer,
        }
        save_checkpoint(path, loaded.model, loaded.tokenizer, result.optimizer_state, state)
    flops = 6.0 * count_parameters(loaded.model) * result.tokens
    return Trained(arm.name, result.curve, result.tokens, result.seconds, flops)


def pack_arm(
    store: Store, tokenizer: PreTrainedTokenizerBase, arm: Arm, context: int, say: Say = log.debug
) -> np.ndarray:
    """Return an arm's documents as training windows, int32 ``[W, context]``.

    A document of which nothing is left without its repeated spans is skipped; ``say`` tells how many are.
    """
    from winnow.train.batches import pack
    from winnow.train.tokenizer import tokenise

    tokens = _tokens(store, arm.documents, lambda texts: tokenise(tokenizer, texts), arm.left_out)
    if arm.left_out is not None:
        whole = len(tokens)
        tokens = [found for found in tokens if len(found)]
        say(
            f"{arm.name}: {whole - len(tokens):,} of {whole:,} documents are nothing but repeated spans and are skipped"
        )
    return pack(tokens, context, int(tokenizer.eos_token_id))


def curve_rows(version: str, trained: Trained) -> pa.Table:
    """Return the ``validations`` rows of one arm."""
    count = len(trained.curve)
    return pa.table(
        {
            "version": pa.array([version] * count, pa.string()),
            "arm": pa.array([trained.arm] * count, pa.string()),
            "tokens": pa.array([tokens for tokens, _ in trained.curve], pa.int64()),
            "loss": pa.array([loss for _, loss in trained.curve], pa.float64()),
            "final": pa.array([index == count - 1 for index in range(count)]),
        }
    )
