"""The Markdown of the comparison."""

from __future__ import annotations

import example_run
import pytest

from tiltlm.report.comparison_page import code_span, comparison_markdown, fence
from tiltlm.runs.answers import Comparison


@pytest.mark.parametrize(
    ("text", "marks"),
    [("plain", "```"), ("`code`", "```"), ("```python\nx\n```", "````"), ("a ````` b", "``````")],
)
def test_a_fence_is_longer_than_any_run_of_backticks_within(text: str, marks: str) -> None:
    assert fence(text) == f"{marks}text\n{text}\n{marks}\n"


@pytest.mark.parametrize(
    ("text", "span"),
    [("pairs.jsonl:3", "`pairs.jsonl:3`"), ("a`b", "`` a`b ``"), ("two\nlines", "`two lines`")],
)
def test_a_code_span_holds_any_text_on_one_line(text: str, span: str) -> None:
    assert code_span(text) == span


def test_prompts_and_answers_with_their_rewards() -> None:
    page = comparison_markdown(example_run.record(Comparison, example_run.comparison(1)), "demo")
    assert page.startswith("# Before and after: `demo`\n")
    assert "one greedy answer and 2 sampled answers at temperature 0.7, at most 48 tokens long" in page
    assert "## 1. `held-out.jsonl:3`\n\n```text\n<|im_start|>user\n" in page
    assert f"**Greedy, before** (20 tokens, reward 0.12)\n\n```text\n{example_run.BEFORE[0]}\n```\n" in page
    assert f"**Sample 2, after** (12 tokens, reward 0.91)\n\n```text\n{example_run.AFTER[2]}\n```\n" in page
    assert page.count("left out of the figures") == 1


def test_without_rewards_and_samples() -> None:
    compared = example_run.comparison(1)
    compared["settings"] |= {"reward": "none", "samples": 0}
    for side in ("before", "after"):
        compared["prompts"][0][side] = {"greedy": example_run.answer("```\nx", None), "samples": []}
    page = comparison_markdown(example_run.record(Comparison, compared | {"prompts": compared["prompts"][:1]}), "demo")
    assert "reward" not in page
    assert "<details>" not in page
    assert "````text\n```\nx\n````\n" in page


def test_without_a_comparison() -> None:
    assert "No answers were compared" in comparison_markdown(None, "demo")
