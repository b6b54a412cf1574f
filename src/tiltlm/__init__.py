"""tiltlm: Direct Preference Optimization of language models, small, fast and honest.

    import tiltlm

    run = tiltlm.train({"training": {"max_steps": 100}}, model="gpt2", train="pairs.jsonl")
    print(run.summary.eval_margin, run.model)

Public are the names in `__all__`, and the sections of the settings in `tiltlm.config`; they are imported when they are
first used, so that `import tiltlm` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tiltlm.version import __version__ as __version__

if TYPE_CHECKING:
    from tiltlm.api.completion_scores import CompletionScore, score
    from tiltlm.api.loss_values import loss
    from tiltlm.api.whole_runs import compare, frontier, inspect, train
    from tiltlm.api.whole_sweeps import sweep
    from tiltlm.config import Config
    from tiltlm.errors import TiltlmError
    from tiltlm.objectives.functions import objective
    from tiltlm.objectives.interface import (
        CHOSEN,
        MISMATCHED,
        REJECTED,
        SETTINGS,
        LossOutput,
        Needs,
        Objective,
        ReferenceUpdate,
        Running,
        Scored,
        sides,
    )
    from tiltlm.pipeline.run import Run
    from tiltlm.pipeline.sweeps.sweep import Sweep
    from tiltlm.runs.rows import EvalRow, TrainRow

__all__ = [
    "CHOSEN",
    "MISMATCHED",
    "REJECTED",
    "SETTINGS",
    "CompletionScore",
    "Config",
    "EvalRow",
    "LossOutput",
    "Needs",
    "Objective",
    "ReferenceUpdate",
    "Run",
    "Running",
    "Scored",
    "Sweep",
    "TiltlmError",
    "TrainRow",
    "compare",
    "frontier",
    "inspect",
    "loss",
    "objective",
    "score",
    "sides",
    "sweep",
    "train",
]

_INTERFACE = "tiltlm.objectives.interface"
_HOMES = {
    "CHOSEN": _INTERFACE,
    "MISMATCHED": _INTERFACE,
    "REJECTED": _INTERFACE,
    "SETTINGS": _INTERFACE,
    "LossOutput": _INTERFACE,
    "Needs": _INTERFACE,
    "ReferenceUpdate": _INTERFACE,
    "Running": _INTERFACE,
    "Scored": _INTERFACE,
    "sides": _INTERFACE,
    "objective": "tiltlm.objectives.functions",
    "CompletionScore": "tiltlm.api.completion_scores",
    "Config": "tiltlm.config",
    "EvalRow": "tiltlm.runs.rows",
    "Objective": _INTERFACE,
    "Run": "tiltlm.pipeline.run",
    "Sweep": "tiltlm.pipeline.sweeps.sweep",
    "TiltlmError": "tiltlm.errors",
    "TrainRow": "tiltlm.runs.rows",
    "compare": "tiltlm.api.whole_runs",
    "frontier": "tiltlm.api.whole_runs",
    "inspect": "tiltlm.api.whole_runs",
    "loss": "tiltlm.api.loss_values",
    "score": "tiltlm.api.completion_scores",
    "sweep": "tiltlm.api.whole_sweeps",
    "train": "tiltlm.api.whole_runs",
}
"""The module that each public name is defined in."""


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module `tiltlm` has no attribute `{name}`")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
