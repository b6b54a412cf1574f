"""A benchmark of training speed: every system in turn, round after round, each time in a process of its own."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from tiltlm.bench.arithmetic import forward_cost, step_work
from tiltlm.bench.job import Job, of_one_prompt, write_pairs
from tiltlm.bench.one_training import PEAK, REFERENCE
from tiltlm.bench.processes import FailedError, run_ours, run_trl, why_no_trl
from tiltlm.bench.speed_record import Measured, SpeedRecord, with_figures
from tiltlm.bench.systems import QUOTIENTS, SYSTEMS, System
from tiltlm.bench.wanted import Wanted
from tiltlm.config import Config, settings_table
from tiltlm.data.preparation import read_data
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample
from tiltlm.errors import ConfigError, DataError
from tiltlm.model.attention import choose_attention, layout_of, why_not_shareable
from tiltlm.model.soundness import without_weights
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, device_name, require_sound_models, set_up
from tiltlm.runs.environment import describe_environment, processor_name
from tiltlm.text.masking import masked

READ_AT_ONCE = 256
"""Examples tokenized at a time, until enough of them can be used."""


def benchmark(config: Config, wanted: Wanted, command: Sequence[str], reporter: Reporter) -> SpeedRecord:
    """Measures the systems, and gives the record with its figures.

    Args:
        command: what was typed, for the record.

    Raises:
        ConfigError: a setting has no effect on a benchmark.
        DataError: there are fewer pairs than are needed.
        FailedError: our own training failed; where another's does it is left out.
    """
    _require_comparable(config, wanted)
    setup = set_up(config)
    require_sound_models(setup)
    columns = _pairs(setup, wanted, reporter)
    model = without_weights(setup.source)
    if model is not None:
        choose_attention(model)
    cost = None if model is None else forward_cost(model)
    work = tuple(step_work(cost, columns, range(n * wanted.batch, (n + 1) * wanted.batch)) for n in range(wanted.steps))
    left_out = {}
    if model is not None and (unshared := why_not_shareable(model)) is not None:
        left_out = dict.fromkeys(("no-sharing", "no-packing"), f"prompts are not shared with this model: {unshared}")
    before = _load()
    with tempfile.TemporaryDirectory() as scratch:
        write_pairs(Path(scratch, "pairs.jsonl"), columns)
        rounds = _Rounds(setup, wanted, Path(scratch), left_out, reporter)
        rounds.run()
    record = SpeedRecord(
        environment=describe_environment(tuple(command), _device(setup), setup.precision_why),
        model=masked(config.model.path),
        data=masked(config.data.places),
        batch=wanted.batch,
        steps=wanted.steps,
        rounds=wanted.rounds,
        precision=str(setup.precision).removeprefix("torch."),
        micro_batch_tokens=config.training.token_budget,
        max_length=config.data.max_length,
        load_before=before,
        load_after=_load(),
        work=work[1:],
        peaks=tuple(rounds.peaks),
        measured=tuple(rounds.measured),
        left_out=rounds.left_out,
    )
    return with_figures(record, SYSTEMS, {one.name for one in SYSTEMS.values() if one.live}, QUOTIENTS)


def without_effect(model: PreTrainedModel, device: torch.device) -> dict[str, str]:
    """The ablations by which nothing would change, with why; the model has the attention that ours gives it."""
    layout = layout_of(model, device)
    if not layout.trees:
        why = f"this model is run one sequence a row, as {why_not_shareable(model)}"
        return dict.fromkeys(("no-sharing", "no-packing", "dense-mask"), why)
    return {} if layout.blocks else {"dense-mask": f"attention on the {device.type} is under a dense mask anyway"}


class _Rounds:
    """Systems in turn. measured, peaks, left_out: what came of it."""

    def __init__(
        self, setup: Setup, wanted: Wanted, scratch: Path, left_out: dict[str, str], reporter: Reporter
    ) -> None:
        self._setup, self._wanted, self._scratch, self._reporter = setup, wanted, scratch, reporter
        self.measured: list[Measured] = []
        self.peaks: list[float] = []
        self.left_out: dict[str, str] = {}
        for system in wanted.systems:
            if (why := left_out.get(system.name) or self._why_not(system)) is not None:
                self._leave_out(system, why)

    def run(self) -> None:
        """Measures all, round after round, each beginning with another system: a machine that gets slower then does so
        for all.
        """
        systems = [one for one in self._wanted.systems if one.name not in self.left_out]
        known = [one for one in systems if one.maker == "ours" and not one.live]
        references = list({one.precision: one for one in known}.values())
        total = len(references) + self._wanted.rounds * (len(systems) + 1)
        with self._reporter.progress("measuring", total, "processes") as advance:
            for system in references:
                run_ours(REFERENCE, self._job(system))
                advance(1)
            for number in range(self._wanted.rounds):
                self.peaks += [peak] if (peak := run_ours(PEAK, self._job(None)).peak) else []
                advance(1)
                first = number % len(systems)
                for system in systems[first:] + systems[:first]:
                    if system.name not in self.left_out:
                        self._measure(system, number + 1)
                    advance(1)

    def _measure(self, system: System, number: int) -> None:
        job = self._job(system)
        try:
            if system.maker == "trl":
                result = run_trl(system, job, self._setup, self._wanted.trl_python)
            else:
                result = run_ours(system.name, job)
        except FailedError as error:
            if system.name in ("ours", "ours-live"):
                raise
            self._leave_out(system, f"it failed: {error}")
            return
        assert result.timed is not None
        one = Measured(system.name, number, result.timed)
        self.measured.append(one)
        rate = self._wanted.batch * (self._wanted.steps - 1) / result.timed.counted_seconds
        self._reporter.say(f"  round {number}: {system.words}: {rate:.3g} pairs a second")

    def _leave_out(self, system: System, why: str) -> None:
        self.left_out[system.name] = why
        self.measured = [one for one in self.measured if one.system != system.name]
        self._reporter.say(f"  left out: {system.words}: {why}")

    def _job(self, system: System | None) -> Job:
        config = self._setup.config
        if system is not None and system.precision is not None:
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, precision=system.precision))
        return Job(
            settings=settings_table(config),
            pairs=str(self._scratch / "pairs.jsonl"),
            reference=str(self._scratch / "reference"),
            steps=self._wanted.steps,
            batch=self._wanted.batch,
        )

    def _why_not(self, system: System) -> str | None:
        if system.maker == "trl":
            return why_no_trl(self._wanted.trl_python)
        own = str(self._setup.precision).removeprefix("torch.")
        return f"{own} is the arithmetic of all" if system.precision == own else None


def _require_comparable(config: Config, wanted: Wanted) -> None:
    """Refuses settings by which the systems would not do the same work."""
    loss, training = config.loss, config.training
    refused = {
        f"loss.name {loss.name}": loss.name != "sigmoid",
        f"adapter.kind {config.adapter.kind}": config.adapter.kind != "none",
        "model.reference": config.model.reference is not None,
        f"training.optimizer {training.optimizer}": training.optimizer != "adamw",
        "training.deterministic": training.deterministic,
    }
    for option, given in refused.items():
        if given:
            raise ConfigError(
                f"{option} is not for tiltlm bench, which compares the training of all weights by the sigmoid loss and "
                "AdamW: leave it out."
            )
    if config.data.source:
        raise ConfigError(
            "data.source is not for tiltlm bench, which measures the first pairs of one: name data.train."
        )
    if wanted.steps < 2:
        raise ConfigError(f"--steps is at least 2, as the first step is not counted, not {wanted.steps}.")


def _pairs(setup: Setup, wanted: Wanted, reporter: Reporter) -> TokenColumns:
    """The first pairs of the data that can be used, in the order of the file, as many as are measured.

    Raises:
        DataError: there are fewer.
    """
    config, needed = setup.config, wanted.steps * wanted.batch
    read = read_data(dataclasses.replace(config, data=dataclasses.replace(config.data, eval=None)))
    if any(not isinstance(example.prompt, str) for example in read.train[:needed]):
        setup.tokenizer.template.require_works()
    found: list[TokenizedExample] = []
    for start in range(0, len(read.train), READ_AT_ONCE):
        columns = setup.tokenizer(read.train[start : start + READ_AT_ONCE]).examples
        found += filter(of_one_prompt, columns)
        if len(found) >= needed:
            break
    if len(found) < needed:
        raise DataError(
            f"{masked(config.data.places)} has {len(found)} pairs that can be used, and {wanted.steps} steps of "
            f"{wanted.batch} pairs need {needed}: lower --steps or --batch."
        )
    measured = TokenColumns.of(found[:needed])
    reporter.say(f"  the first {needed} pairs, {int(measured.bounds[-1]):,} tokens in {measured.sequences} sequences")
    return measured


def _device(setup: Setup) -> str:
    name = device_name(setup.device)
    return f"{processor_name()}, {name}" if setup.device.type == "cpu" else name


def _load() -> float | None:
    """Processes that ran or waited, a minute's average."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
