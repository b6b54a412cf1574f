"""How a run went and what came of it: `outcome.json`, `evaluation.json`, `summary.json`.

A field that may be None was not measured: the run was interrupted before, or was told not to, or has nothing to measure
it on. Log-probabilities are in nats, intervals cover 95%.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tiltlm.runs.estimates import AnswerStatistics, Divergence, Estimate, Interval
from tiltlm.runs.held_out_pairs import HeldOutPair
from tiltlm.runs.objective_record import ObjectiveRecord
from tiltlm.runs.question_answers import QuestionAnswer
from tiltlm.runs.rows import EvalRow
from tiltlm.runs.seen_pairs import SeenPairs


@dataclass(frozen=True, slots=True)
class Check:
    """A start-up check on the first real batch."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """That a run which had ended, or was killed, went on.

    step: optimizer steps taken before. unused: checkpoints of later steps that could not be gone on from.
    differences: what was allowed to be another than before, and what is another without changing more than rounding.
    repeatable: whether the device's kernels give the same bits each time.
    """

    step: int
    unused: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    repeatable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`outcome.json`: how far the run came; rewritten as it goes on.

    status: `running` until it ends, then `completed`, `interrupted` or `failed`. A file that still says `running`
        after the program ended was left by one that was killed.
    stage: the last stage begun. message: what ended a run that failed.
    seconds: the run's duration until then; stages: that of each stage. Both without the time when nothing ran.
    resumed: when the run went on.
    """

    status: str
    stage: str | None = None
    message: str | None = None
    checks: tuple[Check, ...]
    seconds: float
    stages: dict[str, float]
    peak_memory_gib: float | None = None
    resumed: tuple[Resumption, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """`evaluation.json`: the saved model on the held-out examples, read back from its files, in float32.

    saved_as: the type of the saved weights.
    running: the statistics that the objective keeps from step to step, as training left them: its losses are of these.
    margin: mean reward margin. Intervals here are over prompts.
    chosen_logp_change, rejected_logp_change: from the model as loaded, nats a completion. None where its
        log-probabilities were not taken, or no example has such an answer.
    chosen_token_change, rejected_token_change: the same a token: the mean over completions of each one's mean.
    loss_change: mean loss less that of the model as loaded.
    start_gap: how far policy and reference are apart before training, a token: the mean over completions of
        |log pi(y|x) - log pi_ref(y|x)| / |y|, in nats. None where the objective needs no reference.
    start_margin: mean reward margin before training.
    seen: training pairs, for comparison.
    trained_margin: margin of the weights as trained, before they were rounded to `saved_as`; None where they were not.
    survived: the saved model's margin as a share of that.
    pairs: the held-out pairs one by one; none in files that did not record them, or where examples are no pairs.
    """

    saved_as: str
    figures: EvalRow
    running: dict[str, float] = field(default_factory=dict)
    margin: Estimate | None = None
    chosen_logp_change: Estimate | None = None
    rejected_logp_change: Estimate | None = None
    chosen_token_change: Estimate | None = None
    rejected_token_change: Estimate | None = None
    loss_change: Estimate | None = None
    start_gap: Estimate | None = None
    start_margin: Estimate | None = None
    seen: SeenPairs | None = None
    trained_margin: float | None = None
    survived: Estimate | None = None
    pairs: tuple[HeldOutPair, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the sampled answers to the counted prompts show.

    Intervals treat prompts as independent, not the samples of one prompt. `kl` is at temperature 1,
    `kl_at_temperature` at the sampling temperature where that is another. The changes are from before to after, prompt
    by prompt: of the length in tokens, of the share of repeated word trigrams, and of -log pi_ref per token.

    win_rate: share of comparisons in which an answer after has a higher reward than one before, ties as halves. Each is
        compared with each of its prompt; in files that record neither of the next two, with the one in its place.
    length_controlled_win_rate: what the win rate would be of answers of one length.
    length_controlled_win_rate_why: why that is missing where there are rewards, as a clause.
    """

    counted_prompts: int | None = None
    reward_before: Estimate | None = None
    reward_after: Estimate | None = None
    reward_difference: Estimate | None = None
    win_rate: float | None = None
    win_rate_interval: Interval | None = None
    length_controlled_win_rate: Estimate | None = None
    length_controlled_win_rate_why: str | None = None
    kl: Divergence | None = None
    kl_at_temperature: Divergence | None = None
    answers_before: AnswerStatistics | None = None
    answers_after: AnswerStatistics | None = None
    length_change: Estimate | None = None
    repetition_change: Estimate | None = None
    surprise_change: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingFigures:
    """What was trained, how far it came, and what the held-out examples show of it.

    status, message: see Outcome. completed: whether the run came to its end.
    loss, loss_settings: the objective and its settings. beta: that setting, where the objective has one.
    objective: what else the run's files say of it; None of a run of before version 0.4.
    train_pairs, eval_pairs: how many examples, pairs or others.
    eval_*: of the saved model, in float32; see Evaluation. eval_loss_change: its `loss_change`.
    training_margin: the last held-out margin in the arithmetic of training.
    reward: the known reward of the answers.
    """

    run: str
    completed: bool
    status: str | None = None
    message: str | None = None
    model: str
    reference: str | None = None
    loss: str
    beta: float | None = None
    loss_settings: dict[str, object] = field(default_factory=dict)
    objective: ObjectiveRecord | None = None
    steps: int | None = None
    epochs: float | None = None
    train_pairs: int | None = None
    eval_pairs: int | None = None
    first_loss: float | None = None
    final_loss: float | None = None
    eval_loss: float | None = None
    eval_loss_change: Estimate | None = None
    eval_accuracy: float | None = None
    eval_accuracy_interval: Interval | None = None
    eval_margin: float | None = None
    eval_margin_interval: Interval | None = None
    chosen_logp_change: Estimate | None = None
    rejected_logp_change: Estimate | None = None
    training_margin: float | None = None
    saved_as: str | None = None
    survived: Estimate | None = None
    reward: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFigures:
    """A stage before the last one, in figures; see TrainingFigures.

    place: its folder, seen from that of the whole run.
    """

    name: str
    place: str
    completed: bool
    model: str
    loss: str
    steps: int | None = None
    train_pairs: int | None = None
    eval_loss: float | None = None
    eval_accuracy: float | None = None
    eval_margin: float | None = None
    chosen_logp_change: Estimate | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Summary(Figures, TrainingFigures):
    """`summary.json`: the run in figures, all of which can be had again from the run's other files.

    What its parts hold is said there; here is what the run cost, and its answers to what is asked of every run.
    seconds, stages, peak_memory_gib, checks, resumed: see Outcome.
    earlier: the stages before this one, where it is the last of several.
    """

    seconds: float | None = None
    stages: dict[str, float] | None = None
    pairs_per_second: float | None = None
    tokens_per_second: float | None = None
    peak_memory_gib: float | None = None
    checks: tuple[Check, ...] | None = None
    resumed: tuple[Resumption, ...] = ()
    questions: tuple[QuestionAnswer, ...] = ()
    earlier: tuple[StageFigures, ...] = ()
