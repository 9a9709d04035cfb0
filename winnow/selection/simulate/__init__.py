"""Policies on worlds where every document's reward is known: what they find, for how many probes, over many seeds.

A world is planted (:class:`Planted`) or replays an exhaustive measurement (:class:`Replay`). All seeds run at once,
arms being the last axis of every array. New policies are judged here first.
"""

from winnow.selection.simulate.engine import Simulated, simulate
from winnow.selection.simulate.stages import Staged, simulate_stages
from winnow.selection.simulate.worlds import Ground, Planted, Replay

__all__ = ["Ground", "Planted", "Replay", "Simulated", "Staged", "simulate", "simulate_stages"]
