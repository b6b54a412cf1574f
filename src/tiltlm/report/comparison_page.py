"""`comparison.md`: the answers before and after training, readable on GitHub and in any editor."""

from __future__ import annotations

import re

from tiltlm.report.wording import count, number
from tiltlm.runs.answers import Answer, Answers, ComparedPrompt, Comparison
from tiltlm.text.visible import shortened, visible, visible_line

_WHOLE = "comparison.json"
_LONGEST_NAME = 200
"""Characters of a name, such as that of a run or a row, that are shown."""


def comparison_markdown(comparison: Comparison | None, run: str) -> str:
    """The whole page. Generated text stands in fences and code spans, where nothing in it is markup."""
    title = f"# Before and after: {code_span(run)}\n"
    if comparison is None:
        return f"{title}\nNo answers were compared in this run.\n"
    settings = comparison.settings
    answers = f"one greedy answer and {count(settings.samples, 'sampled answer')} at temperature {settings.temperature}"
    scored = "" if settings.reward == "none" else f", scored with the known reward {code_span(settings.reward)}"
    intro = f"For each prompt {answers}, at most {count(settings.max_new_tokens, 'token')} long{scored}.\n"
    sections = [_prompt_section(place, prompt) for place, prompt in enumerate(comparison.prompts, start=1)]
    return "\n".join([title, intro, *sections])


def fence(text: str) -> str:
    """The text as a fenced code block, in a fence longer than any run of backticks within.

    A long text is shortened, and hidden characters are shown.
    """
    text = visible(shortened(text, _WHOLE))
    marks = "`" * max(3, _longest_run(text) + 1)
    return f"{marks}text\n{text}\n{marks}\n"


def code_span(text: str) -> str:
    """The text as inline code on one line."""
    line = visible_line(" ".join(shortened(text, _WHOLE, _LONGEST_NAME).split()))
    marks = "`" * (_longest_run(line) + 1)
    # A space on either side keeps the text's own backticks apart from the marks; Markdown takes it off again.
    space = " " if "`" in line else ""
    return f"{marks}{space}{line}{space}{marks}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


def _prompt_section(place: int, prompt: ComparedPrompt) -> str:
    uncounted = "" if prompt.counted else "This prompt is shown only; it is left out of the figures.\n"
    blocks = [
        f"## {place}. {code_span(prompt.id)}\n",
        *([uncounted] if uncounted else []),
        fence(prompt.prompt),
        *_answer_blocks("Greedy", prompt.before.greedy, prompt.after.greedy),
        *_samples(prompt.before, prompt.after),
    ]
    return "\n".join(blocks)


def _samples(before: Answers, after: Answers) -> list[str]:
    pairs = zip(before.samples, after.samples, strict=False)
    blocks = [
        block
        for place, (old, new) in enumerate(pairs, start=1)
        for block in _answer_blocks(f"Sample {place}", old, new)
    ]
    if not blocks:
        return []
    return ["<details><summary>Sampled answers</summary>\n", *blocks, "</details>\n"]


def _answer_blocks(name: str, before: Answer, after: Answer) -> list[str]:
    return [
        f"**{name}, before** ({_facts(before)})\n",
        fence(before.text),
        f"**{name}, after** ({_facts(after)})\n",
        fence(after.text),
    ]


def _facts(answer: Answer) -> str:
    reward = "" if answer.reward is None else f", reward {number(answer.reward)}"
    return count(answer.tokens, "token") + reward
