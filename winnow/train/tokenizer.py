"""A byte-level BPE tokenizer: trained once, pinned, and the measure of every token budget."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.identity import digest, digest_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

EOS = "<|endoftext|>"
FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
# Texts handed to the Rust tokenizer at a time; bounds memory and changes no result.
BATCH = 1024


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer with the one special token ``<|endoftext|>`` (id 0).

    Every byte is a token, so any text can be written and read back. The result depends on the texts as a multiset,
    not on their order or the number of threads. Raises UserError when ``vocab_size`` leaves no room for the bytes.

    Source: Sennrich et al. 2016, section 3.2, on bytes as in GPT-2 (Radford et al. 2019, section 2.2).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab_size < 257:
        raise UserError(f"tokenizer vocab_size {vocab_size} has no room for 256 bytes and {EOS}; set it to 257 or more")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a trained tokenizer as an ordinary Hugging Face folder, readable by ``AutoTokenizer``."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, bos_token=EOS, clean_up_tokenization_spaces=False
    )
    write_tokenizer(fast, folder)


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a Hugging Face tokenizer's files to ``folder``, under the class name that every version can read."""
    tokenizer.save_pretrained(str(folder))
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":  # the name since transformers 5
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder, without network or remote code.

    Raises UserError when the folder holds none, or one without an end-of-text token.
    """
    from transformers import AutoTokenizer

    if not has_tokenizer(path):
        raise UserError(
            f"{path}: there is no tokenizer ({', '.join(FILES)}); save one beside the model with save_pretrained()"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path}: the tokenizer cannot be read ({reason}); save it as a fast tokenizer (tokenizer.json)"
        ) from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"{path}: the tokenizer has no end-of-text token; set eos_token in tokenizer_config.json")
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds the files of a tokenizer."""
    return any((folder / name).is_file() for name in FILES)


def tokenizer_digest(folder: Path) -> str:
    """Return a digest of what the tokenizer does: vocabulary, merges, normalisation and end-of-text token.

    Two folders with the same content have the same digest; truncation and padding, which Winnow never uses, do not
    enter it. Raises UserError when the folder holds no tokenizer.
    """
    if not has_tokenizer(folder):
        raise UserError(f"{folder}: there is no tokenizer; give the folder of a Hugging Face checkpoint or tokenizer")
    content: dict[str, Any] = {}
    if (folder / "tokenizer.json").is_file():
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        content = {key: value for key, value in content.items() if key not in ("truncation", "padding")}
    else:
        content = {name: digest_file(folder / name) for name in FILES if (folder / name).is_file()}
    settings = folder / "tokenizer_config.json"
    eos = json.loads(settings.read_text(encoding="utf-8")).get("eos_token") if settings.is_file() else None
    return digest([content, eos["content"] if isinstance(eos, dict) else eos])


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str] | pa.Array | pa.ChunkedArray) -> list[np.ndarray]:
    """Return the token ids of each text, int32, without special tokens and never cut."""
    return [np.array(ids, dtype=np.int32) for part in _batches(texts) for ids in _encode(tokenizer, part)]


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str] | pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return what training consumes of each text, int64 ``[N]``: its tokens plus the one end-of-text token after it."""
    counts = [len(ids) + 1 for part in _batches(texts) for ids in _encode(tokenizer, part)]
    return np.array(counts, dtype=np.int64)


def _batches(texts: Iterable[str] | pa.Array | pa.ChunkedArray) -> Iterable[list[str]]:
    if isinstance(texts, pa.Array | pa.ChunkedArray):
        for start in range(0, len(texts), BATCH):
            yield texts.slice(start, BATCH).to_pylist()
        return
    part: list[str] = []
    for text in texts:
        part.append(text)
        if len(part) == BATCH:
            yield part
            part = []
    if part:
        yield part


def _encode(tokenizer: Any, texts: list[str]) -> Sequence[Sequence[int]]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer(texts, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
    backend.no_truncation()
    backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
