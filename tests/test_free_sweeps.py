"""What another run over the same pairs computes of the reference: nothing, unless weights, tokens or type differ."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broken_runs import OPTIONS, Place, result
from tiny_runs import write_model, write_pairs

from tiltlm.model.reference import fill_cache
from tiltlm.pipeline import referencing

PAIRS = 8

FREE = {
    "beta": ["--loss.beta", "0.7"],
    "loss": ["--loss.name", "ipo"],
    "learning rate": ["--training.learning-rate", "1e-3"],
    "optimizer": ["--training.optimizer", "rmsprop"],
    "seed": ["--run.seed", "5"],
    "batch size": ["--training.batch-pairs", "2"],
    "steps": ["--training.max-steps", "3"],
    "micro-batches": ["--training.micro-batch-tokens", "50"],
    "folder": ["--run.directory", "elsewhere"],
}


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Examples of which the reference is computed, as they come."""
    counts: list[int] = []

    def counting(*arguments: Any) -> Any:
        *before, advance, ranks = arguments

        def also(count: int) -> None:
            counts.append(count)
            advance(count)

        given: Any = (*before, also, ranks)
        return fill_cache(*given)

    monkeypatch.setattr(referencing, "fill_cache", counting)
    return counts


@pytest.mark.usefixtures("undrawn")
def test_another_setting_costs_no_reference_pass(place: Place, computed: list[int]) -> None:
    assert place.train().code == 0
    assert sum(computed) == PAIRS
    computed.clear()
    for number, (name, words) in enumerate(FREE.items()):
        assert place.train("--run.name", f"run-{number}", *words).code == 0
        assert not computed, name


def _another_weight() -> None:
    write_model(Path("tiny"), seed=1)


def _another_text() -> None:
    rows = [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]
    for row in rows:
        row["chosen"] += "!"
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _some_more() -> None:
    write_pairs(Path("pairs.jsonl"), PAIRS + 3)


CHANGES: dict[str, tuple[Callable[[], None], list[str], int]] = {
    "weight": (_another_weight, [], PAIRS),
    "text": (_another_text, [], PAIRS),
    "end of answers": (lambda: None, ["--data.eos", "as-is"], PAIRS),
    "arithmetic": (lambda: None, ["--model.precision", "bfloat16"], PAIRS),
    "further pairs": (_some_more, [], 3),
}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", CHANGES)
def test_another_weight_token_or_type_costs_one(place: Place, computed: list[int], name: str) -> None:
    assert place.train().code == 0
    computed.clear()
    change, words, wanted = CHANGES[name]
    change()
    assert place.train("--run.name", "two", *words).code == 0
    assert sum(computed) == wanted


@pytest.mark.usefixtures("undrawn")
def test_another_template_costs_one(place: Place, computed: list[int]) -> None:
    write_model(Path("tiny"), chat=True)
    rows = [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    chats = [{name: [{"role": roles[name], "content": row[name].strip()}] for name in row} for row in rows]
    Path("pairs.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    assert place.train().code == 0
    assert sum(computed) == PAIRS
    computed.clear()
    template = Path("tiny/chat_template.jinja")
    template.write_text("Chat: " + template.read_text())
    assert place.train("--run.name", "two").code == 0
    assert sum(computed) == PAIRS


def test_two_processes_share_a_cache(place: Place) -> None:
    wanted = place.wanted()
    place.back_to(None)
    command = [sys.executable, "-m", "tiltlm", "train", *OPTIONS, "--run.name"]
    both = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in ("one", "two")]
    for process in both:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert result(Path("runs/one")) == result(Path("runs/two")) == wanted
