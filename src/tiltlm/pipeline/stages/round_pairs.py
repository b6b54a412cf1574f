"""The pairs of a round, or its lists: the model answers, the judge judges. What is there is not made again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tiltlm import demo
from tiltlm.answers.answer_file import read_answers
from tiltlm.answers.list_file import write_lists
from tiltlm.answers.pair_choice import Choosing
from tiltlm.answers.pair_file import REPORT, write_pairs
from tiltlm.config import Config
from tiltlm.config.loss_config import learns_lists
from tiltlm.config.round_stages import ANSWERS, JUDGED, LISTS, PAIRS
from tiltlm.data.preparation import DEMO
from tiltlm.data.prompt_rows import GivenPrompt, read_prompts
from tiltlm.data.splitting import prompt_key
from tiltlm.errors import DataError
from tiltlm.pipeline.models import starting_model
from tiltlm.pipeline.own_answers.asked_prompts import asked
from tiltlm.pipeline.own_answers.judging import AnyJudge, judge_answers
from tiltlm.pipeline.own_answers.sampled_model import SampledModel
from tiltlm.pipeline.own_answers.sampling import SamplingSettings, sample_answers
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup

SEEDS_APART = 1_000_003
"""Between the seeds of two rounds, so that no round draws by the random numbers of another."""


@dataclass(frozen=True, slots=True)
class RoundPrompts:
    """The prompts that rounds answer."""

    prompts: tuple[GivenPrompt, ...]

    def of(self, number: int, count: int | None) -> list[GivenPrompt]:
        """Those of a round, counted from 0: all of them, or the next `count`, from the first again after the last."""
        if count is None or count >= len(self.prompts):
            return list(self.prompts)
        start = number * count
        return [self.prompts[(start + place) % len(self.prompts)] for place in range(count)]


def round_prompts(config: Config, reporter: Reporter) -> RoundPrompts:
    """The different prompts of data.train that are not held out.

    Raises:
        DataError: they cannot be read, or none is left.
    """
    data = config.data
    assert data.eval is not None
    found = read_prompts(data.train, data, config.hub)
    # Of a data set in splits, which a file is not, they are another split.
    of_file = data.eval == DEMO or Path(data.eval).expanduser().is_file()
    apart = replace(data, train_split="train" if of_file else data.eval_split)
    held_out = read_prompts(str(demo.EVAL) if data.eval == DEMO else data.eval, apart, config.hub)
    taken = {prompt_key(one.prompt, one.tools) for one in held_out.prompts}
    # What stands alone becomes a chat where the model has a template, so it is compared as one.
    taken |= {_words(one) for one in held_out.prompts}
    kept = [one for one in found.prompts if not {prompt_key(one.prompt, one.tools), _words(one)} & taken]
    reporter.say(
        f"{len(found.prompts)} prompts of {data.train}, read as {found.how}; {len(found.prompts) - len(kept)} are held "
        "out and not answered"
    )
    for row in found.dropped[:10]:
        reporter.say(f"  left out: {row.id}: {row.reason}: {row.detail}")
    if not kept:
        raise DataError(f"{data.train}: no prompt is left to answer, as all of them are held out ({data.eval}).")
    return RoundPrompts(tuple(kept))


def _words(given: GivenPrompt) -> str:
    """The text of a prompt of one message."""
    if isinstance(given.prompt, str):
        return given.prompt.strip()
    return given.prompt[0].content.strip() if len(given.prompt) == 1 else prompt_key(given.prompt, given.tools)


def make_pairs(
    setup: Setup, prompts: RoundPrompts, judge: AnyJudge, number: int, folder: Path, reporter: Reporter
) -> None:
    """Makes the pairs of a round, or the lists where its loss learns from those, and says what became of the answers.

    Args:
        setup: of the round, whose model answers. number: of the round, counted from 0. folder: of the round's files.

    Raises:
        NoPairsError: no two answers to one prompt are of unlike reward.
        DataError: no prompt can be asked.
        TiltlmError: the model or the judge fails.
    """
    rounds, pairs = setup.config.rounds, folder / PAIRS
    most = rounds.max_new_tokens or setup.config.comparison.max_new_tokens
    room = None if setup.positions is None else setup.positions - most
    wanted = prompts.of(number, rounds.prompts)
    ready = asked(wanted, setup.tokenizer, room)
    for row in ready.left_out[:10]:
        reporter.say(f"  left out: {row.id}: {row.reason}: {row.detail}")
    if not ready.prompts:
        raise DataError(f"none of the {len(wanted)} prompts of this round can be asked: see above.")
    reporter.say(f"  {len(ready.prompts)} prompts, {rounds.answers} answers each, {len(ready.left_out)} left out")
    seed = (setup.config.run.seed + SEEDS_APART * (number + 1)) % 2**63
    sampling = SamplingSettings(rounds.answers, rounds.temperature, most, seed)
    model = SampledModel.of(setup.config.model.path, starting_model(setup), setup)
    folder.mkdir(parents=True, exist_ok=True)
    account = sample_answers(model, ready.prompts, sampling, folder / ANSWERS, reporter)
    reporter.say(
        f"  {account.answers} answers, {account.tokens / max(1, account.answers):.0f} tokens on average, "
        f"{account.answers - account.ended} cut at {most} tokens"
    )
    judged = judge_answers(folder / ANSWERS, folder / JUDGED, judge, reporter)
    for remark in judged.remarks:
        reporter.say(f"  {remark}")
    if judged.failed:
        reporter.say(f"  look at: {judged.failed} of {judged.answers} answers have no reward ({folder / JUDGED}: why)")
    rows, source = read_answers(folder / JUDGED), str(folder / JUDGED)
    if learns_lists(setup.config.loss.name):
        listed = write_lists(rows, folder / LISTS, source)
        reporter.say(
            f"  {listed.lists} lists of {listed.listed} answers; {sum(listed.answers_left_out.values())} answers left "
            f"out, {sum(listed.without_list.values())} prompts without a list (all in {folder / LISTS}{REPORT})"
        )
        return
    choosing = Choosing(rounds.choose, rounds.least_gap, rounds.most_pairs)
    made = write_pairs(rows, choosing, pairs, source, overwrite=True)
    left = sum(made.left_out.values())
    reporter.say(
        f"  {made.pairs} pairs of {made.with_pairs} prompts; {left} couples of answers left out, "
        f"{sum(made.without_pairs.values())} prompts without a pair (all in {pairs}{REPORT})"
    )
