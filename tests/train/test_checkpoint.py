import json
import multiprocessing
import os
import shutil
import signal

import pytest
import torch

from winnow.errors import UserError
from winnow.train import checkpoint
from winnow.train.checkpoint import is_complete, load_checkpoint, read_state, save_checkpoint
from winnow.train.loop import AdamWState
from winnow.train.model import ModelConfig, build_model
from winnow.train.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from winnow.train.weights import weights_digest, weights_digests

CONFIG = ModelConfig(vocab=300, hidden=32, layers=2, heads=2, intermediate=48, context=32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(["a little text"], 290), folder)
    return load_tokenizer(folder)


@pytest.fixture
def saved(tmp_path, tokenizer):
    model = build_model(CONFIG, seed=0)
    moments = {name: torch.rand_like(p) for name, p in model.named_parameters()}
    state = AdamWState(7, moments, {name: moment * 2 for name, moment in moments.items()})
    folder = tmp_path / "step-7"
    save_checkpoint(folder, model, tokenizer, state, {"step": 7, "tokens": 1000, "manifest": "v1", "parent": None})
    return folder, model, state


def test_a_checkpoint_comes_back_whole(saved):
    folder, model, state = saved
    assert is_complete(folder)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.state == {"step": 7, "tokens": 1000, "manifest": "v1", "parent": None}
    for name, tensor in model.state_dict().items():
        assert torch.equal(checkpoint.model.state_dict()[name], tensor)
    assert checkpoint.optimizer_state is not None and checkpoint.optimizer_state.step == 7
    assert all(torch.equal(checkpoint.optimizer_state.exp_avg_sq[n], t) for n, t in state.exp_avg_sq.items())
    assert checkpoint.tokenizer.eos_token_id == 0
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_it_is_an_ordinary_hugging_face_checkpoint(saved):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, model, _ = saved
    ids = torch.tensor([[1, 2, 3]])
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)
    assert AutoTokenizer.from_pretrained(folder)("a little")["input_ids"]


def test_dtype_and_attention_are_as_asked(saved):
    checkpoint = load_checkpoint(saved[0], dtype="bfloat16", attention="eager")
    assert checkpoint.model.dtype == torch.bfloat16
    assert checkpoint.model.config._attn_implementation == "eager"


def test_a_checkpoint_of_another_trainer_is_accepted_in_shards(tmp_path, tokenizer):
    model, folder = build_model(CONFIG, seed=0), tmp_path / "checkpoint-30"
    model.save_pretrained(folder, max_shard_size="40KB")
    assert not is_complete(folder)  # no tokenizer yet
    tokenizer.save_pretrained(folder)
    (folder / "trainer_state.json").write_text('{"global_step": 30}')
    assert read_state(folder) == {"step": 30}
    for broken in ("[", "[1]", '{"log_history": [1]}'):
        (folder / "trainer_state.json").write_text(broken)
        with pytest.raises(UserError, match="not a record of a training"):
            read_state(folder)
    log = [{"learning_rate": 2e-4}, {"loss": 3.0, "learning_rate": 1e-4}, {"learning_rate": 0.0}, {"eval_loss": 2.0}]
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 30, "log_history": log}))
    assert (folder / "model.safetensors.index.json").exists() and is_complete(folder)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.optimizer_state is None and checkpoint.state == {"step": 30, "optimizer": {"learning_rate": 1e-4}}
    shard = sorted(folder.glob("model-*.safetensors"))[-1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    assert not is_complete(folder)
    with pytest.raises(UserError, match="bytes of"):
        load_checkpoint(folder)
    shard.unlink()
    assert not is_complete(folder)


def test_the_weights_digest_ignores_place_shards_and_optimizer(saved, tmp_path):
    folder, model, _ = saved
    expected = weights_digest(folder)
    model.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert weights_digest(tmp_path / "shards") == expected
    (folder / "optimizer.safetensors").unlink()
    assert weights_digest(folder) == expected
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-3
    model.save_pretrained(tmp_path / "changed")
    assert weights_digest(tmp_path / "changed") != expected


def test_equal_weights_under_another_configuration_are_another_model(saved):
    folder, _, _ = saved
    config = folder / "config.json"
    told = json.loads(config.read_text())
    digest, tensors = weights_digests(folder)
    config.write_text(json.dumps({**told, "transformers_version": "0.0", "use_cache": False, "_name_or_path": "x"}))
    assert weights_digests(folder) == (digest, tensors)
    config.write_text(json.dumps({**told, "rms_norm_eps": 0.5}))
    assert weights_digests(folder)[0] != digest and weights_digests(folder)[1] == tensors
    config.write_text("[")
    with pytest.raises(UserError, match="not a model's configuration"):
        weights_digest(folder)


def test_pickled_weights_are_refused_with_the_mend(saved):
    folder, model, _ = saved
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    for check in (is_complete, load_checkpoint):
        with pytest.raises(UserError, match=r"pickled.*safe_serialization=True"):
            check(folder)


def test_a_tokenizer_that_does_not_fit_the_model_is_refused(saved, tmp_path, tokenizer):
    small = build_model(ModelConfig(vocab=260, hidden=32, layers=1, heads=2, intermediate=48), seed=0)
    with pytest.raises(UserError, match="only 260 embeddings"):
        save_checkpoint(tmp_path / "wrong", small, tokenizer, None, {})
    assert not (tmp_path / "wrong").exists()
    small.save_pretrained(tmp_path / "wrong")
    tokenizer.save_pretrained(tmp_path / "wrong")
    with pytest.raises(UserError, match="only 260 embeddings"):
        load_checkpoint(tmp_path / "wrong")


def test_saving_again_replaces_the_checkpoint(saved, tokenizer):
    folder, _, _ = saved
    before = weights_digest(folder)
    save_checkpoint(folder, build_model(CONFIG, seed=1), tokenizer, None, {"step": 8})
    assert read_state(folder) == {"step": 8} and weights_digest(folder) != before
    assert not (folder / "optimizer.safetensors").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_failing_save_leaves_nothing(tmp_path, tokenizer):
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "new", build_model(CONFIG, seed=0), tokenizer, None, {"step": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("victim", ["write_tokenizer", "_save_optimizer", "_flush"])
def test_a_killed_save_leaves_nothing_that_counts_as_a_checkpoint(victim, tmp_path, tokenizer, monkeypatch):
    original = getattr(checkpoint, victim)

    def killed(*arguments):
        original(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(checkpoint, victim, killed)
    model, state = build_model(CONFIG, seed=0), AdamWState(1, {}, {})
    saving = multiprocessing.get_context("fork").Process(
        target=save_checkpoint, args=(tmp_path / "run" / "step-1", model, tokenizer, state, {})
    )
    saving.start()
    saving.join(60)
    assert saving.exitcode == -signal.SIGKILL
    left = list((tmp_path / "run").iterdir())
    assert left and not any(is_complete(folder) for folder in left)


def test_a_half_copied_folder_is_not_complete(saved):
    folder, _, _ = saved
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        copy = folder.parent / f"without-{name}"
        shutil.copytree(folder, copy)
        (copy / name).unlink()
        assert not is_complete(copy)
        with pytest.raises(UserError, match="save"):
            load_checkpoint(copy)
    (folder / "model.safetensors").write_bytes(b"\x10")
    assert not is_complete(folder)


def test_code_in_a_checkpoint_is_never_run(saved):
    folder, _, _ = saved
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(UserError, match="without code of its own"):
        load_checkpoint(folder)
