"""Runs on disk: one run, its controls, many of them by many workers."""
