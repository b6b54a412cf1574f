"""What the files of a run hold, as types. Log-probabilities are in nats, intervals cover 95%.

A field that may be None was not measured: the run was interrupted before, or was told not to.
"""

from __future__ import annotations

from dataclasses import dataclass

Interval = tuple[float, float]
# The settings as the trainer wrote them: section, option, value.
Settings = dict[str, dict[str, object]]


@dataclass(frozen=True, slots=True)
class Environment:
    """`environment.json`: how and where the run was started."""

    command: tuple[str, ...]
    versions: dict[str, str | None]
    device: str | None
    precision: str | None
    git_commit: str | None
    started: str
    platform: str | None


@dataclass(frozen=True, slots=True)
class TrainRow:
    """One optimizer step: means over its pairs. Rewards are implicit rewards, beta * (log pi - log pi_ref).

    accuracy: share of pairs whose chosen reward is above the rejected one; a tie counts half.
    gradient_norm: before clipping. tokens: columns laid out, shared prompts once, padding included.
    seconds: the step's own time.
    """

    step: int
    epoch: float
    loss: float
    chosen_reward: float
    rejected_reward: float
    margin: float
    accuracy: float
    chosen_logp: float
    rejected_logp: float
    gradient_norm: float
    learning_rate: float
    pairs: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EvalRow:
    """One evaluation on the held-out pairs, after `step` optimizer steps.

    accuracy_interval: Wilson's; its trials are prompts where several pairs have one prompt.
    """

    step: int
    epoch: float
    pairs: int
    loss: float
    chosen_reward: float
    rejected_reward: float
    margin: float
    accuracy: float
    accuracy_interval: Interval | None
    chosen_logp: float
    rejected_logp: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """`metrics.jsonl`, in the order it was written."""

    train: tuple[TrainRow, ...]
    evaluations: tuple[EvalRow, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A place preference pairs were read from, and the layout its rows were recognised to have.

    unused_columns: columns, and keys within columns, that went into no pair, and in how many rows they hold something.
    """

    role: str
    name: str
    format: str
    format_why: str | None
    rows: int
    pairs: int
    files: tuple[str, ...]
    unused_columns: dict[str, int] | None


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in tokens."""

    mean: float
    median: float
    max: int


@dataclass(frozen=True, slots=True)
class Split:
    """Training or held-out pairs. `chosen_longer`: share of pairs whose chosen completion is the longer one.

    prompts_cut, completions_cut: how many lost tokens to fit; a pair has two completions.
    """

    pairs: int
    prompts: int
    prompt_tokens: Lengths | None
    chosen_tokens: Lengths | None
    rejected_tokens: Lengths | None
    chosen_longer: float | None
    prompts_cut: int
    completions_cut: int | None
    tokens_laid_out: int | None
    tokens_without_sharing: int | None


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row or pair that was not used, and why."""

    id: str
    reason: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """Everything that was not used."""

    count: int
    by_reason: dict[str, int]
    list: tuple[DroppedRow, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """An example as the model sees it: the texts of its tokens, cut as they are cut.

    chosen, rejected: of a single labelled completion one of them; None is the other.
    prompt: what precedes the first scored token. rejected_prompt: the same of rejected, where it differs.
    Of what was cut, the prompt's tokens stood before it (after the system's message in a chat), a completion's after.
    """

    id: str
    prompt: str
    chosen: str | None
    rejected: str | None
    rejected_prompt: str | None = None
    prompt_tokens_cut: int | None = None
    chosen_tokens_cut: int | None = None
    rejected_tokens_cut: int | None = None


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that is true of the pairs of these ids, all of which are used."""

    what: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataReport:
    """`data_report.json`. `chat`: prompts are chats, rendered by the model's template (or a plain one).

    remarks: what the notes count, with every pair it is true of.
    """

    sources: tuple[Source, ...]
    train: Split | None
    eval: Split | None
    dropped: Dropped
    notes: tuple[str, ...]
    examples: tuple[Example, ...]
    chat: bool
    remarks: tuple[Remark, ...] | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over prompts and its interval."""

    mean: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL(policy || reference) in nats per answer, estimated on `samples` answers of the policy.

    temperature: of both distributions and of the answers. At 1 they are the models themselves, and this is what was
        paid for the reward: the second term of theory.pdf, eq. 1 (objective). None: the sampling temperature, in files
        that did not record it.
    """

    mean: float
    standard_error: float | None
    samples: int
    temperature: float | None


@dataclass(frozen=True, slots=True)
class AnswerStatistics:
    """Means over sampled answers: length in tokens, share of repeated word trigrams, -log pi_ref per token.

    log pi_ref is at the sampling temperature, as the answers are. What `surprise` can and cannot tell of who wrote the
    answers: theory.pdf, Proposition 18 (surprise).
    """

    tokens: float
    repetition: float
    surprise: float


@dataclass(frozen=True, slots=True)
class Check:
    """A start-up check on the first real batch."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """`outcome.json`: how far the run came; rewritten as it goes on.

    status: `running` until it ends, then `completed`, `interrupted` or `failed`. A file that still says `running`
        after the program ended was left by one that was killed.
    stage: the last stage begun. message: what ended a run that failed.
    seconds: the run's duration until then; stages: that of each stage.
    """

    status: str
    stage: str | None
    message: str | None
    checks: tuple[Check, ...]
    seconds: float
    stages: dict[str, float]
    peak_memory_gib: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`evaluation.json`: the saved model on the held-out pairs, read back from its files, in float32.

    saved_as: the type of the saved weights.
    margin: mean implicit reward margin. Intervals here are over prompts.
    chosen_logp_change, rejected_logp_change: from the model as loaded, nats a completion.
    trained_margin: margin of the weights as trained, before they were rounded to `saved_as`; None where they were not.
    survived: the saved model's margin as a share of that.
    """

    saved_as: str
    figures: EvalRow
    margin: Estimate
    chosen_logp_change: Estimate
    rejected_logp_change: Estimate
    trained_margin: float | None
    survived: Estimate | None


@dataclass(frozen=True, slots=True)
class Summary:
    """`summary.json`: the run in figures, all of which can be had again from the run's other files.

    status, message: see Outcome. completed: whether the run came to its end.
    eval_*: of the saved model, in float32; see Evaluation.
    training_margin: the last held-out margin in the arithmetic of training.
    kl: at temperature 1. kl_at_temperature: at the sampling temperature, where that is another.
    """

    run: str
    completed: bool
    status: str | None
    message: str | None
    model: str
    reference: str | None
    loss: str
    beta: float
    steps: int | None
    epochs: float | None
    train_pairs: int | None
    eval_pairs: int | None
    first_loss: float | None
    final_loss: float | None
    eval_loss: float | None
    eval_accuracy: float | None
    eval_accuracy_interval: Interval | None
    eval_margin: float | None
    eval_margin_interval: Interval | None
    chosen_logp_change: Estimate | None
    rejected_logp_change: Estimate | None
    training_margin: float | None
    saved_as: str | None
    survived: Estimate | None
    reward: str | None
    reward_before: Estimate | None
    reward_after: Estimate | None
    reward_difference: Estimate | None
    win_rate: float | None
    win_rate_interval: Interval | None
    kl: Divergence | None
    kl_at_temperature: Divergence | None
    answers_before: AnswerStatistics | None
    answers_after: AnswerStatistics | None
    counted_prompts: int | None
    seconds: float | None
    stages: dict[str, float] | None
    pairs_per_second: float | None
    tokens_per_second: float | None
    peak_memory_gib: float | None
    checks: tuple[Check, ...] | None


@dataclass(frozen=True, slots=True)
class ComparisonSettings:
    """How the answers were generated; `reward` is `none` where no known reward scored them."""

    max_new_tokens: int
    temperature: float
    samples: int
    seed: int
    reward: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated answer.

    reference_logp: log pi_ref(y|x), the sum over its tokens.
    log_ratio: log pi(y|x) - log pi_ref(y|x); for the trained model's samples alone, where it estimates the KL.
    Both are those of the distributions that answers are drawn from, at the sampling temperature.
    """

    text: str
    tokens: int
    reward: float | None
    reference_logp: float | None
    log_ratio: float | None


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model answers to one prompt."""

    greedy: Answer
    samples: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class ComparedPrompt:
    """A prompt answered before and after training. Where `counted` is False it is shown, but in no figure.

    plain_log_ratios: log pi(y|x) - log pi_ref(y|x) of further answers of the trained model, drawn and scored at
        temperature 1 and not kept, where the samples have another temperature.
    """

    id: str
    prompt: str
    counted: bool
    before: Answers
    after: Answers
    plain_log_ratios: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`comparison.json`."""

    settings: ComparisonSettings
    prompts: tuple[ComparedPrompt, ...]
