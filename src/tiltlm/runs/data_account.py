"""`data_report.json`: what was read, what is used, what is not and why."""

from __future__ import annotations

from dataclasses import dataclass

from tiltlm.runs.estimates import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place preference pairs were read from, and the layout its rows were recognised to have.

    role: `train` or `eval`. files: the local files.
    unused_columns: columns, and keys within columns, that went into no pair, and in how many rows they hold something.
    rows: how many were read; each is one of rows_used (a pair of it is trained on or held out), rows_dropped (listed
        with a reason) and rows_left_out (by a limit on the number of pairs, or the source's weight).
    weight: how often each pair of it is trained on in a pass, where there are several sources.
    """

    role: str
    name: str
    format: str
    format_why: str | None = None
    rows: int
    pairs: int
    files: tuple[str, ...]
    unused_columns: dict[str, int] | None = None
    rows_used: int | None = None
    rows_dropped: int | None = None
    rows_left_out: int | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in tokens."""

    mean: float
    median: float
    max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Training or held-out pairs. `chosen_longer`: share of pairs whose chosen completion is the longer one.

    prompts_cut, completions_cut: how many lost tokens to fit; a pair has two completions.
    """

    pairs: int
    prompts: int
    prompt_tokens: Lengths | None = None
    chosen_tokens: Lengths | None = None
    rejected_tokens: Lengths | None = None
    chosen_longer: float | None = None
    prompts_cut: int
    completions_cut: int | None = None
    tokens_laid_out: int | None = None
    tokens_without_sharing: int | None = None


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row or pair that is not used, and why."""

    id: str
    reason: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """Everything that was not used."""

    count: int
    by_reason: dict[str, int]
    list: tuple[DroppedRow, ...]


@dataclass(frozen=True, slots=True)
class ShownExample:
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
class FoundRow:
    """Examples of which a finding is true together: a repeat and what it repeats, a held-out prompt and its like."""

    ids: tuple[str, ...]
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFinding:
    """What was looked for in the data, and how often it was found. docs/data.md has every topic and its threshold.

    look: it is found so often that it should be looked at. sentence: what is true, in words with figures.
    advice: what can be done. count: in how many of `of`. rows: which, 10,000 at most.
    """

    topic: str
    look: bool
    sentence: str
    advice: str | None = None
    count: int
    of: int
    rows: tuple[FoundRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthBias:
    """How far the number of tokens alone tells which completion is preferred.

    train_longer, held_out_longer: share of the pairs with a longer chosen completion, of those that differ in length;
        None where none does.
    train_equal, held_out_equal: pairs whose completions are equally long.
    prefers: `longer` or `shorter`, whichever is chosen more often in training.
    accuracy: share of the held-out pairs in which that rule finds the chosen completion; equal lengths count half.
    """

    train_longer: Estimate | None = None
    held_out_longer: Estimate | None = None
    train_equal: int
    held_out_equal: int
    prefers: str
    accuracy: Estimate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """What prompts, chosen or rejected completions lost to fit, in training and held-out examples together.

    texts: how many there are; cut: how many of them lost something. tokens: of all of them as they were; tokens_cut: of
    those the ones that are lost; most_cut: the most that one of them lost.
    """

    part: str
    texts: int
    cut: int
    tokens: int
    tokens_cut: int
    most_cut: int


@dataclass(frozen=True, slots=True)
class TokenHistogram:
    """Lengths of a part (prompt, chosen or rejected) in a split (train or eval): counts between the shared edges."""

    split: str
    part: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenHistograms:
    """Histograms over the same bins: bin i holds lengths in tokens from edges[i] on, below edges[i + 1]."""

    edges: tuple[int, ...]
    histograms: tuple[TokenHistogram, ...]


@dataclass(frozen=True, slots=True)
class ScriptCount:
    """How many prompts and completions are mostly written in a script; `none` where there is no letter."""

    script: str
    prompts: int
    completions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What the examples that are used look like. Nothing is dropped because of it.

    special_tokens: in how many examples each special token stands within the text.
    damage: in how many examples each sign of a wrong encoding is.
    """

    findings: tuple[DataFinding, ...]
    lengths: LengthBias | None = None
    truncation: tuple[Truncation, ...]
    histograms: TokenHistograms | None = None
    scripts: tuple[ScriptCount, ...]
    special_tokens: dict[str, int]
    damage: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """`data_report.json`. `chat`: prompts are chats, rendered by the model's template (or a plain one).

    remarks: what the notes count, with every pair it is true of. quality: None in runs of before it was looked at.
    """

    sources: tuple[Source, ...]
    train: Split | None = None
    eval: Split | None = None
    dropped: Dropped
    notes: tuple[str, ...]
    examples: tuple[ShownExample, ...]
    chat: bool
    remarks: tuple[Remark, ...] | None = None
    quality: Quality | None = None
