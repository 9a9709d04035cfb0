"""Campaigns of kill -9: homes whose runs are killed over and over, and what must be true of them each time."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fork_server import Answer
from forked_runs import ForkServer
from tiny_world import make_tiny_home
from wholeness import differences, files, problems, state

from winnow.config import Config
from winnow.home import Home
from winnow.store.parts import SNAPSHOT

Moment = tuple[str, int, str]


@dataclass
class Figures:
    """What a campaign did."""

    kills: Counter[str] = field(default_factory=Counter)
    moments: int = 0
    checks: int = 0
    worlds: int = 0
    longest_recovery: float = 0.0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.kills.values())

    def __str__(self) -> str:
        by_step = ", ".join(f"{step} {count}" for step, count in sorted(self.kills.items()))
        return (
            f"{self.total} kills ({self.moments} of them at a rename or COMMIT, the others at random times), "
            f"{self.checks} store checks, {self.worlds} worlds finished and compared, longest recovery "
            f"{self.longest_recovery:.1f} s, {self.seconds:.0f} s in all\n  {by_step}"
        )


class Campaign:
    """Kills the runs of tiny worlds; every world ends as the one that nobody disturbed.

    ``wrong`` collects sentences about what should not be: a store that is not whole, a run that fails or hangs, a table
    or file that differs at the end.
    """

    def __init__(self, root: Path, server: ForkServer, config: Config, seed: int) -> None:
        self.root, self.server, self.config, self.seed = root, server, config, seed
        self.random = random.Random(seed)
        self.figures = Figures()
        self.wrong: list[str] = []
        self._began = time.monotonic()
        self._recovering = False
        undisturbed = self._new_home()
        self.reference = self._run(undisturbed)
        if self.reference.error or problems(undisturbed):
            raise AssertionError(f"the undisturbed run: {self.reference.error or problems(undisturbed)}")
        self.publishing = len(self.reference.moments["publish"]) // len({job for job, _, _ in server.steps})
        self.state, self.files = state(undisturbed), files(undisturbed)

    def _new_home(self) -> Home:
        """Make a home at the place where every world of the campaign lies: paths enter the names of deliveries."""
        shutil.rmtree(self.root / "home", ignore_errors=True)
        return make_tiny_home(self.root / "home", self.config)

    # -- worlds -----------------------------------------------------------------------------------------------------

    def world_of_moments(self, publishing: tuple[str, ...] = ()) -> None:
        """Kill a world after the durable moments of every step, one upon the other.

        ``publishing`` are the steps after which the publishing of the store is killed likewise.
        """
        home = self._new_home()
        earlier: list[str] = []
        for job, step, assets in self.server.steps:
            names = Counter[str]()
            for name in _without_repetition(self.reference.moments.get(step, [])):
                names[name] += 1
                self._kill(home, job, [*earlier, *assets], step, moment=(name, names[name], "after"))
            if step in publishing:
                for number in range(1, self.publishing + 1):
                    self._kill(home, job, assets, "publish", moment=("", number, "after"))
            earlier = assets if self._same_job_follows(step) else self._finish(home, job, assets)
        self._end(home)

    def worlds_of_each_moment(self) -> None:
        """Kill a world before or after the n-th durable moment of every step and publish, for every n."""
        most = max(len(names) for step, names in self.reference.moments.items() if step != "publish")
        for number, when in [(number, when) for number in range(1, most + 1) for when in ("before", "after")]:
            home = self._new_home()
            earlier: list[str] = []
            for job, step, assets in self.server.steps:
                if number <= len(self.reference.moments.get(step, [])):
                    self._kill(home, job, [*earlier, *assets], step, moment=("", number, when))
                if number <= self.publishing:
                    self._kill(home, job, [*earlier, *assets], "publish", moment=("", number, when))
                earlier = assets if self._same_job_follows(step) else self._finish(home, job, assets)
            self._end(home)

    def world_of_random_times(self, kills_a_step: int = 1) -> None:
        """Kill a world at uniformly random moments of every step, as often as that while the step is undone."""
        home = self._new_home()
        earlier: list[str] = []
        for job, step, assets in self.server.steps:
            for _ in range(kills_a_step):
                wait = self.random.uniform(0, self.reference.steps[step])
                if not self._kill(home, job, [*earlier, *assets], step, wait=wait).killed:
                    break  # it was done before
            earlier = assets if self._same_job_follows(step) else self._finish(home, job, assets)
        self._end(home)

    def world_of_whole_runs(self, kills: int) -> None:
        """Kill whole runs anywhere, the time between two steps and the publishing included."""
        home = self._new_home()
        steps = [*self.reference.steps]
        for _ in range(kills):
            during = self.random.choice(steps)
            wait = self.random.uniform(0, self.reference.steps[during])
            answer = self.server.run(home.root, during=during, wait=wait)
            self._look(home, answer, f"a whole run, {wait:.3f} s into {during}")
        self._end(home)

    def _same_job_follows(self, step: str) -> bool:
        jobs = [(job, name) for job, name, _ in self.server.steps]
        place = [name for _, name in jobs].index(step)
        return place + 1 < len(jobs) and jobs[place + 1][0] == jobs[place][0]

    def _finish(self, home: Home, job: str, assets: list[str]) -> list[str]:
        """Finish the last step of a job, whose kills leave it undone; the next job starts with nothing before it."""
        answer = self._run(home, job=job, assets=assets)
        self._complain(answer, f"the run after the kills of {', '.join(assets)}")
        return []

    def _end(self, home: Home) -> None:
        """Run a world to its end undisturbed and compare it."""
        answer = self._run(home)
        self._complain(answer, "the last run of a world")
        self.wrong += [f"at the end: {problem}" for problem in problems(home)]
        self.figures.checks += 1
        if not answer.error and not answer.killed:
            self.wrong += differences(state(home), self.state) + differences(files(home), self.files)
            self.figures.worlds += 1

    # -- runs -------------------------------------------------------------------------------------------------------

    def _run(self, home: Home, **how: object) -> Answer:
        began = time.monotonic()
        answer = self.server.run(home.root, **how)
        if self._recovering:
            self.figures.longest_recovery = max(self.figures.longest_recovery, time.monotonic() - began)
            self._recovering = False
        return answer

    def _kill(
        self, home: Home, job: str, assets: list[str], during: str, wait: float | None = None,
        moment: Moment | None = None,
    ) -> Answer:  # fmt: skip
        alone = self.random.random() < 0.5
        answer = self.server.run(
            home.root, job=job, assets=assets, during=during, wait=wait, moment=moment, alone=alone
        )
        where = f"{moment[2]} {moment[0] or 'moment'} {moment[1]} of" if moment else f"{wait:.3f} s into"
        self._look(home, answer, f"{job}, {where} {during}")
        self.figures.moments += bool(moment and answer.killed)
        return answer

    def _look(self, home: Home, answer: Answer, where: str) -> None:
        """Note a kill and look whether the store is whole."""
        self._complain(answer, where)
        if answer.killed:
            self.figures.kills[answer.at] += 1
            self._recovering = True
            self.figures.checks += 1
            self.wrong += [f"killed in {where}: {problem}" for problem in problems(home)]

    def _complain(self, answer: Answer, where: str) -> None:
        if answer.hung:
            self.wrong.append(f"{where}: the run hangs in {answer.at}")
        if answer.error:
            self.wrong.append(f"{where}: the run fails: {answer.error}")
        if answer.orphans:
            self.wrong.append(f"{where}: {answer.orphans} processes outlived the one that was killed")

    def report(self) -> str:
        self.figures.seconds = time.monotonic() - self._began
        return f"kill -9 (seed {self.seed}, {self.config.store.backend}): {self.figures}"


def _without_repetition(names: list[str]) -> list[str]:
    """Leave out all but the first and the last of the many tables that a manifest's snapshot writes alike."""
    alike = [name for name in names if SNAPSHOT in name]
    return [name for name in names if name not in alike[1:-1]]
