"""The home, its configuration and its store, as one Dagster resource."""

from __future__ import annotations

import dagster as dg

from resources.runs import hold
from winnow.config import Config, load_config
from winnow.home import Home
from winnow.store import Store


class Workspace(dg.ConfigurableResource):
    """``home`` is WINNOW_HOME when empty. At the end of a run the store is published once, if it changed."""

    home: str = ""

    @property
    def paths(self) -> Home:
        return Home.from_environment(self.home or None)

    def config(self) -> Config:
        """Read ``winnow.toml`` as it is now."""
        return load_config(self.paths.config)

    def store(self) -> Store:
        return Store(self.paths, self.config().store)

    def encoder_location(self, config: Config) -> str:
        """Return the encoder's name, or its path resolved against the home when it is a folder there."""
        local = self.paths.resolve(config.encoder.name)
        return str(local) if local.is_dir() else config.encoder.name

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        if context.run is not None:
            hold(self.paths, context.run.run_id)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if context.run is not None:  # a sensor's look at the home publishes nothing
            self.store().publish()
