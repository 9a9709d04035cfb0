"""The training of a checkpoint as estimators of influence take it: documents, checkpoints of the line, an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from winnow.attribution.run import RunCheckpoint, TrainingRun
from winnow.config import Config
from winnow.errors import UserError
from winnow.home import Home
from winnow.identity import ids_as_keys, ids_to_numpy
from winnow.stages.checkpoints import StoredCheckpoint, adamw_of, checkpoint_named, lineage
from winnow.stages.estimates import load_for_attribution
from winnow.stages.token_file import TokenFile
from winnow.stages.trained_on import texts_of_documents

if TYPE_CHECKING:
    from winnow.store.store import Connection
    from winnow.train.checkpoint import Checkpoint


def tokens_of(loaded: Checkpoint, texts: Sequence[str]) -> list[np.ndarray]:
    """Return the tokens of texts, whole, without an end-of-text token."""
    from winnow.train.tokenizer import tokenise

    return tokenise(loaded.tokenizer, texts)


def context_of(loaded: Checkpoint) -> int:
    """Return how many tokens the model reads."""
    from winnow.attribution.capture import context_length

    return context_length(loaded.model)


def run_without_documents(
    connection: Connection, home: Home, config: Config, checkpoint: StoredCheckpoint, loaded: Checkpoint
) -> TrainingRun:
    """Return the run, as yet without documents: the checkpoints of the line that are still there."""
    checkpoints, before = [], 0
    for one in line_of(connection, home, checkpoint):
        step = max(before + 1, _step(one))
        checkpoints.append(run_checkpoint(one, config, loaded if one is checkpoint else None, steps=step - before))
        before = step
    return TrainingRun((), tuple(checkpoints), (), _encoding(home, config))


def read_documents(
    connection: Connection, loaded: Checkpoint, ids: np.ndarray
) -> tuple[list[np.ndarray], list[str], np.ndarray]:
    """Return tokens, texts and numbers of tokens of documents (sorted ids).

    Each is followed by the end-of-text token as in training, and cut where the model does not read on.
    """
    found = pa.concat_tables(list(texts_of_documents(connection, ids))).combine_chunks()
    order = np.argsort(ids_as_keys(ids_to_numpy(found["doc_id"])), order=("high", "low"))
    texts = found["text"].take(pa.array(order)).to_pylist()
    end, longest = np.int32(loaded.tokenizer.eos_token_id), context_of(loaded) + 1
    whole = tokens_of(loaded, texts)
    lengths = np.array([len(tokens) + 1 for tokens in whole], dtype=np.int64)
    return [np.append(tokens, end)[:longest] for tokens in whole], texts, lengths


def spill_tokens(connection: Connection, loaded: Checkpoint, ids: np.ndarray, folder: Path) -> TokenFile:
    """Return the tokens of documents (sorted ids) as :func:`read_documents` does, but in a file in ``folder``.

    The texts are read once and some at a time, in whatever order they are stored.
    """
    keys, longest = ids.copy().view("S16")[:, 0], context_of(loaded) + 1
    end = np.int32(loaded.tokenizer.eos_token_id)

    def found() -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        for rows in texts_of_documents(connection, ids):
            places = np.searchsorted(keys, ids_to_numpy(rows["doc_id"]).copy().view("S16")[:, 0])
            whole = tokens_of(loaded, rows["text"].to_pylist())
            yield places, [np.append(tokens, end)[:longest] for tokens in whole]

    return TokenFile(folder, len(ids), found())


def line_of(connection: Connection, home: Home, checkpoint: StoredCheckpoint) -> list[StoredCheckpoint]:
    """Return the checkpoints that a checkpoint comes from and that are still there, the oldest first, itself last."""
    earlier = []
    for one in lineage(connection, checkpoint.name)[:-1]:
        with suppress(UserError):
            earlier.append(checkpoint_named(connection, home, one.name))
    return [*earlier, checkpoint]


def _step(checkpoint: StoredCheckpoint) -> int:
    """Return how many optimizer steps made a checkpoint, 0 where it does not say."""
    from winnow.train.checkpoint import read_state

    return int(read_state(checkpoint.path).get("step") or 0)


def run_checkpoint(
    checkpoint: StoredCheckpoint, config: Config, loaded: Checkpoint | None = None, *, steps: int = 1
) -> RunCheckpoint:
    """Return a checkpoint as estimators take it, reached in so many optimizer steps; ``loaded`` where it is already."""
    from winnow.attribution.adamw import optimizer_state
    from winnow.train.checkpoint import load_optimizer

    state = loaded.optimizer_state if loaded is not None else load_optimizer(checkpoint.path)
    adamw = adamw_of(checkpoint, config)
    return RunCheckpoint(
        checkpoint.name,
        lambda: load_for_attribution(checkpoint).model,
        adamw.learning_rate,
        steps,
        None if state is None else optimizer_state(state.step, state.exp_avg, state.exp_avg_sq),
        adamw,
    )


def _encoding(home: Home, config: Config) -> Callable[[Sequence[str]], np.ndarray]:
    """Return what encodes texts by the configured encoder, which is loaded once, when there are some."""

    @cache
    def loaded() -> Any:
        from winnow.embed.encoder import load_encoder

        settings = config.encoder
        local = home.resolve(settings.name)  # a folder of the home comes first, as for embeddings
        return load_encoder(str(local) if local.is_dir() else settings.name, settings.dtype, settings.max_tokens)

    def encoded(texts: Sequence[str]) -> np.ndarray:
        from winnow.embed.encoder import encode

        return encode(loaded(), texts)

    return encoded
