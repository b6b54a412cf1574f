"""The first part: examples, read, tokenized and accounted for."""

from __future__ import annotations

from dataclasses import dataclass

from tiltlm.config.validation import require_warmup
from tiltlm.data.conversion import GivenRows
from tiltlm.data.preparation import PreparedData, prepare_data, read_data
from tiltlm.evaluation.comparison import Prompt
from tiltlm.evaluation.prompts import extra_prompts, held_out_prompts
from tiltlm.model.scorer import Scorer
from tiltlm.model.vocabulary import require_embedded, require_examples_embedded, require_examples_known
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, prompt_room
from tiltlm.storage.cache import TOKENS, cache_folder
from tiltlm.training.step_plans import total_steps


@dataclass(frozen=True, slots=True)
class Given:
    """Rows in memory for training and evaluation; None: those that the settings name."""

    train: GivenRows | None = None
    eval: GivenRows | None = None


NOTHING = Given()


def prepare(setup: Setup, reporter: Reporter, given: Given = NOTHING) -> PreparedData:
    """Training and held-out examples of a run's settings, with the account of every row.

    What cannot be done with them is found out before the work, not after it.

    Args:
        given: rows in memory, in place of what the settings name.

    Raises:
        DataError: data is missing, in no known format, or nothing usable is left.
        ModelError: a token of the data has no embedding.
        ConfigError: a setting has no effect on this data, the warm-up is longer than the run, or a prompt to be
            answered is refused by the model's chat template.
    """
    needs = setup.objective.needs
    read = read_data(setup.config, needs, given.train, given.eval)
    with reporter.progress("tokenizing", len(read.train) + len(read.held_out), "examples") as advance:
        data = prepare_data(read, setup.tokenizer, advance, cache_folder() / TOKENS)
    for source in data.report.sources:
        reporter.say(
            f"  {source.name} ({source.role}): {source.rows} rows read as `{source.format}` "
            f"({source.format_why}), {source.pairs} {read.noun}s"
            + (f", weight {source.weight:g}" if source.weight is not None else "")
        )
    dropped = data.report.dropped
    if dropped.count:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.by_reason.items())
        reporter.say(f"  dropped {dropped.count}, each listed in data_report.json: {reasons}")
    for finding in data.report.quality.findings if data.report.quality is not None else ():
        if finding.look:
            reporter.say(f"  look at: {finding.topic}: {finding.sentence}")
    for note in data.report.notes:
        reporter.say(f"  note: {note}")
    reporter.say(f"  {len(data.train)} {read.noun}s to train on, {len(data.eval)} held out")
    require_warmup(total_steps(setup.config.training, len(data.train)), setup.config.training)
    extra_prompts(setup.config.comparison.extra_prompts, data.report.chat, setup.tokenizer, prompt_room(setup))
    if setup.rows is not None:
        for part in (data.train, data.eval):
            require_examples_known(setup.rows, setup.tokenizer.tokenizer, part)
    return data


def asked(setup: Setup, data: PreparedData) -> list[Prompt]:
    """The prompts that a run answers before and after training."""
    comparison, room = setup.config.comparison, prompt_room(setup)
    return [
        *held_out_prompts(data.eval_rendered, comparison.prompts, setup.tokenizer, room),
        *extra_prompts(comparison.extra_prompts, data.report.chat, setup.tokenizer, room),
    ]


def require_vocabulary(setup: Setup, scorer: Scorer, data: PreparedData) -> None:
    """Makes sure that a model knows every token of the examples and of the prompts given by hand.

    Raises:
        ModelError: it lacks one.
    """
    comparison, room = setup.config.comparison, prompt_room(setup)
    extra = extra_prompts(comparison.extra_prompts, data.report.chat, setup.tokenizer, room)
    for part in (data.train, data.eval):
        require_examples_embedded(scorer.model, setup.tokenizer.tokenizer, part)
    require_embedded(scorer.model, setup.tokenizer.tokenizer, ((prompt.id, prompt.ids) for prompt in extra))
