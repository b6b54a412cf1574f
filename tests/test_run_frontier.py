"""`tiltlm frontier` on whole runs: its path, its files, what it refuses, and what a run without a reward says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from broken_runs import leave_undrawn
from test_recipes import enter
from test_rounds import FIRST, RULES
from test_rounds import write_all as write_rounds
from tiny_runs import write_model, write_pairs
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiltlm
from tiltlm.answers.answer_file import read_answers
from tiltlm.cli import main
from tiltlm.report.frontier_words import UNKNOWN, of_frontier, sentences
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.frontier_record import BestOf, Frontier, FrontierPoint, FrontierSettings
from tiltlm.runs.run_files import Settings, read_run

SETTINGS = """
[model]
path = "base"
precision = "float32"
[data]
train = "pairs.jsonl"
eval_fraction = 0.4
[training]
batch_pairs = 4
max_steps = 3
learning_rate = 2e-2
[checkpoint]
every_steps = 2
[comparison]
prompts = 8
samples = 1
max_new_tokens = 5
reward = "rules.toml"
"""
RUN = Path("runs/run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that ended; no test changes it."""
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        enter(place, patch)
        write_model(Path("base"))
        write_pairs(Path("pairs.jsonl"), 24)
        Path("rules.toml").write_text(RULES)
        Path("run.toml").write_text(SETTINGS)
        assert main(["train", "run.toml"]) == 0
    return place


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    return enter(shutil.copytree(trained, tmp_path / "here"), monkeypatch)


def set_comparison(**values: object) -> None:
    """Makes the run one that was set otherwise."""
    config = json.loads((RUN / "config.json").read_text())
    config["comparison"].update(values)
    (RUN / "config.json").write_text(json.dumps(config))


def kept(name: str) -> Path:
    """The one file of a model's answers."""
    (place,) = (RUN / "frontier").glob(f"{name}-*.jsonl")
    return place


def test_the_run_stands_between_its_reference_and_the_limit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "was not measured: tiltlm frontier runs/run" in (RUN / "report.html").read_text()
    assert main(["frontier", str(RUN), "--reference-answers", "32"]) == 0
    said = capsys.readouterr().out
    assert "nats of KL an answer" in said and "step 2" in said
    found = read_run(RUN).frontier
    assert found is not None
    assert [(point.name, point.step) for point in found.path] == [("step 2", 2), ("trained", 3)]
    assert (found.settings.reward, found.settings.prompts, found.settings.reference_answers) == ("rules.toml", 8, 32)
    # The figures are those of the files, taken by hand.
    rows = read_answers(kept("model"))
    vowels = np.array([[sum(answer.text.count(v) for v in "aeiou") for answer in row.answers] for row in rows])
    assert found.path[-1].reward.mean == pytest.approx(vowels.mean())
    assert found.path[-1].kl.mean > 0
    page = (RUN / "report.html").read_text()
    assert "No policy lies in the grey" in page and 'aria-label="Mean reward against KL from the reference"' in page
    assert not list((RUN / "frontier").glob(".model*"))


def test_what_was_drawn_is_not_drawn_again_and_gives_the_same_figures(here: Path) -> None:
    assert main(["frontier", str(RUN), "--reference-answers", "16", "--no-checkpoints"]) == 0
    figures = (RUN / "frontier.json").read_bytes()
    answers = kept("model")
    lines = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[:3]) + lines[3][:20])  # as a kill leaves it
    assert main(["frontier", str(RUN), "--reference-answers", "16", "--no-checkpoints"]) == 0
    assert answers.read_bytes() == b"".join(lines)
    assert (RUN / "frontier.json").read_bytes() == figures


def test_from_python_it_is_what_the_command_measures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frontier", str(RUN), "--reward", "rules.toml", "--reference-answers", "16", "--no-checkpoints"]) == 0
    written = (RUN / "frontier.json").read_text()
    capsys.readouterr()
    found = tiltlm.frontier(RUN, reward="rules.toml", reference_answers=16, checkpoints=False)
    assert (RUN / "frontier.json").read_text() == written
    assert found == read_run(RUN).frontier
    assert capsys.readouterr() == ("", "")
    with pytest.raises(tiltlm.TiltlmError):
        tiltlm.frontier("runs/none")


def test_a_model_that_was_trained_on_or_is_asked_otherwise_has_answers_of_its_own(here: Path) -> None:
    words = ["frontier", str(RUN), "--reference-answers", "16"]
    assert main(words) == 0
    assert main([*words, "--answers", "4", "--prompts", "6"]) == 0
    found = read_run(RUN).frontier
    assert found is not None and (found.settings.answers, found.settings.prompts) == (4, 6)
    on = ["train", "--resume", str(RUN), "--training.max-steps", "5", "--allow", "training.max_steps"]
    assert main(on) == 0
    assert read_run(RUN).frontier is None  # it was of the model before
    assert main(words) == 0
    found = read_run(RUN).frontier
    assert found is not None and found.path[-1].step == 5
    assert len(list((RUN / "frontier").glob("model-*.jsonl"))) == 3


def test_without_a_reward_it_says_what_cannot_be_known(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("config.json", "summary.json"):
        (RUN / name).write_text((RUN / name).read_text().replace('"reward": "rules.toml"', '"reward": "none"'))
    assert main(["report", str(RUN)]) == 0
    assert UNKNOWN[:60] in (RUN / "report.html").read_text()
    assert main(["frontier", str(RUN)]) == 2
    assert "No reward is known here" in capsys.readouterr().err
    assert main(["frontier", str(RUN), "--reward", "rules.toml", "--reference-answers", "16"]) == 0


def test_of_imitation_nothing_is_said_of_pairs(here: Path) -> None:
    run = read_run(RUN)
    assert run.summary is not None
    settings: Settings = {**run.settings, "comparison": {"reward": "none"}}
    imitation = replace(run, settings=settings, summary=replace(run.summary, loss="sft", objective=None))
    (said,) = sentences(imitation)
    assert "imitated" in said and "pair" not in said.lower()
    assert sentences(replace(run, settings=settings)) == [UNKNOWN]


@pytest.mark.parametrize(("low", "said"), [(0.9, False), (1.1, True)], ids=["within chance", "clear"])
def test_best_of_n_is_said_to_have_more_only_where_that_is_clear_of_chance(low: float, said: bool) -> None:
    last = FrontierPoint(
        name="trained",
        reward=Estimate(1.0, (0.9, 1.1), 8),
        gain=Estimate(0.5, (0.4, 0.6), 8),
        kl=Estimate(1.0, (0.9, 1.1), 8),
        limit=1.5,
        share=Estimate(0.5, (0.4, 0.6), 8),
    )
    best = BestOf(n=2, reward=Estimate(1.2, (low, 1.5), 8), kl=0.2)
    settings = FrontierSettings(
        reward="known", prompts=8, reference_answers=16, answers=4, temperature=1.0, max_new_tokens=5, seed=0
    )
    record = Frontier(settings=settings, reference=Estimate(0.5, None, 8), limit=(), best_of=(best,), path=(last,))
    assert any("more, for less" in one for one in of_frontier(record)) == said


def test_a_python_file_that_the_run_names_is_run_only_where_it_is_named_again(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.py").write_text("def length(answer):\n    return float(len(answer))\n")
    config = json.loads((RUN / "config.json").read_text())
    config["comparison"]["reward"] = "own.py:length"
    (RUN / "config.json").write_text(json.dumps(config))
    assert main(["frontier", str(RUN)]) == 2
    assert "say --reward own.py:length if you trust it" in capsys.readouterr().err
    words = ["frontier", str(RUN), "--reward", "own.py:length", "--reference-answers", "16", "--no-checkpoints"]
    assert main(words) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the run"),
        (["runs/none"], "no run"),
        (["runs/run", "--reference-answers", "4"], "tell of no limit"),
        (["runs/run", "--prompts", "1"], "2 prompts or more"),
        (["runs/run", "--prompts", "0"], "2 prompts or more"),
    ],
    ids=["no run", "another run", "few answers", "one prompt", "no prompt"],
)
def test_what_cannot_be_asked_is_said(
    here: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["frontier", *words]) in (1, 2)
    assert message in capsys.readouterr().err


def test_a_run_that_answered_no_prompts_is_told_of_the_option(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_comparison(prompts=0, reward="none")
    words = ["frontier", str(RUN), "--reward", "rules.toml", "--reference-answers", "16", "--no-checkpoints"]
    assert main(words) == 2
    assert "--prompts N" in capsys.readouterr().err
    assert main([*words, "--prompts", "4"]) == 0


def test_data_that_were_changed_since_are_not_taken_for_those_of_the_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = Path("pairs.jsonl").read_text()
    Path("pairs.jsonl").write_text(lines.replace("a number", "an integer"))
    assert main(["frontier", str(RUN), "--reference-answers", "16"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "the data are not those of the run" in said and "held-out prompt 1 was" in said and "an integer" in said


def test_of_rounds_the_models_of_all_stand_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    enter(tmp_path, monkeypatch)
    write_rounds()
    assert main(["train", "rounds.toml"]) == 0
    before = read_run(RUN).frontier
    assert main(["frontier", str(RUN)]) == 0
    found = read_run(RUN).frontier
    assert before is not None and [point.name for point in before.path] == ["round 1", "round 2"]
    assert found == before  # the same reference, the same answers
    assert main(["frontier", str(FIRST), "--reference-answers", "16"]) == 0
    first = read_run(FIRST).frontier
    assert first is not None and first.path[0].kl == before.path[0].kl and len(first.path) == 1


def test_quantised_weights_beneath_an_adapter_are_those_of_the_reference_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    """KL of an adapter that was not trained is nothing, of weights that are kept in fewer bits as of any."""
    enter(tmp_path, monkeypatch)
    write_model(Path("base"))
    write_pairs(Path("pairs.jsonl"), 24)
    Path("rules.toml").write_text(RULES)
    Path("run.toml").write_text(SETTINGS.replace("2e-2", "1e-12") + '[adapter]\nkind = "lora"\nquantise = "int8"\n')
    assert main(["train", "run.toml"]) == 0
    assert main(["frontier", str(RUN), "--reference-answers", "16", "--no-checkpoints"]) == 0
    found = read_run(RUN).frontier
    assert found is not None and abs(found.path[-1].kl.mean) < 1e-5


def test_kl_is_from_the_reference_that_is_named_and_at_the_temperature_of_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    enter(tmp_path, monkeypatch)
    write_model(Path("base"))
    write_model(Path("other"), seed=1)
    write_pairs(Path("pairs.jsonl"), 24)
    Path("rules.toml").write_text(RULES)
    named = SETTINGS.replace('path = "base"', 'path = "base"\nreference = "other"')
    Path("run.toml").write_text(named.replace("samples = 1", "samples = 1\ntemperature = 0.7"))
    assert main(["train", "run.toml"]) == 0
    assert main(["frontier", str(RUN), "--reference-answers", "16", "--no-checkpoints"]) == 0
    tokenizer = AutoTokenizer.from_pretrained("base")
    models = [AutoModelForCausalLM.from_pretrained(name) for name in (RUN / "model", "other")]
    ratios = []
    for row in read_answers(kept("model")):
        prompt = tokenizer(row.prompt)["input_ids"]
        for answer in row.answers:
            ids = torch.tensor([*prompt, *(answer.ids or ())])
            with torch.no_grad():
                logps = [
                    torch.log_softmax(model(ids[None]).logits[0] / 0.7, -1)[:-1]
                    .gather(1, ids[1:, None])[len(prompt) - 1 :]
                    .sum()
                    for model in models
                ]
            ratios.append(float(logps[0] - logps[1]))
    found = read_run(RUN).frontier
    assert found is not None and len(ratios) == 8 * 8
    assert found.path[-1].kl.mean == pytest.approx(np.mean(ratios), rel=1e-4)
