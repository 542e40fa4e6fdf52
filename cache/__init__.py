"""The store between the two stages: cohorts, links, shards, checkpoints."""
