import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.errors import UserError
from winnow.train.tokenizer import (
    EOS,
    count_tokens,
    load_tokenizer,
    save_tokenizer,
    tokenise,
    tokenizer_digest,
    train_tokenizer,
)

TEXTS = [f"Document {i}: the quick brown fox number {i * 7} jumps over café tables. " * 3 for i in range(200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(TEXTS, 400), path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_any_text_can_be_written_and_read_back(tokenizer, text):
    text = text.replace(EOS, "")
    assert tokenizer.decode(tokenise(tokenizer, [text])[0], clean_up_tokenization_spaces=False) == text


def test_training_does_not_depend_on_order_threads_or_process():
    code = (
        "import random, hashlib; from winnow.train.tokenizer import train_tokenizer\n"
        "texts = [' '.join(random.Random(i).choices(['ab','abc','bca','é','zz','qx'], k=30)) for i in range(500)]\n"
        "random.shuffle(texts)\n"
        "print(hashlib.sha256(train_tokenizer(texts, 300).to_str().encode()).hexdigest())"
    )
    outputs = set()
    for threads in ("1", "4", "4"):
        environment = {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true", "PATH": ""}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        outputs.add(run.stdout)
    assert len(outputs) == 1


def test_the_folder_is_an_ordinary_hugging_face_tokenizer(folder):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.eos_token == EOS and loaded.eos_token_id == 0
    assert len(loaded) == 400
    assert "PreTrainedTokenizerFast" in (folder / "tokenizer_config.json").read_text()


def test_a_count_is_the_tokens_plus_one_end_of_text(tokenizer):
    expected = [len(tokens) + 1 for tokens in tokenise(tokenizer, TEXTS)]
    for texts in (TEXTS, iter(TEXTS), pa.array(TEXTS), pa.chunked_array([TEXTS[:3], TEXTS[3:]])):
        counts = count_tokens(tokenizer, texts)
        assert counts.dtype == np.int64 and counts.tolist() == expected
    assert count_tokens(tokenizer, [""]).tolist() == [1]
    assert count_tokens(tokenizer, []).shape == (0,)


def test_long_texts_are_never_cut_nor_special_tokens_added(tokenizer):
    text = "fox " * 5000
    assert len(tokenise(tokenizer, [text])[0]) >= 5000
    assert 0 not in tokenise(tokenizer, [text])[0]


def test_the_digest_follows_content_not_place(folder, tmp_path):
    save_tokenizer(train_tokenizer(reversed(TEXTS), 400), tmp_path / "again")
    assert tokenizer_digest(tmp_path / "again") == tokenizer_digest(folder)
    save_tokenizer(train_tokenizer(TEXTS, 401), tmp_path / "larger")
    assert tokenizer_digest(tmp_path / "larger") != tokenizer_digest(folder)


def test_impossible_vocabulary_and_missing_tokenizer_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="257 or more"):
        train_tokenizer(TEXTS, 100)
    with pytest.raises(UserError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="no tokenizer"):
        tokenizer_digest(tmp_path)
