"""Learning the scores of one network: batches, the loop, precision, checkpoints."""
