"""A run's folder: its files as types, how they are written, how they are read back. Knows no torch."""
