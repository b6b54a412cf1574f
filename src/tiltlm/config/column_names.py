"""The names of columns that data formats know, and the option that maps other names to them."""

from __future__ import annotations

import difflib
from typing import Annotated

import tyro
from pydantic import AfterValidator

# The names of columns that formats know, to which `data.columns` maps other ones.
COLUMNS = (
    "prompt",
    "chosen",
    "rejected",
    "system",
    "history",
    "tools",
    "instruction",
    "input",
    "question",
    "messages",
    "conversations",
    "context",
    "contents",
    "output",
    "rejected_response",
    "rejected_messages",
    "preferred_output",
    "non_preferred_output",
    "completion",
    "response",
    "answer",
    "completions",
    "responses",
    "answers",
    "generations",
    "candidates",
    "outputs",
    "samples",
    "ended",
    "chosen_ended",
    "rejected_ended",
    "scores",
    "ratings",
    "rewards",
    "ranks",
    "best",
    "best_index",
    "best_idx",
    "best_id",
    "best_response",
    "best_completion",
    "chosen_index",
    "human_ref_A",
    "human_ref_B",
    "label",
    "labels",
    "desirable",
    "is_desirable",
    "kto_tag",
    "thumbs_up",
    "undesirable",
    "is_undesirable",
    "thumbs_down",
    "response_0",
    "response_1",
    "response_2",
    "better_response_id",
    "safer_response_id",
    "response_j",
    "response_k",
    "response1",
    "response2",
    "overall_preference",
    "preference_strength",
    "conversation_a",
    "conversation_b",
    "response_a",
    "response_b",
    "winner",
)


def _named_columns(words: list[str]) -> dict[str, str]:
    """The table of words such as `prompt=question`.

    Raises:
        ValueError: a word is not of this form.
    """
    if not all(0 < word.find("=") < len(word) - 1 for word in words):
        raise ValueError("write OURS=THEIRS, for example prompt=question chosen=meta.best")
    return {ours: theirs for ours, _, theirs in (word.partition("=") for word in words)}


def _of_ours(names: dict[str, str]) -> dict[str, str]:
    """The table itself.

    Raises:
        ValueError: it maps to a column that no format knows.
    """
    for ours in names:
        if ours not in COLUMNS:
            near = difflib.get_close_matches(ours, COLUMNS, n=1, cutoff=0.6)
            hint = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join(COLUMNS)}."
            raise ValueError(f"maps to our columns, and `{ours}` is none of them. {hint}")
    return names


ColumnNames = Annotated[
    dict[str, str],
    AfterValidator(_of_ours),
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="OURS=THEIRS ...",
        instance_from_str=_named_columns,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda names: [f"{ours}={theirs}" for ours, theirs in names.items()],
    ),
]
