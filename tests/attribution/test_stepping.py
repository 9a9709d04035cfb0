import copy

import numpy as np
import pytest
import torch
from attribution_models import build_llama, mean_loss, random_docs

from winnow.attribution.adamw import AdamW, run_optimizer
from winnow.attribution.run import RunCheckpoint, Settings, TrainingRun
from winnow.attribution.stepping import Steps, document_losses, in_batches
from winnow.errors import UserError


def torch_steps(model, docs, settings, state, count):
    """A copy of the model after torch's own AdamW, a tensor at a time, took a step on each of the documents."""
    twin = copy.deepcopy(model)
    groups = [
        {"params": [value for value in twin.parameters() if value.ndim >= 2]},
        {"params": [value for value in twin.parameters() if value.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
    )
    for name, value in twin.named_parameters():
        if name in state:
            optimizer.state[value] = {key: tensor.clone() for key, tensor in state[name].items()}
    for doc in docs[:count]:
        optimizer.zero_grad()
        mean_loss(twin, doc).backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), settings.clip)
        optimizer.step()
    return twin


def test_several_steps_equal_those_of_torch_and_rewinding_starts_anew(warm_llama):
    model, state = warm_llama
    docs, settings = random_docs(4, seed=3), AdamW(2e-3, weight_decay=0.5, clip=0.7)
    steps = Steps(model, settings, state)
    twin = dict(torch_steps(model, docs, settings, state, 4).named_parameters())
    with steps.running():
        for _ in range(2):
            steps.rewind()
            for doc in docs:
                steps.differentiate([doc])
                steps.step()
            for name, value in steps.parameters().items():
                torch.testing.assert_close(value, twin[name].detach(), rtol=1e-4, atol=1e-5)


def test_a_gradient_of_several_documents_is_the_mean_of_theirs(warm_llama):
    model, _ = warm_llama
    docs = random_docs(5, seed=4)
    steps = Steps(model, AdamW(1e-3))
    with steps.running():
        loss = steps.differentiate(docs)
        together = steps.gradients()
        alone = []
        for doc in docs:
            steps.differentiate([doc])
            alone.append(steps.gradients())
    assert loss == pytest.approx(np.mean([float(mean_loss(model, doc).detach()) for doc in docs]), rel=1e-5)
    for name, value in together.items():
        mean = torch.stack([one[name] for one in alone]).mean(dim=0)
        torch.testing.assert_close(value, mean, rtol=1e-3, atol=1e-6)


def test_an_ascending_step_raises_the_documents_loss(warm_llama):
    model, _ = warm_llama
    doc = random_docs(1, seed=5)
    steps, batched = Steps(model, AdamW(1e-3, weight_decay=0.0)), in_batches(doc, 64)
    with steps.running():
        before = document_losses(model, batched, 1)
        steps.differentiate(doc)
        steps.step(ascend=True)
        assert document_losses(model, batched, 1) > before


def test_a_parameter_without_influence_on_the_loss_stays_and_an_error_inside_undoes_everything(warm_llama):
    model = copy.deepcopy(warm_llama[0])
    model.unused = torch.nn.Linear(3, 3)
    before = {name: (value, value.data_ptr()) for name, value in model.named_parameters()}
    steps = Steps(model, AdamW(1e-2))
    with pytest.raises(ZeroDivisionError), steps.running():
        steps.differentiate(random_docs(1))
        steps.step()
        assert not any(name.startswith("unused") for name in steps.parameters())
        raise ZeroDivisionError
    for name, value in model.named_parameters():
        assert value is before[name][0] and value.data_ptr() == before[name][1] and value.requires_grad


def test_a_model_in_bfloat16_is_stepped_in_float32_and_given_back_as_it_was():
    model = build_llama(seed=2).bfloat16()
    steps = Steps(model, AdamW(1e-3))
    with steps.running():
        assert np.isfinite(steps.differentiate(random_docs(1)))
        steps.step()
        assert {value.dtype for value in steps.parameters().values()} == {torch.float32}
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}


def test_one_document_alone_is_measured_as_among_others(warm_llama):
    model, _ = warm_llama
    docs = [*random_docs(4, seed=6), np.array([3])]
    with torch.no_grad():
        together = document_losses(model, in_batches(docs, 64), 5)
        alone = [document_losses(model, in_batches([doc], 64), 1)[0] for doc in docs]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert np.isnan(together[4])


def test_options_set_the_optimizer_and_a_rate_of_zero_is_refused():
    checkpoint = RunCheckpoint("last", build_llama, learning_rate=0.0)
    run = TrainingRun(random_docs(2), (checkpoint,))
    with pytest.raises(UserError, match="learning_rate"):
        run_optimizer(run, Settings())
    found = run_optimizer(run, Settings(options={"learning_rate": 0.1, "beta1": 0.5, "clip": 2.0}))
    assert (found.learning_rate, found.betas, found.clip) == (0.1, (0.5, 0.95), 2.0)
    kept = RunCheckpoint("last", build_llama, 0.3, adamw=AdamW(0.3, (0.8, 0.99), 1e-6, 0.2, 0.5))
    found = run_optimizer(TrainingRun(random_docs(2), (kept,)), Settings(options={"beta2": 0.9}))
    assert found == AdamW(0.3, (0.8, 0.9), 1e-6, 0.2, 0.5)


def test_what_a_checkpoint_recorded_of_its_optimizer_is_taken_and_a_broken_record_refused():
    assert AdamW.recorded(None, 1e-3) == AdamW(1e-3) == AdamW.recorded({"schedule": {}}, 1e-3)
    record = {"learning_rate": 2e-4, "betas": [0.8, 0.99], "epsilon": 1e-6, "weight_decay": 0.0, "clip": 0.5}
    assert AdamW.recorded(record, 1e-3) == AdamW(2e-4, (0.8, 0.99), 1e-6, 0.0, 0.5)
    for broken in ({"betas": 0.9}, {"learning_rate": "fast"}, ["x"]):
        with pytest.raises(UserError, match="record of its optimizer"):
            AdamW.recorded(broken, 1e-3)


def test_a_state_without_second_moments_and_a_checkpoint_without_a_rate_are_refused(warm_llama):
    model, state = warm_llama
    name = next(iter(state))
    adafactor = dict(state) | {name: {"step": 3, "row_var": torch.ones(64, 1), "col_var": torch.ones(1, 16)}}
    with pytest.raises(UserError, match=f"{name} has no exp_avg_sq"):
        Steps(model, AdamW(1e-3), adafactor)
    with pytest.raises(UserError, match="'last' has no learning rate"):
        run_optimizer(TrainingRun(random_docs(2), (RunCheckpoint("last", build_llama),)), Settings())
