"""Checkpoints: the whole state of training in files from which it goes on as if it had never stopped."""
