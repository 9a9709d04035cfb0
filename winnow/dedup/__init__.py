"""Near-duplicate detection: shingles, MinHash signatures, bands, candidate pairs, exact verification, keepers.

From arrays and texts in memory: ``winnow.dedup.groups.near_duplicate_groups(ids, keys, texts, threshold)``; its steps
are ``minhash.signatures``, ``bands.band_keys``, ``candidates.find_candidates``, ``verify.verify_pairs`` and
``keepers.assign_keepers``. On a store, without Dagster: ``winnow.stages.sketches.sketch_new_documents``,
``winnow.stages.duplicate_pairing.pair_new_documents`` and ``winnow.stages.duplicate_groups.group_duplicates``, each
``(store, stage, plan)``, with ``plan = winnow.dedup.sketch.make_plan(config.duplicates)``.
"""
