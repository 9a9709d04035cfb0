"""Simulating runs: which loss curve would training on these documents, in this order, give?

- :mod:`winnow.attribution.simulate.runs` - what a training loop must record, and what a planned order reads when;
- :mod:`winnow.attribution.simulate.linear` - Simfluence: two numbers for each document and query;
- :mod:`winnow.attribution.simulate.featurised` - the same two numbers from embeddings, for unseen documents too;
- :mod:`winnow.attribution.simulate.additive` - the TracIn-style baseline: any estimator's scores, summed up;
- :mod:`winnow.attribution.simulate.judging` - predicted curves against those of held-out runs.
"""
