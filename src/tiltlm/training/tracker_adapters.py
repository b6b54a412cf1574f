"""One small class for each tracker: how a run is started in it, told of figures, and ended. Each imports its own."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROJECT = "tiltlm"
"""What runs are filed under where the tracker's own variable of the environment says nothing else."""
PARAMETERS_AT_ONCE, LONGEST_PARAMETER = 100, 500
"""What MLflow takes in one call, and as one value."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker is told of a run when it starts.

    config: settings by `section.option`, without secrets. folder: for its files, RUN/trackers/NAME.
    group: the sweep that the run is a member of. id: by which the tracker knows a run that goes on; None: it is new.
    """

    name: str
    config: Mapping[str, Any]
    folder: Path
    group: str | None = None
    id: str | None = None


class Tracker(Protocol):
    """What is asked of a tracker. All is called in one thread of its own, which may wait for a network."""

    def start(self, run: TrackedRun) -> str:
        """Starts the run, or goes on with the one of its id. Returns the id to go on by."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Records figures of a step."""

    def finish(self, status: str) -> None:
        """Ends the run: `completed`, `interrupted` or `failed`. What was logged is handed over before it returns."""


class Trackio:
    """https://huggingface.co/docs/trackio: SQLite files below TRACKIO_DIR, which `trackio show` reads."""

    def start(self, run: TrackedRun) -> str:
        import trackio

        name = run.id or (run.name if run.group is None else f"{run.group}/{run.name}")
        self._run: Any = trackio.init(
            PROJECT,
            name=name,
            group=run.group,
            config=dict(run.config),
            resume="never" if run.id is None else "allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return str(self._run.name)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def finish(self, status: str) -> None:
        self._run.finish()


class WeightsAndBiases:
    """https://docs.wandb.ai: sent to wandb.ai, or kept in the folder with WANDB_MODE=offline."""

    def start(self, run: TrackedRun) -> str:
        import wandb

        own = run.id or secrets.token_hex(8)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(run.folder),
            id=own,
            name=run.name,
            group=run.group,
            config=dict(run.config),
            resume="allow",
        )
        return own

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def finish(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "completed" else 1)


class TensorBoard:
    """Event files in the folder, written by tensorboardX: tensorboard --logdir RUN/trackers/tensorboard."""

    def start(self, run: TrackedRun) -> str:
        from tensorboardX import SummaryWriter

        # Its own names of files tell seconds: a run that goes on within one would begin its first file anew.
        self._writer = SummaryWriter(str(run.folder), filename_suffix=f".{time.time_ns()}")
        if run.id is None:
            rows = [f"    {option} = {value!r}" for option, value in run.config.items()]
            self._writer.add_text("config", "\n".join(rows), 0)
        return run.name

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, status: str) -> None:
        self._writer.close()


class MLflow:
    """https://mlflow.org: at MLFLOW_TRACKING_URI, else an SQLite file in the folder."""

    def start(self, run: TrackedRun) -> str:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.folder / 'mlflow.db'}")
        if run.id is not None:
            self._id = run.id
            self._client.update_run(self._id, status="RUNNING")
            return self._id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        tags = {} if run.group is None else {"sweep": run.group}
        self._id = str(self._client.create_run(number, run_name=run.name, tags=tags).info.run_id)
        parameters = [Param(option, str(value)[:LONGEST_PARAMETER]) for option, value in run.config.items()]
        for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
            self._client.log_batch(self._id, params=parameters[start : start + PARAMETERS_AT_ONCE])
        return self._id

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._id, metrics=[self._metric(name, value, now, step) for name, value in figures.items()]
        )

    def finish(self, status: str) -> None:
        ended = {"completed": "FINISHED", "interrupted": "KILLED"}
        self._client.set_terminated(self._id, status=ended.get(status, "FAILED"))


class SwanLab:
    """https://docs.swanlab.cn: sent to swanlab.cn, or kept in the folder with SWANLAB_MODE=offline."""

    def start(self, run: TrackedRun) -> str:
        import swanlab

        own = run.id or secrets.token_hex(11)[:21]  # its ids have 21 characters
        self._run = swanlab.init(
            project=os.environ.get("SWANLAB_PROJECT", PROJECT),
            experiment_name=run.name,
            group=run.group,
            config=dict(run.config),
            logdir=str(run.folder),
            id=own,
            resume="allow",
        )
        return own

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def finish(self, status: str) -> None:
        self._run.finish()


ADAPTERS: dict[str, Callable[[], Tracker]] = {
    "trackio": Trackio,
    "wandb": WeightsAndBiases,
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "swanlab": SwanLab,
}
"""How to speak to each tracker of `run.trackers`."""
