"""The curation sensor: one request for each state that no manifest answers to, and silence otherwise."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from worlds import Finished, World, small_config

from resources.workspace import Workspace
from sensors.curation import curation
from sensors.jobs import MOST_ATTEMPTS
from winnow.errors import UserError
from winnow.stages.corpus import deliver, known_shards
from winnow.store.stage import Stage
from winnow.text.deliveries import plan, scan


def tick(world: World) -> dg.SensorResult:
    resources = {"workspace": Workspace(home=str(world.home.root))}
    with dg.build_sensor_context(instance=world.instance, resources=resources) as context:
        result = curation(context)
    assert isinstance(result, dg.SensorResult)
    return result


def reason(result: dg.SensorResult) -> str:
    assert result.skip_reason is not None and not result.run_requests
    return result.skip_reason.skip_message or ""


def change_corpus(world: World) -> None:
    """Do what an ingest run does to the corpus, without its judgements."""
    with world.store.read() as connection:
        known = known_shards(connection, world.config.corpus)
    delivery = plan(scan(world.home, world.config.corpus), known)
    deliver(world.store, world.config.corpus, delivery, Stage(world.store, "corpus", "run", partition=delivery.key))
    world.store.publish()


@pytest.fixture
def world(copy_of_base: Callable[[str], World]) -> World:
    return copy_of_base("home")


def test_nothing_is_asked_for_before_there_is_a_store(tmp_path: Path) -> None:
    assert "does not exist" in reason(tick(World(tmp_path / "home")))


def test_a_manifest_that_answers_to_the_present_state_is_left_alone(finished: Finished) -> None:
    assert "v0001 answers to the present state" in reason(tick(finished.world))


def test_a_changed_state_is_asked_for_once(world: World) -> None:
    world.configure(small_config(selection={"budget_tokens": 1_000}))
    first, second = tick(world), tick(world)
    [request], [again] = first.run_requests or (), second.run_requests or ()
    assert (request.job_name, request.partition_key) == ("curate", world.checkpoint)
    assert request.run_key == again.run_key and request.run_key


def test_documents_without_a_judgement_are_judged_before_anything_is_chosen(world: World) -> None:
    world.deliver("files/later.jsonl", [{"id": "late", "text": "A document that came after the first manifest."}])
    change_corpus(world)
    first, second = tick(world), tick(world)
    [request], [again] = first.run_requests or (), second.run_requests or ()
    assert request.job_name == "ingest" and request.run_key == again.run_key
    assert request.partition_key == world.store.query("SELECT arg_max(batch, delivered_at) FROM shards")[0][0]
    assert not first.dynamic_partitions_requests


def test_a_changed_rule_of_quality_has_everything_judged_anew_first(world: World) -> None:
    world.configure(small_config(quality={"gopher": {"min_words": 3.0}}))
    [request] = tick(world).run_requests or ()
    assert request.job_name == "ingest"


def test_a_failed_run_is_asked_for_again_and_then_left_to_a_person(world: World) -> None:
    world.configure(small_config(selection={"budget_tokens": 1_000}))
    for attempt in range(MOST_ATTEMPTS):
        [request] = tick(world).run_requests or ()
        assert str(request.run_key).endswith(f":{attempt}")
        failed = dg.DagsterRunStatus.FAILURE
        world.instance.add_run(
            dg.DagsterRun(job_name="curate", run_id=str(uuid.uuid4()), status=failed, tags=request.tags)
        )
    assert "failed 3 times" in reason(tick(world))


def test_the_checkpoint_partition_is_added_only_when_it_is_missing(world: World) -> None:
    world.configure(small_config(selection={"budget_tokens": 1_000}))
    [addition] = tick(world).dynamic_partitions_requests or ()
    assert list(addition.partition_keys) == [world.checkpoint]
    world.instance.add_dynamic_partitions("checkpoints", [world.checkpoint])
    assert not tick(world).dynamic_partitions_requests


@pytest.mark.parametrize("job", ["ingest", "register", "curate"])
def test_nothing_is_asked_for_while_runs_are_active(world: World, job: str) -> None:
    world.configure(small_config(selection={"budget_tokens": 2_000}))
    run = world.instance.add_run(
        dg.DagsterRun(job_name=job, run_id=str(uuid.uuid4()), status=dg.DagsterRunStatus.STARTED)
    )
    assert "waiting for runs in progress" in reason(tick(world))
    world.instance.delete_run(run.run_id)
    assert len(tick(world).run_requests or ()) == 1


def test_a_changed_configuration_is_another_state(world: World) -> None:
    keys = set()
    for budget in (1_000, 2_000, 3_000):
        world.configure(small_config(selection={"budget_tokens": budget}))
        keys |= {request.run_key for request in tick(world).run_requests or ()}
    assert len(keys) == 2  # the third is the state that v0001 answers to


def test_a_setting_that_changes_no_choice_asks_for_nothing(world: World) -> None:
    world.configure(small_config(store={"memory_limit": "300MB"}, train={"learning_rate": 1e-4}))
    assert "answers to the present state" in reason(tick(world))


def test_a_state_that_returns_after_another_manifest_is_asked_for_under_a_new_key(world: World) -> None:
    with world.store.write() as connection:
        connection.execute(
            "INSERT INTO manifests"
            " SELECT * REPLACE ('v0002' AS version, 'v0001' AS parent, 'other' AS state) FROM manifests"
        )
    world.store.publish()
    [request] = tick(world).run_requests or ()
    with world.store.write() as connection:
        connection.execute(
            "INSERT INTO manifests SELECT * REPLACE ('v0003' AS version, 'v0002' AS parent) FROM manifests"
            " WHERE version = 'v0002'"
        )
    world.store.publish()
    [later] = tick(world).run_requests or ()
    assert later.run_key != request.run_key


def test_without_a_reference_nothing_can_be_curated(world: World) -> None:
    world.configure(small_config(reference={"path": ""}))
    assert "no reference" in reason(tick(world))


def test_a_mistake_in_the_configuration_surfaces_in_the_tick(world: World) -> None:
    world.home.config.write_text("[selection]\nbudget = 5\n")
    with pytest.raises(UserError, match=r"unknown key 'selection\.budget'"):
        tick(world)
