"""Answers to prompts in files: drawn from a model, judged, and made into pairs. Knows no torch."""
