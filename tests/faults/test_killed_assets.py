"""kill -9 at any moment of every asset: the store stays whole, and the next run ends where an undisturbed one does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_runs import ForkServer
from killing import Campaign
from tiny_world import make_tiny_encoder

import definitions

SEED = int(os.environ.get("WINNOW_FAULT_SEED", "3"))
KILLS = int(os.environ.get("WINNOW_FAULT_KILLS", "2000"))


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as forks:
        yield forks


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


def test_the_steps_that_are_killed_are_all_assets(server: ForkServer) -> None:
    killed = {asset for _, _, assets in server.steps for asset in assets}
    assert killed == {key.to_user_string() for key in definitions.defs.resolve_asset_graph().executable_asset_keys}


@pytest.mark.slow
def test_fifty_kills_in_every_asset_leave_a_whole_store_and_change_nothing(
    server: ForkServer, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = Campaign(tmp_path, server, encoder, SEED)
    campaign.world_of_moments(publishing=("corpus", "manifests"))
    campaign.world_of_random_times()
    with capsys.disabled():
        print(f"\n{campaign.report()}")
    assert campaign.wrong == []
    assert campaign.figures.total >= 50
    assert {step for _, step, _ in server.steps} <= set(campaign.figures.kills)


@pytest.mark.faults
def test_thousands_of_kills(
    server: ForkServer, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = Campaign(tmp_path, server, encoder, SEED)
    campaign.worlds_of_each_moment()
    while campaign.figures.total < KILLS and not campaign.wrong:
        campaign.world_of_random_times(kills_a_step=4)
        campaign.world_of_whole_runs(kills=8)
        with capsys.disabled():
            print(f"\n{campaign.report()}", flush=True)
    assert campaign.wrong == []
    assert campaign.figures.total >= KILLS
    assert {step for _, step, _ in server.steps} <= set(campaign.figures.kills)
