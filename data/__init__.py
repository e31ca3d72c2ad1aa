"""From text to batches: sources, shards, plans and the Grain pipeline."""
