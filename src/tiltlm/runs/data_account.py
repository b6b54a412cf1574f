"""`data_report.json`: what was read, what is used, what is not and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place preference pairs were read from, and the layout its rows were recognised to have.

    role: `train` or `eval`. files: the local files.
    unused_columns: columns, and keys within columns, that went into no pair, and in how many rows they hold something.
    rows: how many were read; each is one of rows_used (a pair of it is trained on or held out), rows_dropped (listed
        with a reason) and rows_left_out (by a limit on the number of pairs).
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """`data_report.json`. `chat`: prompts are chats, rendered by the model's template (or a plain one).

    remarks: what the notes count, with every pair it is true of.
    """

    sources: tuple[Source, ...]
    train: Split | None = None
    eval: Split | None = None
    dropped: Dropped
    notes: tuple[str, ...]
    examples: tuple[ShownExample, ...]
    chat: bool
    remarks: tuple[Remark, ...] | None = None
