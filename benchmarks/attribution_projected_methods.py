"""The methods of the benchmark of projected gradients: each makes all rows of one set of documents, again and again.

A method is prepared once and called with nothing; it returns its rows ``[N, D]`` in the documents' order, or None.
Documents are token arrays; where lengths differ, a peer's batch is padded to its longest on the right, which causal
attention does not see, and the padding has no loss. A loss is the mean over a document's tokens everywhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

VOCABULARY, HIDDEN, LAYERS, MLP = 2048, 128, 4, 352
SEED = 0
BATCH, VMAP_BATCH = 16, 64
Docs = list[np.ndarray]
Rows = Callable[[], Any]


def build_model(context: int, attention: str = "eager") -> Any:
    """Return a Llama of random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=MLP,
        vocab_size=VOCABULARY,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        initializer_range=0.1,
    )
    model = LlamaForCausalLM(config).eval()
    model.set_attn_implementation(attention)
    return model


def block_layers(model: Any) -> list[str]:
    from winnow.attribution.sites import find_sites

    return list(find_sites(model, "blocks"))


def padded(docs: Sequence[np.ndarray]) -> tuple[Any, Any]:
    """Return token ids int64 ``[B, longest]`` and the weights of their losses float32 ``[B, longest - 1]``."""
    import torch

    ids = np.zeros((len(docs), max(map(len, docs))), dtype=np.int64)
    weights = np.zeros((len(docs), ids.shape[1] - 1), dtype=np.float32)
    for row, doc in enumerate(docs):
        ids[row, : len(doc)], weights[row, : len(doc) - 1] = doc, 1.0 / (len(doc) - 1)
    return torch.from_numpy(ids), torch.from_numpy(weights)


def document_losses(logits: Any, labels: Any, weights: Any) -> Any:
    """Return each document's mean token loss, float32 ``[B]``."""
    from torch.nn import functional

    return (functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none") * weights).sum(dim=1)


def ours(docs: Docs, context: int, projection: int, *, dtype: str = "float32") -> Rows:
    from winnow.attribution.projected import Making, projected_gradients
    from winnow.attribution.projection import Projection

    model, making = build_model(context), Making("blocks", Projection(projection, SEED), dtype=dtype)
    return lambda: projected_gradients(model, docs, making).values.numpy()


def floor(docs: Docs, context: int, _: int) -> Rows:
    """A plain forward and backward pass, all weight gradients included, over batches sorted by length."""
    model, order = build_model(context, "sdpa"), by_length(docs)
    batches = [padded([docs[place] for place in order[start : start + BATCH]]) for start in range(0, len(docs), BATCH)]

    def run() -> None:
        for ids, weights in batches:
            model.zero_grad(set_to_none=True)
            document_losses(model(ids[:, :-1]).logits, ids[:, 1:], weights).sum().backward()

    return run


def dattri_logra(docs: Docs, context: int, projection: int, *, batch: int = BATCH, ordered: bool = True) -> Rows:
    """dattri's hooks with its own two-sided projection: the same method as ours."""
    import torch
    from dattri.algorithm.logra import LoGraAttributor
    from dattri.task import AttributionTask

    def loss(model: Any, given: Any, _: str) -> Any:
        ids, weights = given
        # The mean: dattri multiplies a batch's gradients by the number of its documents.
        return document_losses(model(ids[:, :-1]).logits, ids[:, 1:], weights).mean()

    model = build_model(context, "sdpa")
    order = by_length(docs) if ordered else np.arange(len(docs))
    task = AttributionTask(loss, model, model.state_dict())
    loader: Any = torch.utils.data.DataLoader(
        [docs[place] for place in order],  # type: ignore[arg-type]
        batch_size=batch,
        collate_fn=padded,
    )
    folder = tempfile.mkdtemp()
    attributor = LoGraAttributor(
        task, block_layers(model), hessian="Identity", proj_dim=projection**2, offload="cpu", cache_dir=folder
    )

    def run() -> np.ndarray:
        if attributor.compressors is None:
            sample: Any = [{"input_ids": padded(docs[:1])[0]}]
            attributor._setup_compressors(sample)
        attributor.cache(loader)
        stored = attributor.offload_manager.create_gradient_dataloader("gradients", batch_size=64)
        return torch.cat([value for value, _ in stored]).numpy()[np.argsort(order)]

    return run


def trak(docs: Docs, context: int, projection: int) -> Rows:
    """traker on the CPU: vmap and its BasicProjector, over which a batch of 64 shares a random matrix."""
    import torch
    from trak import TRAKer
    from trak.modelout_functions import AbstractModelOutput

    class Loss(AbstractModelOutput):
        def __init__(self) -> None:
            super().__init__()

        @staticmethod
        def get_output(model: Any, weights: Any, buffers: Any, ids: Any, share: Any) -> Any:
            call = torch.func.functional_call(model, (weights, buffers), (ids[None, :-1],))
            return document_losses(call.logits, ids[None, 1:], share[None]).sum()

        @staticmethod
        def get_out_to_loss_grad(model: Any, weights: Any, buffers: Any, batch: Any) -> Any:
            return torch.ones(len(batch[0]), 1)

    model, order = build_model(context), by_length(docs)
    names = [f"{name}.weight" for name in block_layers(model)]

    def run() -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            traker = TRAKer(
                model,
                Loss(),
                len(docs),
                save_dir=folder,
                device="cpu",
                proj_dim=len(names) * projection**2,
                use_half_precision=False,
                grad_wrt=names,
                logging_level=40,
            )
            traker.load_checkpoint(model.state_dict(), model_id=0)
            for start in range(0, len(docs), VMAP_BATCH):
                batch = padded([docs[place] for place in order[start : start + VMAP_BATCH]])
                traker.featurize(list(batch), num_samples=len(batch[0]))
            return np.array(traker.saver.current_store["grads"])[np.argsort(order)]

    return run


def dattri_trak(docs: Docs, context: int, projection: int) -> Rows:
    """dattri's per-example gradients and ``random_project``, batches of 64 as well."""
    import torch
    from dattri.func.projection import random_project
    from dattri.task import AttributionTask

    model, order = build_model(context), by_length(docs)
    names = [f"{name}.weight" for name in block_layers(model)]

    def loss(parameters: Any, given: Any) -> Any:
        ids, weights = given
        logits = torch.func.functional_call(model, parameters, (ids[None, :-1],)).logits
        return document_losses(logits, ids[None, 1:], weights[None]).sum()

    task = AttributionTask(loss, model, model.state_dict())
    parameters, _ = task.get_param(ckpt_idx=0, layer_name=names)
    task_gradient = task.get_grad_target_func(in_dims=(None, 0), layer_name=names, ckpt_idx=0)

    def run() -> np.ndarray:
        projector, out = None, []
        for start in range(0, len(docs), VMAP_BATCH):
            batch = padded([docs[place] for place in order[start : start + VMAP_BATCH]])
            gradients = task_gradient(parameters, batch)
            if projector is None:
                projector = random_project(gradients, len(batch[0]), len(names) * projection**2, 32, device="cpu")
            out.append(projector(gradients).detach())
        return torch.cat(out).numpy()[np.argsort(order)]

    return run


def by_length(docs: Docs) -> np.ndarray:
    return np.argsort([len(doc) for doc in docs], kind="stable")


METHODS: dict[str, Callable[[Docs, int, int], Rows]] = {
    "floor": floor,
    "ours": ours,
    "ours_bfloat16": partial(ours, dtype="bfloat16"),
    "dattri_logra": dattri_logra,
    "dattri_logra_unsorted": partial(dattri_logra, ordered=False),
    "dattri_logra_single": partial(dattri_logra, batch=1),
    "trak": trak,
    "dattri_trak": dattri_trak,
}
VMAP = ("trak", "dattri_trak")
UNEVEN = ("dattri_logra_unsorted", "dattri_logra_single")
"""Differ from ``dattri_logra`` where lengths do."""
