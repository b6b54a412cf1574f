"""Real runs of a tiny model, each made to show what a question asks about, and some in which nothing is wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import write_model
from tiny_tokenizers import byte_level
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiltlm
from tiltlm.errors import NonFiniteError
from tiltlm.report.page import render_page
from tiltlm.report.verdict import verdict
from tiltlm.runs.outcomes import Summary
from tiltlm.runs.question_answers import QuestionAnswer
from tiltlm.runs.run_files import read_run

Row = dict[str, str]
HELD_OUT = range(50, 66)


def rows(numbers: range, chosen: str = " yes", rejected: str = " no", swapped: int = 0) -> list[Row]:
    """Pairs about these numbers, of which so many have their labels swapped."""
    pairs = [{"prompt": f"Is {n} a number? Answer:", "chosen": chosen, "rejected": rejected} for n in numbers]
    for pair in random.Random(0).sample(pairs, swapped):
        pair["chosen"], pair["rejected"] = pair["rejected"], pair["chosen"]
    return pairs


def by_heart(numbers: range) -> list[Row]:
    """Pairs of random words, of which nothing can be known but by heart."""
    words = random.Random(1)
    known = ["yes", "no", "is", "the", "answer", "or", "Human", "Assistant"]
    return [
        {"prompt": f"Is {n} a number? Answer:"}
        | {side: " " + " ".join(words.choices(known, k=3)) for side in ("chosen", "rejected")}
        for n in numbers
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("questions")


def run(
    folder: Path,
    name: str,
    train: list[Row],
    held_out: list[Row],
    training: Mapping[str, object],
    **settings: Mapping[str, object],
) -> Summary:
    """The summary of a run on these pairs, in float32."""
    (folder / "cache").mkdir(exist_ok=True)
    if not (folder / "tiny").exists():
        write_model(folder / "tiny")
    config: dict[str, Any] = {
        "run": {"directory": str(folder), "name": name},
        "model": {"path": str(folder / "tiny"), "precision": "float32"} | dict(settings.pop("model", {})),
        "data": {"max_length": 100},
        "training": {"batch_pairs": 8, "eval_every": 0, **training},
        "comparison": {"prompts": 0} | dict(settings.pop("comparison", {})),
        **settings,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILTLM_CACHE", str(folder / "cache"))
        return tiltlm.train(config, train=train, eval=held_out).summary


def asked(summary: Summary, name: str) -> QuestionAnswer:
    (answer,) = [answer for answer in summary.questions if answer.name == name]
    return answer


def shown(summary: Summary) -> set[str]:
    return {answer.name for answer in summary.questions if answer.verdict == "shown"}


def test_a_learning_rate_of_nothing_does_nothing(folder: Path) -> None:
    summary = run(folder, "still", rows(range(32)), rows(HELD_OUT), {"learning_rate": 1e-12})
    assert shown(summary) == {"learning rate"}
    answer = asked(summary, "learning rate")
    assert answer.sentence.startswith("It does next to nothing") and answer.change is not None
    assert "Raise training.learning_rate (1e-12)" in answer.change
    # Which the verdict says in its own words, once.
    assert [sentence for sentence in verdict(summary) if "othing" in sentence] == [
        sentence for sentence in verdict(summary) if sentence.startswith("Nothing moved")
    ]


def test_a_learning_rate_that_is_wild_does_too_much(folder: Path) -> None:
    summary = run(folder, "wild", rows(range(32)), rows(HELD_OUT), {"learning_rate": 1.0, "epochs": 3})
    answer = asked(summary, "learning rate")
    assert answer.verdict == "shown" and answer.sentence.startswith("It does too much: ")
    assert answer.line in verdict(summary)
    displaced = asked(summary, "displacement")
    assert displaced.verdict == "shown" and "It harms" in displaced.sentence and displaced.line in verdict(summary)


def test_swapped_labels_look_noisy_and_are_the_pairs_that_are_named(folder: Path) -> None:
    train = rows(range(48), swapped=12)
    summary = run(folder, "noisy", train, rows(HELD_OUT), {"learning_rate": 3e-3, "epochs": 6})
    answer = asked(summary, "label noise")
    assert answer.verdict == "shown" and answer.line in verdict(summary) and len(answer.ids) == 10
    swapped = [n for n, pair in enumerate(train) if pair["chosen"] == " no"]
    assert {int(name.removeprefix("row ")) - 1 for name in answer.ids} <= set(swapped)
    page = render_page(read_run(folder / "noisy"), summary)
    assert "Do the labels look noisy?" in page and f"<code>{answer.ids[0]}</code>" in page


def test_a_few_pairs_for_many_passes_are_learned_by_heart(folder: Path) -> None:
    training = {"learning_rate": 3e-3, "epochs": 40}
    summary = run(folder, "by heart", by_heart(range(10)), by_heart(HELD_OUT), training)
    answer = asked(summary, "overfitting")
    assert answer.verdict == "shown" and answer.line in verdict(summary) and answer.change is not None
    assert "training.epochs (40)" in answer.change
    assert answer.figures["margin on training pairs"].mean > 2 * answer.figures["margin on held out pairs"].mean
    assert asked(summary, "label noise").verdict == "not shown", "what is known by heart is not contradicted"


def test_a_reference_of_other_weights_disagrees_at_step_0(folder: Path) -> None:
    write_model(folder / "other", seed=5)
    model = {"reference": str(folder / "other")}
    summary = run(folder, "apart", rows(range(16)), rows(HELD_OUT), {"learning_rate": 1e-3}, model=model)
    answer = asked(summary, "step 0")
    assert answer.verdict == "shown" and answer.line in verdict(summary) and answer.change is not None
    assert f"unset model.reference ({folder / 'other'})" in answer.change
    assert asked(summary, "overfitting").line is None, "margins that were there before are not what training gave"


@cache
def taught(folder: Path) -> Path:
    """The tiny model, taught to answer ` yes` and end there."""
    write_model(folder / "untaught")
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "untaught", dtype=torch.float32)
    tokenizer = byte_level()
    texts = [f"Is {n} a number? Answer: yes" for n in range(200, 216)]
    batch = [torch.tensor([*tokenizer(text)["input_ids"], tokenizer.eos_token_id]) for text in texts]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        losses = [
            torch.nn.functional.cross_entropy(model(input_ids=ids[None]).logits[0, :-1], ids[1:]) for ids in batch
        ]
        torch.stack(losses).mean().backward()
        optimizer.step()
    model.save_pretrained(folder / "taught")
    AutoTokenizer.from_pretrained(folder / "untaught").save_pretrained(folder / "taught")
    return folder / "taught"


def test_pairs_that_prefer_length_make_answers_longer(folder: Path) -> None:
    biased = (" yes yes yes yes yes yes yes yes", " yes")
    summary = run(
        folder,
        "long",
        rows(range(32), *biased),
        rows(HELD_OUT, *biased),
        {"learning_rate": 1e-3, "epochs": 10},
        model={"path": str(taught(folder))},
        comparison={"prompts": 16, "samples": 3, "max_new_tokens": 32},
    )
    answer = asked(summary, "drift")
    assert answer.verdict == "shown" and "longer" in answer.sentence and answer.change is not None
    assert (
        "while reward accuracy is better than chance (100%)" in answer.sentence and "loss.name ld_dpo" in answer.change
    )
    assert answer.figures["length in tokens"].mean > 1


def test_a_run_that_ends_in_no_number_is_told_by_its_learning_rate(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **named: Any) -> torch.Tensor:
        return torch.tensor(float("nan"))

    monkeypatch.setattr(torch.nn.utils, "get_total_norm", broken)
    with pytest.raises(NonFiniteError):
        run(folder, "nan", rows(range(16)), rows(HELD_OUT), {"learning_rate": 1e-3})
    summary = read_run(folder / "nan").summary
    assert summary is not None
    answer = asked(summary, "learning rate")
    assert answer.verdict == "shown" and "no longer numbers" in answer.sentence


def test_a_run_in_which_nothing_is_wrong_says_so_and_is_read_back_as_it_was_written(folder: Path) -> None:
    summary = run(folder, "well", rows(range(48)), rows(HELD_OUT), {"learning_rate": 1e-3})
    assert read_run(folder / "well").summary == summary
    names = ["displacement", "drift", "overfitting", "learning rate", "label noise", "step 0", "origins"]
    assert [answer.name for answer in summary.questions] == names
    assert [answer.line for answer in summary.questions] == [None] * len(names)
    assert summary.eval_accuracy == 1.0
