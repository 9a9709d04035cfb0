"""Reading a checkpoint's files without a framework: are its weights whole, and which function do they make."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from winnow.errors import UserError

# Read at a time when digesting; bounds memory.
CHUNK = 2**24
NO_PART_OF_THE_MODEL = frozenset(
    {
        "_name_or_path",
        "transformers_version",
        "dtype",
        "torch_dtype",
        "use_cache",
        "_attn_implementation",
        "_attn_implementation_autoset",
    }
)
"""Keys of config.json that leave every loss as it is, or say again what the tensors do (their dtype)."""


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights, shards as listed by the index; empty if there are none."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (ValueError, KeyError, AttributeError):  # half written
        return [index]
    return [folder / name for name in sorted(set(listed))]


def safetensors_problem(file: Path) -> str | None:
    """Return what is wrong with a safetensors file, judged by its header and length, or None."""
    try:
        header, start = _header(file)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except FileNotFoundError:
        return "is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "is not a whole safetensors file"
    expected, actual = start + max(ends, default=0), file.stat().st_size
    return None if expected == actual else f"has {actual} bytes of {expected}"


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a checkpoint's tensors (names, types, shapes and bytes in the order of names) and config.

    Equal tensors under another configuration (the base of the rotary positions, the epsilon of a norm) are another
    model. It depends neither on the folder nor on how the tensors are spread over shards, nor on optimizer states or
    who saved them when. Raises UserError when there are no safetensors weights, a file is not whole, or config.json is
    no object.
    """
    return weights_digests(folder)[0]


def weights_digests(folder: Path) -> tuple[str, str]:
    """Return :func:`weights_digest`, and that of the tensors alone, by which older stores know their checkpoints."""
    files = weight_files(folder)
    if not files:
        raise UserError(f"{folder}: there is no model.safetensors; save with save_pretrained(safe_serialization=True)")
    tensors: dict[str, tuple[Path, int, dict[str, Any]]] = {}
    for file in files:
        if reason := safetensors_problem(file):
            raise UserError(f"{file} {reason}; save the checkpoint again")
        header, start = _header(file)
        tensors |= {name: (file, start, entry) for name, entry in header.items() if name != "__metadata__"}
    digest = hashlib.sha256()
    for name, (file, start, entry) in sorted(tensors.items()):
        begin, end = entry["data_offsets"]
        digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
        with file.open("rb") as stream:
            stream.seek(start + begin)
            while begin < end and (chunk := stream.read(min(CHUNK, end - begin))):
                digest.update(chunk)
                begin += len(chunk)
    tensors_alone = digest.hexdigest()
    digest.update(_configuration(folder))
    return digest.hexdigest(), tensors_alone


def _configuration(folder: Path) -> bytes:
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8")).items()
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a model's configuration ({error}); save the checkpoint again") from error
    kept = {key: value for key, value in settings if key not in NO_PART_OF_THE_MODEL}
    return json.dumps(kept, sort_keys=True).encode()


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """Return a safetensors header and the offset of the data; raises ValueError on a file too short for them."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError("too short")
        return json.loads(stream.read(length)), 8 + length
