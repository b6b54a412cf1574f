"""A run, part by part."""
