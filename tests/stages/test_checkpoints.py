"""Which checkpoint is current, which version a manifest gets, and what a stage refuses to work from."""

from __future__ import annotations

from pathlib import Path

import pytest
from worlds import Finished

from winnow.config import Config, Corpus, Location, Model
from winnow.errors import UserError
from winnow.home import Home
from winnow.stages.checkpoints import current_checkpoint, initial_checkpoint, require_unchanged, stored_checkpoint
from winnow.stages.loop import open_loop
from winnow.stages.publishing import _version
from winnow.stages.selection import select, selection_name, stored_ledger
from winnow.store.store import Store, insert_row, open_store

SMALL, LARGE = Config(), Config(model=Model(layers=6))


def register(store: Store, *rows: tuple[str, str | None]) -> None:
    with store.write() as connection:
        for sequence, (name, parent) in enumerate(rows):
            insert_row(connection, "checkpoints", checkpoint=name, sequence=sequence, parent=parent)


def current(store: Store, config: Config) -> str:
    with store.read() as connection:
        return current_checkpoint(connection, config)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(Home(tmp_path / "home"))


def test_the_start_is_current_until_something_is_trained_from_it(store: Store) -> None:
    start = initial_checkpoint(SMALL)
    assert current(store, SMALL) == start
    register(store, (start, None))
    assert current(store, SMALL) == start
    register(store, ("v0001-x", start), ("v0002-y", "v0001-x"))
    assert current(store, SMALL) == "v0002-y"


def test_a_checkpoint_of_unknown_descent_counts_once_the_loop_has_begun(store: Store) -> None:
    register(store, (initial_checkpoint(SMALL), None), ("saved-by-a-trainer", None))
    assert current(store, SMALL) == "saved-by-a-trainer"


def test_another_start_is_current_although_the_former_branch_is_long(store: Store) -> None:
    old, new = initial_checkpoint(SMALL), initial_checkpoint(LARGE)
    register(store, (old, None), ("v0001-x", old), (new, None))
    assert current(store, LARGE) == new
    assert current(store, SMALL) == "v0001-x"
    with store.write() as connection:
        insert_row(connection, "checkpoints", checkpoint="v0002-y", sequence=9, parent="v0001-x")
    assert (current(store, LARGE), current(store, SMALL)) == (new, "v0002-y")


def test_another_corpus_or_new_weights_at_the_given_place_are_another_start(tmp_path: Path) -> None:
    moved = Config(corpus=Corpus(locations=[Location(root="elsewhere")]))
    assert initial_checkpoint(moved) != initial_checkpoint(SMALL)
    given = Config(model=Model(checkpoint=str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"some weights")
    before = initial_checkpoint(given)
    assert initial_checkpoint(given) == before
    (tmp_path / "model.safetensors").write_bytes(b"weights of another size")
    assert initial_checkpoint(given) != before


def test_a_manifest_folder_that_the_store_does_not_list_is_never_touched(store: Store) -> None:
    folder = store.home.manifests / "v0007"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    with store.write():
        pass
    assert _version(store, "a digest") == "v0008"
    assert (folder / "manifest.json").read_text() == "{}"


@pytest.mark.slow
def test_weights_that_changed_after_registration_are_refused(finished: Finished) -> None:
    found = stored_checkpoint(finished.world.store, finished.world.checkpoint)
    require_unchanged(found)
    with pytest.raises(UserError, match="changed after it was registered"):
        require_unchanged(type(found)(found.name, found.path, "another digest", found.tokenizer))


@pytest.mark.slow
def test_nothing_is_selected_from_rounds_of_another_state(finished: Finished) -> None:
    world = finished.world
    loop = open_loop(world.store, world.config, world.checkpoint)
    ledger = stored_ledger(world.store, selection_name(world.store, loop))
    assert select(world.store, loop, ledger).decisions.selected.any()
    for other in (ledger.slice(0, 0), ledger.slice(0, len(ledger) - 1)):
        with pytest.raises(UserError, match="run again from bandit_rounds"):
            select(world.store, loop, other)


@pytest.mark.slow
def test_every_probe_model_and_score_says_how_influence_was_estimated(finished: Finished) -> None:
    gradient = ("ekfac", "blocks", 0, 0.1)
    expected = {
        "probes": {gradient, ("oracle", "all", 0, None)},
        "influence_models": {gradient},
        "scores": {gradient},
    }
    for table, estimates in expected.items():
        found = finished.world.rows(
            f"SELECT DISTINCT estimator, scope, projection, damping FROM {table}"
            " WHERE checkpoint IS NOT NULL AND reference IS NOT NULL"
        )
        assert set(found) == estimates, table
        assert finished.world.rows(f"SELECT count(*) FROM {table} WHERE estimator IS NULL OR checkpoint IS NULL") == [
            (0,)
        ]
