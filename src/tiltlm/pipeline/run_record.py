"""How a run goes, kept in its folder as it goes: whatever ends it, what it did can be told."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from tiltlm.model.adapter_files import ADAPTER
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.saved_models.model_card import model_card
from tiltlm.report.summary import summarise
from tiltlm.runs.environment import peak_memory_gib
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.outcomes import Check, Outcome, Resumption, Summary
from tiltlm.runs.run_files import read_run
from tiltlm.storage.whole_files import written_whole


class RunRecord:
    """Keeps `outcome.json` current from the run's first moment, and draws `summary.json` from the run's files."""

    def __init__(
        self, folder: RunFolder, device: torch.device, reporter: Reporter, earlier: Outcome | None = None
    ) -> None:
        """earlier: how the run ended before it went on; what it took then is counted too."""
        self._earlier = earlier
        self._resumed = earlier.resumed if earlier is not None else ()
        self._checks: tuple[Check, ...] = ()
        self._folder = folder
        self._device = device
        self._reporter = reporter
        self._stage: str | None = None
        # The stages before the folder was there count too.
        self._start = time.perf_counter() - sum(reporter.stages.values())
        self._write("running", None)

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """A stage of the work, announced and timed."""
        self._stage = name
        self._write("running", None)
        with self._reporter.stage(name, title):
            yield

    def current_stage(self) -> str:
        """The last stage begun."""
        return self._stage or "model"

    def status(self) -> str:
        """How the run ended: `running` until it has."""
        return self._status

    def checked(self, checks: Sequence[Check]) -> None:
        """Keeps the start-up checks."""
        self._checks = tuple(checks)
        self._write("running", None)

    def went_on(self, resumption: Resumption) -> None:
        """Keeps that the run went on."""
        self._resumed = (*self._resumed, resumption)
        self._write("running", None)

    def end(self, status: str, message: str | None) -> Summary:
        """Writes how the run ended, the summary, and the card of the model where one was saved."""
        self._write(status, message)
        return conclude(self._folder)

    def _write(self, status: str, message: str | None) -> None:
        self._status = status
        before, stages = self._earlier, dict(self._reporter.stages)
        if before is not None:
            names = [*before.stages, *stages]
            stages = {name: before.stages.get(name, 0.0) + stages.get(name, 0.0) for name in names}
        outcome = Outcome(
            status=status,
            stage=self._stage,
            message=message,
            checks=self._checks,
            seconds=time.perf_counter() - self._start + (before.seconds if before is not None else 0.0),
            stages=stages,
            peak_memory_gib=self._peak_memory(),
            resumed=self._resumed,
        )
        self._folder.write_json("outcome.json", outcome)

    def _peak_memory(self) -> float | None:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**30
        return peak_memory_gib()


def conclude(folder: RunFolder) -> Summary:
    """Draws a run's summary from its other files, and writes the card of the model where one was saved."""
    run = read_run(folder.path)
    summary = summarise(run)
    folder.write_json("summary.json", summary)
    if folder.model.is_dir():
        with written_whole(folder.model / "README.md") as file:
            file.write_text(model_card(run, summary, (folder.model / ADAPTER).is_file()), encoding="utf-8")
    return summary
