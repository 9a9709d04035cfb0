"""Data attribution: what adding one document does to a model's loss on a reference set.

Sign everywhere: **positive influence = helpful**, a gradient step on the document lowers the reference loss.

- :mod:`winnow.attribution.influence` - gradient influence of any number of documents at one checkpoint;
- :mod:`winnow.attribution.estimators` - how the reference gradient is preconditioned; one file a method;
- :mod:`winnow.attribution.oracle` - the slow truth: take the optimiser step, measure the reference again;
- :mod:`winnow.attribution.group_oracle`, ``untrac`` - ten such steps in company; unlearning documents or sources;
- :mod:`winnow.attribution.simulate` - the loss curve that training on a manifest would give;
- :mod:`winnow.attribution.surrogates` - from a few probes to a score for every document;
- :mod:`winnow.attribution.capture`, ``curvature``, ``batching`` - the machinery below.

No module here imports torch before a function needs it.
"""
