"""Selection: a bandit over clusters decides where the tokens go, scores decide which documents.

Source: Quad (arXiv 2409.16986, section 4) for the bandit, MATES (arXiv 2406.06046) for the score of every document.
Sign: positive influence = helpful, everywhere.
"""

from winnow.selection.arms import Arms, build_arms, opening_probes
from winnow.selection.bandit import run_bandit
from winnow.selection.decide import Decisions, check_budget, decide
from winnow.selection.ledger import BanditResult, BanditSettings, Pull
from winnow.selection.random_control import RandomControl, random_control

__all__ = [
    "Arms",
    "BanditResult",
    "BanditSettings",
    "Decisions",
    "Pull",
    "RandomControl",
    "build_arms",
    "check_budget",
    "decide",
    "opening_probes",
    "random_control",
    "run_bandit",
]
