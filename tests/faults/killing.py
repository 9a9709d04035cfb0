"""Campaigns of kill -9: homes whose runs are killed over and over, and what must be true of them each time."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
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
Step = tuple[str, str, list[str]]
DOCTOR_EVERY = 8
"""Every so many checks of the store, and at the end of a world, the product's own doctor is asked too."""
UNDISTURBED_SECONDS = 900.0
"""The first run in a fresh clone compiles every kernel, on a machine that may be busy."""


@dataclass
class Figures:
    """What a campaign did."""

    kills: Counter[str] = field(default_factory=Counter)
    moments: int = 0
    checks: int = 0
    comparisons: int = 0
    longest_recovery: float = 0.0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.kills.values())

    def __str__(self) -> str:
        by_step = ", ".join(f"{step} {count}" for step, count in sorted(self.kills.items()))
        return (
            f"{self.total} kills ({self.moments} of them at a rename or COMMIT, the others at random times), "
            f"{self.checks} store checks, {self.comparisons} recoveries compared with undisturbed runs, the longest of "
            f"{self.longest_recovery:.1f} s; {self.seconds:.0f} s in all\n  {by_step}"
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
        self.reference = self._run(undisturbed, limit=UNDISTURBED_SECONDS)
        self._complain(self.reference, "the undisturbed run")
        if wrong := self.wrong + problems(undisturbed):
            raise AssertionError(f"the undisturbed run: {wrong}")
        self.publishing = len(self.reference.moments["publish"]) // len({job for job, _, _ in server.steps})
        self.state, self.files = state(undisturbed), files(undisturbed)

    def _new_home(self) -> Home:
        """Make a home at the place where every world of the campaign lies: paths enter the names of deliveries."""
        shutil.rmtree(self.root / "home", ignore_errors=True)
        return make_tiny_home(self.root / "home", self.config)

    # -- worlds -----------------------------------------------------------------------------------------------------

    def world_of_first_moments(self, publishing: tuple[str, ...] = ()) -> None:
        """Kill a world in every step: after its first durable moment, and after the last before its last COMMIT.

        A run between does what was not done. ``publishing`` is as in :meth:`world_of_moments`.
        """
        home = self._new_home()
        for step in self.server.steps:
            names = self.reference.moments[step[1]]
            for number in sorted({0, max(0, len(names) - 2)}):
                moment = names[number], names[: number + 1].count(names[number]), "after"
                self._kill(home, [step], step[1], moment=moment)
            for number in range(1, self.publishing + 1 if step[1] in publishing else 1):
                self._kill(home, [step], "publish", moment=("", number, "after"))
            if len(names) > 1:  # it was killed before it was done
                self._complain(self._run(home, job=step[0], assets=_assets([step])), step[1])
        self._end(home)

    def world_of_moments(self, publishing: tuple[str, ...] = ()) -> None:
        """Kill a world after the durable moments of every step, one upon the other.

        ``publishing`` are the steps after which the publishing of the store is killed likewise.
        """
        home = self._new_home()
        for step in self.server.steps:
            names = Counter[str]()
            for name in _without_repetition(self.reference.moments.get(step[1], [])):
                names[name] += 1
                self._kill(home, [step], step[1], moment=(name, names[name], "after"))
            # Now the step is done: its last moment is the COMMIT of all that it wrote.
            for number in range(1, self.publishing + 1 if step[1] in publishing else 1):
                self._kill(home, [step], "publish", moment=("", number, "after"))
        job, _, assets = self.server.steps[-1]
        self._end(home, job=job, assets=assets)  # it has nothing to do but publish

    def every_moment(self) -> Iterator[None]:
        """Kill every step, and the publishing after it, before and after every single durable moment.

        Each kill meets the world as an undisturbed run leaves it to the step, and after each the step is run again and
        compared with what an undisturbed run makes of it. Yields after every step.
        """
        home = self._new_home()
        kept = [self.root / name for name in ("before", "after")]
        for step in self.server.steps:
            _copy(home.root, kept[0])
            undisturbed = self._run(home, job=step[0], assets=step[2])
            self._complain(undisturbed, f"{step[1]}, undisturbed")
            _copy(home.root, kept[1])
            wanted = state(home), files(home)
            for during in (step[1], "publish"):
                for number in range(1, len(undisturbed.moments.get(during, [])) + 1):
                    for when in ("before", "after"):
                        _copy(kept[0], home.root)
                        self._kill(home, [step], during, moment=("", number, when))
                        self._complain(self._run(home, job=step[0], assets=step[2]), f"{step[1]} after {number} {when}")
                        self._compare(home, *wanted)
            _copy(kept[1], home.root)
            yield
        self._end(home)

    def world_of_random_times(self, kills_a_step: int = 1) -> None:
        """Kill a world at uniformly random moments of every step, as often as that while the step is undone."""
        home = self._new_home()
        undone: list[Step] = []
        for step in self.server.steps:
            if undone and undone[0][0] != step[0]:
                self._complain(self._run(home, job=undone[0][0], assets=_assets(undone)), "the rest of a job")
                undone = []
            undone.append(step)
            for _ in range(kills_a_step):
                wait = self.random.uniform(0, self.reference.steps[step[1]])
                answer = self._kill(home, undone, step[1], wait=wait)
                done = {name for name in answer.steps if not (answer.killed and name == answer.at)}
                undone = [one for one in undone if one[1] not in done]
                if step not in undone:
                    break
        self._end(home)

    def world_of_whole_runs(self, kills: int) -> None:
        """Kill whole runs anywhere, the time between two steps and the publishing included."""
        home = self._new_home()
        steps = [*self.reference.steps]
        for during in sorted(self.random.choices(steps, k=kills), key=steps.index):  # those before it are done by then
            wait = self.random.uniform(0, self.reference.steps[during])
            answer = self.server.run(home.root, during=during, wait=wait, alone=self.random.random() < 0.5)
            self._look(home, answer, f"a whole run, {wait:.3f} s into {during}")
        self._end(home)

    def _end(self, home: Home, **how: object) -> None:
        """Run a world to its end undisturbed (by a whole run, unless told ``how``) and compare it."""
        self._complain(self._run(home, **how), "the last run of a world")
        self.wrong += [f"at the end: {problem}" for problem in problems(home)]
        self.figures.checks += 1
        self._compare(home, self.state, self.files)

    # -- runs -------------------------------------------------------------------------------------------------------

    def _run(self, home: Home, **how: object) -> Answer:
        answer = self.server.run(home.root, **how)
        if self._recovering:
            self.figures.longest_recovery = max(self.figures.longest_recovery, answer.seconds)
            self._recovering = False
        return answer

    def _kill(
        self, home: Home, steps: list[Step], during: str, wait: float | None = None, moment: Moment | None = None
    ) -> Answer:
        """Run steps of one job and kill the run in the step (or publish) named."""
        answer = self.server.run(
            home.root, job=steps[0][0], assets=_assets(steps), during=during, wait=wait, moment=moment,
            alone=self.random.random() < 0.5,
        )  # fmt: skip
        where = f"{moment[2]} {moment[0] or 'moment'} {moment[1]} of" if moment else f"{wait:.3f} s into"
        self._look(home, answer, f"{steps[-1][1]}, {where} {during}")
        self.figures.moments += bool(moment and answer.killed)
        return answer

    def _look(self, home: Home, answer: Answer, where: str) -> None:
        """Note a kill and look whether the store is whole."""
        self._complain(answer, where)
        if answer.killed:
            self.figures.kills[answer.at] += 1
            self._recovering = True
            self.figures.checks += 1
            doctor = self.figures.checks % DOCTOR_EVERY == 0
            self.wrong += [f"killed in {where}: {problem}" for problem in problems(home, doctor)]

    def _compare(self, home: Home, wanted: dict[str, object], wanted_files: dict[str, str]) -> None:
        self.wrong += differences(state(home), wanted) + differences(files(home), wanted_files)
        self.figures.comparisons += 1

    def _complain(self, answer: Answer, where: str) -> None:
        if answer.hung:  # every further run might
            raise AssertionError(f"{where}: the run hangs in {answer.at}; before: {self.wrong}")
        if answer.error:
            self.wrong.append(f"{where}: the run fails: {answer.error}")
        if answer.orphans:
            self.wrong.append(f"{where}: {answer.orphans} processes outlived the one that was killed")

    def report(self) -> str:
        self.figures.seconds = time.monotonic() - self._began
        return f"kill -9 (seed {self.seed}, {self.config.store.backend}): {self.figures}"


def _assets(steps: list[Step]) -> list[str]:
    return [asset for _, _, assets in steps for asset in assets]


def _without_repetition(names: list[str]) -> list[str]:
    """Leave out all but the first and the last of the many tables that a manifest's snapshot writes alike."""
    alike = [name for name in names if SNAPSHOT in name]
    return [name for name in names if name not in alike[1:-1]]


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
