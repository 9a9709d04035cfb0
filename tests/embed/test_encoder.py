import socket
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from winnow.embed.encoder import BUNDLED, encode, encoder_digest, load_encoder, resolve_encoder
from winnow.errors import UserError

TEXTS = [
    "The bicycle's rear derailleur needs adjusting.",
    "Fix the gears of my bike, please.",
    "Parliament passed the budget on Tuesday after a long debate.",
    "",
    "word " * 40,
    "naïve café, 東京, " * 30,
    "A very long document about nothing in particular. " * 400,
    "short",
]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(max_tokens=64)


@pytest.fixture(scope="module")
def vectors(encoder):
    return encode(encoder, TEXTS)


def test_vectors_are_unit_float32(vectors):
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_order_and_batch_mates_change_no_bit(encoder, vectors):
    order = np.random.default_rng(3).permutation(len(TEXTS))
    assert np.array_equal(encode(encoder, [TEXTS[i] for i in order]), vectors[order])
    for part in ([6], [0, 4], [1, 2, 3, 7]):
        assert np.array_equal(encode(encoder, [TEXTS[i] for i in part]), vectors[part])


def test_position_in_a_full_batch_changes_no_bit(encoder, vectors):
    texts = [f"{number} filler" for number in range(70)]
    for place in (0, 1, 33, 63, 64, 70):
        mixed = [*texts[:place], TEXTS[7], *texts[place:]]
        assert np.array_equal(encode(encoder, mixed)[place], vectors[7])


def test_related_texts_are_nearer_than_unrelated_ones(vectors):
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_bfloat16_and_float32_agree_with_sentence_transformers_own_encode(encoder):
    exact = load_encoder(dtype="float32", max_tokens=64)
    exact.model.max_seq_length = 64
    texts = [text for text in TEXTS if len(text) < 32 * 64]  # the others are cut before they are tokenised
    own = exact.model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    assert np.min(np.sum(own * encode(exact, texts), axis=1)) > 0.99999
    half = load_encoder(dtype="bfloat16", max_tokens=64)
    assert np.min(np.sum(own * encode(half, texts), axis=1)) > 0.999
    assert half.digest != exact.digest


def test_an_arrow_column_and_progress_are_accepted(encoder, vectors):
    seen: list[tuple[int, int, float]] = []
    column = pa.chunked_array([TEXTS[:2], TEXTS[2:3]])
    out = encode(encoder, column, progress=lambda done, total, rate: seen.append((done, total, rate)))
    assert np.array_equal(out, vectors[:3])
    assert seen[-1][:2] == (3, 3) and seen[-1][2] > 0


def test_no_texts_give_no_vectors_and_a_null_is_an_error(encoder):
    assert encode(encoder, []).shape == (0, 384)
    with pytest.raises(ValueError, match="null"):
        encode(encoder, pa.array(["a", None]))


def test_the_bundled_encoder_loads_without_network(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a local encoder must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert load_encoder().dimension == 384


def test_digest_needs_no_loading_and_follows_what_matters(encoder):
    folder = resolve_encoder(BUNDLED)
    assert encoder_digest(folder, encoder.dtype, 64) == encoder.digest
    digests = {encoder_digest(folder, dtype, length) for dtype in ("float32", "bfloat16") for length in (64, 128)}
    assert len(digests) == 4


@pytest.mark.parametrize("name", ["./no/such/encoder", "/no/such/encoder", "a/b/c", "~/nothing here"])
def test_an_unknown_path_is_one_clear_sentence(name):
    with pytest.raises(UserError, match="there is no such folder") as error:
        load_encoder(name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_name_without_hub_access_is_one_clear_sentence(monkeypatch):
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network\nand more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match="neither a folder here nor a model") as error:
        load_encoder("someone/some-model")
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_model_and_one_with_pickled_weights_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"no config\.json"):
        load_encoder(str(tmp_path))
    source = resolve_encoder(BUNDLED)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(UserError, match="safetensors"):
        load_encoder(str(tmp_path))
