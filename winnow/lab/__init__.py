"""The lab: does a selection teach more than random documents do? One model is trained for each preset, and compared.

- :mod:`~winnow.lab.pool`, :mod:`~winnow.lab.targets` - what is chosen from, and what it is judged by;
- :mod:`~winnow.lab.measures`, :mod:`~winnow.lab.choosing` - a preset's choice, with its cost;
- :mod:`~winnow.lab.states`, :mod:`~winnow.lab.runs` - trainings from one checkpoint, each kept when it is done;
- :mod:`~winnow.lab.speed`, :mod:`~winnow.lab.compare`, :mod:`~winnow.lab.ranking`, :mod:`~winnow.lab.laws` - what the
  runs say; :mod:`~winnow.lab.tables` prints it.
"""
