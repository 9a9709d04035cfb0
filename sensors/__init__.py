"""WHEN: new files become a shard partition, new checkpoints a checkpoint partition, and either becomes a manifest."""
