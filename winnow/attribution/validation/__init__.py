"""Whether attribution scores are worth anything: each module puts them to one test that could fail.

- :mod:`~winnow.attribution.validation.one_step`: agreement with the true effect of one optimiser step;
- :mod:`~winnow.attribution.validation.tail_patch`: does a step on the documents found raise the answer's probability;
- :mod:`~winnow.attribution.validation.brittleness`: remove what is found, train again, see the loss rise;
- :mod:`~winnow.attribution.validation.fact_tracing`: are the documents found those that state the fact;
- :mod:`~winnow.attribution.validation.corruption`: does self-influence find broken documents;
- :mod:`~winnow.attribution.validation.recovery`: can a contaminated training set be cleaned from a few bad behaviours;
- :mod:`~winnow.attribution.validation.stability`: what of a score is left when the seed or the checkpoint changes;
- :mod:`~winnow.attribution.validation.memorisation`: how much lower the loss is on what was read, by repetition.

All are pure: scores ``[Q, N]`` and callables that train or measure go in, a dataclass with intervals comes out, its
``to_rows()`` gives the rows of a leaderboard (:mod:`~winnow.attribution.validation.rows`). The order of the documents
changes no result.
"""
