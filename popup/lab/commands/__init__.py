"""What run.py offers: one command a file."""
