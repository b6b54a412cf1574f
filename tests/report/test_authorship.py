"""Real runs of a tiny model on pairs of its own, of its own at other temperatures, and of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from tiny_tokenizers import word_level
from transformers import GPT2Config, GPT2LMHeadModel

import tiltlm
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.evaluation.generation import GenerationSettings, generate_answers, samples
from tiltlm.evaluation.pair_surprise import chosen_examples
from tiltlm.report.page import render_page
from tiltlm.report.questions.asking import answers
from tiltlm.report.questions.authorship import CAVEAT, GAP, QUESTION, RARE, SAME, WORTH, Author, author
from tiltlm.report.questions.evidence import FEWEST
from tiltlm.report.verdict import verdict
from tiltlm.runs.pair_origins import PairOrigins
from tiltlm.runs.question_answers import QuestionAnswer
from tiltlm.runs.run_files import RunFiles, read_run

WORDS = [f"w{number}" for number in range(40)]
PROMPTS, MOST = 40, 24
Row = dict[str, str]


def write_speaker(folder: Path, seed: int) -> Path:
    """A model of 40 words with firm habits: what it expects differs much from word to word."""
    tokenizer = word_level(*WORDS)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 128, "initializer_range": 0.35}
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, tie_word_embeddings=False, **sizes)
    )
    with torch.no_grad():
        # Normalised states add up to nought, so that with a bias of ones a row of them is a constant of the logits.
        model.transformer.ln_f.bias.fill_(1.0)
        model.lm_head.weight -= model.lm_head.weight.mean(1, keepdim=True)
        model.lm_head.weight[:2] = -1.0  # never `<unk>` nor `<bos>`, which are no words of a text
        model.lm_head.weight[2] -= 0.03  # ends late
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("origins")


@cache
def speaker(folder: Path, name: str = "speaker", seed: int = 0) -> Path:
    return write_speaker(folder / name, seed)


def said(model: Path, temperature: float, count: int = 2, seed: int = 1) -> Iterator[list[str]]:
    """What a model says to each prompt at a temperature, as texts."""
    tokenizer = word_level(*WORDS)
    scorer: Any = GPT2LMHeadModel.from_pretrained(model)
    asked = [tokenizer(prompt)["input_ids"] for prompt in prompts()]
    drawn = generate_answers(
        scorer.eval(),
        tokenizer,
        asked,
        [samples(count, temperature)] * len(asked),
        GenerationSettings(MOST, seed),
        frozenset({2}),
        torch.float32,
    )
    for some in drawn:
        yield [" ".join(WORDS[token - 3] for token in answer.ids if token > 2) for answer in some]


def prompts() -> list[str]:
    """Prompts of four words, each another."""
    drawn = np.random.default_rng(5).integers(0, len(WORDS), (PROMPTS, 4))
    return [" ".join(WORDS[word] for word in some) for some in drawn]


def pairs(texts: Iterator[list[str]], better: Callable[[str], float] = len) -> list[Row]:
    """Of each prompt's answers the best as the chosen one, the worst as the rejected."""
    made = []
    for prompt, some in zip(prompts(), texts, strict=True):
        ranked = sorted(some, key=better)
        if ranked[0] != ranked[-1] and ranked[0]:
            made.append({"prompt": prompt, "chosen": " " + ranked[-1], "rejected": " " + ranked[0]})
    return made


def run(
    folder: Path,
    name: str,
    rows: Sequence[Row],
    loss: str = "sigmoid",
    comparison: Mapping[str, object] = MappingProxyType({}),
    **training: object,
) -> RunFiles:
    """The files of a run of the speaker on these pairs."""
    config: dict[str, Any] = {
        "run": {"directory": str(folder), "name": name},
        "model": {"path": str(speaker(folder)), "precision": "float32"},
        "data": {"max_length": 100},
        "loss": {"name": loss},
        "training": {"batch_pairs": 8, "eval_every": 0, "learning_rate": 1e-5, **training},
        "comparison": {"prompts": 2, "samples": 1, "max_new_tokens": MOST, **comparison},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILTLM_CACHE", str(folder / "cache"))
        tiltlm.train(config, train=list(rows[4:]), eval=list(rows[:4]))
    return read_run(folder / name)


def found(files: RunFiles) -> tuple[Author, PairOrigins, QuestionAnswer]:
    assert files.origins is not None
    (answer,) = [one for one in answers(files) if one.name == "origins"]
    return author(files.origins), files.origins, answer


def shuffled(texts: Iterator[list[str]]) -> Iterator[list[str]]:
    """The same words in other orders."""
    generator = np.random.default_rng(0)
    for some in texts:
        yield [" ".join(generator.permutation(text.split())) for text in some]


def test_the_models_own_answers_are_found_to_be_its_own(folder: Path) -> None:
    who, origins, answer = found(run(folder, "own", pairs(said(speaker(folder), 1.0))))
    assert who == "the model" and (answer.verdict, answer.change, answer.line) == ("not shown", None, None)
    assert "its own at temperature 1" in answer.sentence and answer.sentence.endswith(CAVEAT)
    assert origins.prompts == 32 and origins.first_tokens == MOST and origins.too_long == 0
    assert origins.sayable.mean > 0.9 and origins.own_sayable.mean > 0.9
    assert origins.temperature.mean == pytest.approx(1, abs=SAME)


@pytest.mark.parametrize("temperature", [0.5, 1.5])
def test_another_temperature_is_found_and_named(folder: Path, temperature: float) -> None:
    who, origins, answer = found(run(folder, f"at {temperature}", pairs(said(speaker(folder), temperature))))
    assert who == "the model at another temperature" and (answer.verdict, answer.line) == ("not shown", None)
    assert origins.temperature.mean == pytest.approx(temperature, abs=0.1)
    assert (origins.gap.mean < -GAP) == (temperature < 1) and abs(origins.gap.mean) > GAP
    rarer = "holds what it seldom says" if temperature > 1 else "lacks its rarer answers"
    assert answer.change is not None and rarer in answer.change and "tiltlm sample" in answer.change


def test_the_best_and_worst_of_several_own_answers_are_not_taken_for_others(folder: Path) -> None:
    # By a judge that goes by the words, as a label does.
    texts = said(speaker(folder), 1.0, count=4)
    who, _, answer = found(run(folder, "judged", pairs(texts, lambda text: text.count("1"))))
    assert who == "the model" and answer.verdict == "not shown"


def test_another_model_and_words_in_another_order_are_found_to_be_others(folder: Path) -> None:
    other = said(speaker(folder, "other speaker", 9), 1.0)
    for name, texts in (("of another", other), ("shuffled", shuffled(said(speaker(folder), 1.0)))):
        files = run(folder, name, pairs(texts))
        who, origins, answer = found(files)
        assert who == "others" and answer.verdict == "shown" and origins.sayable.mean < RARE
        assert answer.sentence.startswith("Others did, or ") and answer.change is not None
        assert "tiltlm sample, tiltlm judge, tiltlm pair" in answer.change and "loss.name wpo" in answer.change
        assert files.summary is not None and answer.line in verdict(files.summary)
        page = render_page(files, files.summary)
        assert QUESTION in page and "likeliest temperature" in page and "effective share" not in answer.sentence


def test_training_that_goes_far_is_said_to_have_moved_away(folder: Path) -> None:
    rows = pairs(said(speaker(folder), 1.0))
    files = run(folder, "far", rows, learning_rate=3e-3, epochs=6)
    who, _, answer = found(files)
    assert files.evaluation is not None and files.evaluation.seen is not None
    weights = files.evaluation.seen.weights
    assert who == "the model" and weights is not None and weights.moved.mean < WORTH
    assert "It has moved away from them." in answer.sentence and "To go on" in (answer.change or "")
    # By a rate a hundred times lower it has hardly moved.
    still = read_run(folder / "own") if (folder / "own").exists() else run(folder, "own", rows)
    assert still.evaluation is not None and still.evaluation.seen is not None
    unmoved = still.evaluation.seen.weights
    assert unmoved is not None and unmoved.moved.mean == pytest.approx(1, abs=0.02)


def test_it_is_asked_of_single_answers_and_where_the_objective_has_the_weights_already(folder: Path) -> None:
    rows = pairs(said(speaker(folder), 0.5))
    for loss in ("kto", "wpo"):  # of which one has no pairs and the other asks for sums of squares itself
        who, origins, answer = found(run(folder, loss, rows, loss))
        assert who == "the model at another temperature" and answer.verdict == "not shown", loss
        assert origins.gap.mean < 0 and answer.change is not None


def test_where_no_answers_are_wanted_it_says_that_it_was_not_measured(folder: Path) -> None:
    rows = pairs(said(speaker(folder), 1.0))[:12]
    files = run(folder, "none wanted", rows, comparison={"prompts": 0})
    (answer,) = [one for one in answers(files) if one.name == "origins"]
    assert files.origins is None and answer.verdict == "not measured"
    assert "no answers to held-out prompts were sampled" in answer.sentence
    few = run(folder, "few", rows[:9])
    who, _, answer = found(few)
    assert who == "unclear" and f"fewer than {FEWEST} show nothing" in answer.sentence


def test_prompts_that_leave_no_room_are_passed_over_and_counted() -> None:
    examples = TokenColumns.of(
        TokenizedExample(f"{n}", (TokenizedSequence(np.arange(3, 3 + size + n), size),), (1,))
        for n, size in enumerate((4, 9, 5, 9), start=1)
    )
    kept, too_long = chosen_examples(examples, 6, seed=0)
    assert [one.id for one in kept] == ["1", "3"] and too_long == 1, "the two long prompts are one"
    every, none = chosen_examples(examples, None, seed=0)
    assert len(every) == 3 and none == 0
