"""Trainings that follow one another: recipes of stages, and rounds."""
