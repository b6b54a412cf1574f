"""Settings that several objectives have in common, each with its range and its one text."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Pull = Annotated[
    float, Field(gt=0, description="Strength of the pull towards the reference: reward per nat of log-ratio.")
]
Smoothing = Annotated[float, Field(ge=0, lt=0.5, description="Assumed share of flipped labels, below 0.5.")]
NllWeight = Annotated[
    float, Field(ge=0, description="Weight of the chosen answer's negative log-likelihood, beside what compares.")
]
