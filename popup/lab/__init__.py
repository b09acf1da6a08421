"""Experiments: configuration, data, training, records, the command line."""
