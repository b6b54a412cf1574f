"""`tiltlm sample`: answers of a model to prompts, into a file for `tiltlm judge`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tiltlm.answers.pair_file import REPORT
from tiltlm.cli.console import ConsoleReporter
from tiltlm.cli.named_runs import RUNS
from tiltlm.cli.sample_arguments import Sample
from tiltlm.config import Config, DataConfig, HubConfig, ModelConfig, RunConfig
from tiltlm.config.validation import validate
from tiltlm.data.prompt_rows import FoundPrompts, read_prompts
from tiltlm.errors import ConfigError
from tiltlm.pipeline.own_answers.asked_prompts import Asked, asked
from tiltlm.pipeline.own_answers.sampled_model import open_sampled
from tiltlm.pipeline.own_answers.sampling import SamplingAccount, SamplingSettings, sample_answers
from tiltlm.report.wording import percent
from tiltlm.runs.data_account import DroppedRow
from tiltlm.storage.whole_files import written_whole

LISTED = 10
"""Prompts left out that are shown; all of them are in the account beside the answers."""


def sample(arguments: Sample, reporter: ConsoleReporter) -> SamplingAccount:
    """Draws the answers, and says what was left out.

    Raises:
        ConfigError: a number is impossible, the output is no file, or was drawn otherwise.
        TiltlmError: the prompts or the model cannot be had, or no prompt can be asked.
    """
    sampling = SamplingSettings(arguments.answers, arguments.temperature, arguments.max_new_tokens, arguments.seed)
    if arguments.limit is not None and arguments.limit < 1:
        raise ConfigError(f"--limit must be at least 1, not {arguments.limit}.")
    output = arguments.output.expanduser()
    if output.is_dir():
        raise ConfigError(f"--output {output} is a folder: name a file.")
    prompts = Path(arguments.prompts).expanduser()
    if output.exists() and prompts.exists() and output.samefile(prompts):
        raise ConfigError(f"--output {output} is the file of the prompts itself: name another one.")
    settings = _settings(arguments)
    # Read first: a mistake in the data's name is found before a model is loaded.
    found = read_prompts(arguments.prompts, settings.data, settings.hub)
    _say_found(found, reporter)
    if not Path(arguments.model).expanduser().exists() and (RUNS / arguments.model).is_dir():
        reporter.say(f"note: {arguments.model} is taken for a model of the hub; the run is {RUNS / arguments.model}.")
    model = open_sampled(arguments.model, settings, sampling.max_new_tokens, reporter)
    room = None if model.positions is None else model.positions - sampling.max_new_tokens
    given = found.prompts[: arguments.limit]
    ready = asked(given, model.tokenizer, room, arguments.form)
    _say_asked(ready, len(given), model.tokenizer.template.name, reporter)
    if not ready.prompts:
        raise ConfigError(f"none of the {len(given)} prompts can be asked; the reasons stand above.")
    if found.dropped or ready.left_out or found.repeated:
        _write_account(output, found, ready)
    reporter.say(
        f"Drawing {sampling.answers} answers each at temperature {sampling.temperature:g}, of at most "
        f"{sampling.max_new_tokens} tokens, in {str(model.precision).removeprefix('torch.')}, into {output}"
    )
    account = sample_answers(model, ready.prompts, sampling, output, reporter)
    _say_drawn(account, sampling, output, reporter)
    return account


def _settings(arguments: Sample) -> Config:
    return validate(
        Config(
            run=RunConfig(seed=arguments.seed),
            model=ModelConfig(
                precision=arguments.precision,
                device=arguments.device,
                chat_template=arguments.chat_template,
                trust_remote_code=arguments.trust_remote_code,
            ),
            data=DataConfig(format=arguments.format, train_split=arguments.split),
            hub=HubConfig(folder=arguments.hub_folder),
        )
    )


def _say_found(found: FoundPrompts, reporter: ConsoleReporter) -> None:
    again = f", {found.repeated:,} times one that was there before" if found.repeated else ""
    reporter.say(f"{found.rows:,} rows, read as {found.how}: {len(found.prompts):,} different prompts{again}")
    for note in found.notes:
        reporter.say(f"  note: {note}")
    _say_dropped(found.dropped, "rows give no prompt", reporter)


def _say_asked(ready: Asked, given: int, template: str, reporter: ConsoleReporter) -> None:
    texts = len(ready.prompts) - ready.chats
    said = [f"{ready.chats:,} as chats, written by the {template}"] if ready.chats else []
    said += [f"{texts:,} as text that stands as it is"] if texts else []
    if said:
        reporter.say(f"{len(ready.prompts):,} of {given:,} prompts are asked: {'; '.join(said)}")
    for note in ready.notes:
        reporter.say(f"  note: {note}")
    _say_dropped(ready.left_out, "prompts are left out", reporter)


def _say_dropped(rows: Sequence[DroppedRow], what: str, reporter: ConsoleReporter) -> None:
    if not rows:
        return
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in Counter(row.reason for row in rows).most_common())
    reporter.say(f"  {len(rows):,} {what} ({reasons}):")
    for row in rows[:LISTED]:
        reporter.say(f"    {row.id}: {row.reason}: {row.detail}")
    if len(rows) > LISTED:
        reporter.say(f"    ... and {len(rows) - LISTED:,} more, in the account beside the answers")


def _write_account(output: Path, found: FoundPrompts, ready: Asked) -> None:
    """What was left out, row by row."""
    left_out = [{"id": row.id, "reason": row.reason, "detail": row.detail} for row in (*found.dropped, *ready.left_out)]
    record = {
        "rows": found.rows,
        "different_prompts": len(found.prompts),
        "repeated": found.repeated,
        "asked": len(ready.prompts),
        "left_out": left_out,
        "notes": [*found.notes, *ready.notes],
    }
    place = output.with_name(output.name + REPORT)
    place.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(place) as unfinished:
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def _say_drawn(account: SamplingAccount, settings: SamplingSettings, output: Path, reporter: ConsoleReporter) -> None:
    before = f" ({account.before:,} were there before)" if account.before else ""
    cut = account.answers - account.ended
    reporter.say(
        f"{output} has {account.answers:,} answers to {account.prompts:,} prompts{before}, "
        f"{account.tokens / account.answers:.1f} tokens on average"
    )
    if cut:
        reporter.say(
            f"  {cut:,} ({percent(cut / account.answers)}) were cut at {settings.max_new_tokens} tokens before they "
            "ended: training learns no end from them. --max-new-tokens gives more room."
        )
    reporter.say(f"Next: tiltlm judge {output}")
