"""Objectives of which each stands for those that need the same of a run, for tests that train one after another."""

from __future__ import annotations

from tiltlm.objectives import OBJECTIVES

ONE_OF_EACH = list(
    {(OBJECTIVES[name].needs, OBJECTIVES[name].running is not None): name for name in [*OBJECTIVES, "sigmoid"]}.values()
)
"""Names: one for each set of needs. What differs between objectives of like needs is a function, tested as such."""
