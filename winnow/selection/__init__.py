"""Selection: a bandit over clusters decides where the tokens go, scores decide which documents.

Source: Quad (arXiv 2409.16986, section 4) for the bandit, MATES (arXiv 2406.06046) for the score of every document.
Sign: positive influence = helpful, everywhere.
"""

from winnow.selection.arms import Arms, build_arms, opening_probes
from winnow.selection.bandit import arm_facts, run_bandit
from winnow.selection.decide import Decisions, check_budget, decide
from winnow.selection.facts import ArmFacts, Prior
from winnow.selection.ledger import BanditResult, BanditSettings, Pull
from winnow.selection.random_control import RandomControl, random_control

__all__ = [
    "ArmFacts",
    "Arms",
    "BanditResult",
    "BanditSettings",
    "Decisions",
    "Prior",
    "Pull",
    "RandomControl",
    "arm_facts",
    "build_arms",
    "check_budget",
    "decide",
    "opening_probes",
    "random_control",
    "run_bandit",
]
