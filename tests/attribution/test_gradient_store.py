import json
import os
import signal

import numpy as np
import pytest
import torch
from attribution_models import build_llama, random_docs

from winnow.attribution import retrieval
from winnow.attribution.autocorrelation import block_height, products
from winnow.attribution.gradient_store import GradientChunk, GradientStore, StoreIndex
from winnow.attribution.projected import Making, projected_gradients, store_gradients
from winnow.attribution.projection import Layout, Projection
from winnow.attribution.retrieval import GradientIndex, top_rows
from winnow.errors import UserError

LAYOUT = Layout({"a": (3, 4), "b": (2, 2)})


def _values(count, width=16, seed=0):
    generator = np.random.default_rng(seed)
    scale = 10.0 ** generator.integers(-9, 3, (count, 1))
    return (generator.normal(size=(count, width)) * scale).astype(np.float32)


def _index(count, dtype="float16", part_rows=8, **facts):
    return StoreIndex(LAYOUT, count, "digest", {"scope": "blocks", **facts}, dtype, part_rows)


def _chunks(store, number, values):
    """The part's rows in two chunks, the later rows first."""
    places = np.array(store.places(number))
    for rows in (np.arange(len(places))[len(places) // 2 :], np.arange(len(places))[: len(places) // 2]):
        yield GradientChunk(rows, values[places[rows]], places[rows] / 2.0, (None,) * len(rows))


def _written(path, values, **options):
    store = GradientStore.create(path, _index(len(values), **options))
    for number in store.missing():
        store.write_part(number, _chunks(store, number, values))
    return store


def _all(store):
    return torch.cat([rows for _, rows in store.blocks()]).numpy()


def test_rows_come_back_as_written_and_float16_keeps_eleven_bits_of_tiny_and_large_gradients(tmp_path):
    values = _values(37)
    exact = _written(tmp_path / "32", values, dtype="float32")
    assert np.array_equal(_all(exact), values)
    assert np.array_equal(exact.rows(np.array([20, 3, 36])).numpy(), values[[20, 3, 36]])
    half = GradientStore.open(_written(tmp_path / "16", values).path)
    largest = np.abs(values).max(axis=1, keepdims=True)
    assert (np.abs(_all(half) - values) <= largest * 2**-11).all()
    assert np.array_equal(half.rows(np.arange(37)).numpy(), _all(half))
    assert half.losses.tolist() == (np.arange(37) / 2.0).tolist() and half.usable.all()
    assert (tmp_path / "16" / "part-00000.data").stat().st_size == 8 * 16 * 2
    half.verify()


def test_a_killed_write_leaves_whole_parts_and_resuming_gives_the_same_bytes(tmp_path):
    values = _values(37)
    whole = _written(tmp_path / "whole", values)
    child = os.fork()
    if child == 0:
        try:
            store = GradientStore.create(tmp_path / "killed", _index(37))
            for number in store.missing():
                store.write_part(
                    number, _chunks(store, number, values) if number < 3 else _dying(store, number, values)
                )
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    killed = GradientStore.create(tmp_path / "killed", _index(37))
    assert killed.missing() == [3, 4]
    with pytest.raises(UserError, match="not a finished part"):
        _ = killed.usable
    for number in killed.missing():
        killed.write_part(number, _chunks(killed, number, values))
    killed.verify()
    names = sorted(path.name for path in whole.path.iterdir())
    assert sorted(path.name for path in killed.path.iterdir()) == names and len(names) == 11
    for name in names:
        assert (killed.path / name).read_bytes() == (whole.path / name).read_bytes()


def _dying(store, number, values):
    yield next(_chunks(store, number, values))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_part_is_written_by_one_process_at_a_time(tmp_path):
    values = _values(5)
    store = GradientStore.create(tmp_path / "s", _index(5))

    def chunks():
        with pytest.raises(UserError, match="another process is writing"):
            GradientStore.open(store.path).write_part(0, _chunks(store, 0, values))
        yield from _chunks(store, 0, values)

    store.write_part(0, chunks())
    before = store._data(0).read_bytes()
    store.write_part(0, _chunks(store, 0, values * 2))
    assert store._data(0).read_bytes() == before


def test_resuming_with_other_gradients_and_broken_folders_are_refused(tmp_path):
    values = _values(20)
    _written(tmp_path / "a", values)
    with pytest.raises(UserError, match=r"another scope \(blocks, not mlp\)"):
        GradientStore.create(tmp_path / "a", _index(20, scope="mlp"))
    with pytest.raises(UserError, match="another documents"):
        GradientStore.create(tmp_path / "a", _index(21))
    with pytest.raises(UserError, match="not a gradient store"):
        GradientStore.open(tmp_path / "nothing")
    with pytest.raises(UserError, match="use float16 or float32"):
        _index(3, dtype="int8")
    store = GradientStore.open(tmp_path / "a")
    with store._data(1).open("r+b") as file:
        file.write(b"\x00\x01\x02")
    with pytest.raises(UserError, match="bytes have changed"):
        store.verify()
    store._data(2).write_bytes(b"short")
    with pytest.raises(UserError, match="cut short"):
        _all(store)
    store._json(0).write_text(json.dumps({"losses": []}))
    with pytest.raises(UserError, match="not a finished part"):
        _ = GradientStore.open(tmp_path / "a").losses


def test_products_do_not_depend_on_how_rows_are_cut_into_parts_and_are_repeatable(tmp_path):
    values = _values(50)
    queries = torch.from_numpy(_values(5, seed=1))
    found = [products(queries, _written(tmp_path / str(rows), values, part_rows=rows)) for rows in (7, 50)]
    assert np.array_equal(found[0], found[1])
    stored = _all(GradientStore.open(tmp_path / "7")).astype(np.float64)
    wanted = queries.double().numpy() @ stored.T
    bound = np.abs(queries.double().numpy()) @ np.abs(stored).T
    assert (np.abs(found[0] - wanted) <= 1e-6 * bound).all()


def test_blocks_are_bounded_whatever_the_number_of_rows():
    assert block_height(16) == 4096 and block_height(10**5) == 41 and block_height(10**9) == 16


def test_a_model_stores_what_it_computes_in_memory_and_resumes_part_by_part(tmp_path, llama):
    docs = [*random_docs(20), np.array([5])]
    making = Making("all", Projection(4, 1))
    rows = projected_gradients(llama, docs, making)
    seen = []

    def stop(done, _):
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_gradients(tmp_path / "s", llama, docs, making, dtype="float32", part_rows=6, progress=stop)
    assert seen == [6, 12]
    store = store_gradients(tmp_path / "s", llama, docs, making, dtype="float32", part_rows=6)
    assert np.array_equal(_all(store), rows.values.numpy())
    assert np.array_equal(store.losses, rows.losses, equal_nan=True)
    assert store.usable.tolist() == [True] * 20 + [False] and store.reasons[20] == rows.reasons[20]
    assert np.isnan(products(rows.values[:2], store)[:, 20]).all()
    assert store.index.facts["projection"] == "two-sided signs 4 seed 1"
    with pytest.raises(UserError, match="another checkpoint"):
        store_gradients(tmp_path / "s", build_llama(seed=3), docs, making, dtype="float32", part_rows=6)
    with pytest.raises(UserError, match="another digest"):
        store_gradients(tmp_path / "s", llama, [*docs[1:], docs[0]], making, dtype="float32", part_rows=6)


def test_the_top_rows_are_those_of_a_full_sort_with_ties_by_place(tmp_path):
    values = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
    values[41] = values[7]
    store = _written(tmp_path / "s", values, dtype="float32")
    queries = torch.from_numpy(np.concatenate([values[7:8], _values(3, seed=4)]))
    weights = 1.0 / np.linalg.norm(values.astype(np.float64), axis=1)
    scores, places = top_rows(queries, store, 9, weights)
    dense = products(queries, store) * weights
    for query in range(4):
        order = np.lexsort((np.arange(60), -dense[query]))[:9]
        assert places[query].tolist() == order.tolist()
        assert np.array_equal(scores[query], dense[query, order])
    assert places[0, :2].tolist() == [7, 41]
    assert top_rows(queries, store, 100)[1].shape == (4, 60)


def test_faiss_finds_what_the_exact_search_finds_and_never_an_unusable_row(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32) * np.float32(1e-9)
    store = GradientStore.create(tmp_path / "s", _index(400, dtype="float32", part_rows=150))
    for number in store.missing():
        count = len(store.places(number))
        reasons = tuple("broken" if row == 5 else None for row in range(count))
        kept = values[store.places(number).start :][:count] * np.array([reason is None for reason in reasons])[:, None]
        store.write_part(number, [GradientChunk(np.arange(count), kept, np.zeros(count), reasons)])
    queries = torch.from_numpy(-np.abs(_values(3, seed=4)))
    _, exact = top_rows(queries, store, 10)
    flat = GradientIndex.build(store)
    flat.save(tmp_path / "index")
    scores, places = GradientIndex.load(tmp_path / "index").top(queries, 10)
    assert np.array_equal(places, exact)
    np.testing.assert_allclose(scores, top_rows(queries, store, 10)[0], rtol=1e-5)
    lists = GradientIndex.build(store, lists=4, probes=4)
    assert np.array_equal(lists.top(queries, 10, store)[1], exact)
    scores, few = GradientIndex.build(store, lists=4, probes=1).top(queries, 10, store)
    dense = products(queries, store)
    for query in range(3):
        np.testing.assert_allclose(scores[query], dense[query, few[query]], rtol=1e-4)
        assert (np.diff(scores[query]) <= 0).all() and (scores[query] <= dense[query, exact[query]] + 1e-12).all()
    assert not np.isin([5, 155, 305], lists.top(queries, 400)[1]).any()
    monkeypatch.setattr(retrieval, "ADDED_BYTES", 2 * 16 * 90)  # several pieces are merged
    (tmp_path / "disk").mkdir()
    GradientIndex.write(tmp_path / "disk/index", store, lists=4, probes=4)
    (tmp_path / "disk").rename(tmp_path / "moved")
    on_disk = GradientIndex.load(tmp_path / "moved/index")
    assert sorted(path.name for path in (tmp_path / "moved").iterdir()) == ["index", "index.json", "index.lists"]
    np.testing.assert_array_equal(on_disk.top(queries, 10)[1], lists.top(queries, 10)[1])
    assert np.array_equal(on_disk.top(queries, 10, store)[1], exact)
    (tmp_path / "index").write_bytes(b"junk")
    with pytest.raises(UserError, match="not a gradient index"):
        GradientIndex.load(tmp_path / "index")
