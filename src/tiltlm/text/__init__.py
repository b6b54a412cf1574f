"""Texts as they may be shown: hidden characters made visible, secrets masked."""
