"""Plots, a page and a verdict in words, rebuilt at any time from the files of a run alone."""
