"""The same from Python, with names and paths or with what a program holds already."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import one_at_a_time
from tiny_runs import write_model, write_pairs
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

import tiltlm
from tiltlm.config import ComparisonConfig, Config, LossConfig, ModelConfig, RunConfig, TrainingConfig
from tiltlm.data.tokens.token_columns import TokenizedSequence
from tiltlm.errors import ConfigError, DataError, ModelError, RunError
from tiltlm.model.loading import choose_device
from tiltlm.objectives import OBJECTIVES
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.training.observers import Row

ROOT = Path(__file__).parents[1]
ROWS: list[dict[str, object]] = [
    {"prompt": f"Is {n} a number? Answer:", "chosen": " yes", "rejected": " no"} for n in range(12)
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def loaded() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    path = write_model(Path("tiny"))
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path)
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    return model, tokenizer


def settings(name: str = "one", **training: Any) -> Config:
    return Config(
        run=RunConfig(name=name),
        model=ModelConfig(precision="float32"),
        training=TrainingConfig(max_steps=2, batch_pairs=4, learning_rate=1e-3, **training),
        comparison=ComparisonConfig(prompts=1, samples=1, max_new_tokens=4),
    )


def test_every_public_name_is_there_and_importing_costs_nothing() -> None:
    assert all(getattr(tiltlm, name) is not None for name in tiltlm.__all__)
    assert set(tiltlm.__all__) <= set(dir(tiltlm))
    with pytest.raises(AttributeError, match="no attribute `trian`"):
        _ = tiltlm.trian
    script = "import sys, tiltlm; assert not {'torch', 'transformers', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_training_a_loaded_model_on_rows(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerFast], capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = loaded
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    seen: list[Row] = []
    run = tiltlm.train(settings(), model=model, tokenizer=tokenizer, train=ROWS, observers=[seen.append])
    assert run.summary.completed and run.folder == Path("runs/one")
    assert [type(row) for row in seen] == [EvalRow, TrainRow, TrainRow, EvalRow]
    assert capsys.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)
    # The caller's model is as it was; the trained one is in the folder.
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    trained = AutoModelForCausalLM.from_pretrained(run.model)
    assert any(not torch.equal(weight, before[name]) for name, weight in trained.state_dict().items())
    recorded = tiltlm.compare(run)
    assert len(recorded.prompts) == 1
    asked = tiltlm.compare(run.folder, ["Is 3 a number? Answer:"])
    assert [prompt.prompt for prompt in asked.prompts] == ["Is 3 a number? Answer:"]


def test_every_public_name_is_on_the_page() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in tiltlm.__all__ if f"`tiltlm.{name}`" not in page] == []


def test_the_observer_on_the_contributors_page_prints_every_margin(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    write_pairs(Path("pairs.jsonl"), 12)
    exec(program.replace('model="embedded"', f'model="{write_model(Path("tiny"))}"'), {})
    first, *steps, last = capsys.readouterr().out.splitlines()
    assert first == "held out 0 0.0" and steps[0].startswith("training 1 ") and last.startswith("held out ")


def test_rows_train_as_the_same_rows_in_a_file_do(loaded: tuple[PreTrainedModel, PreTrainedTokenizerFast]) -> None:
    model, tokenizer = loaded
    file = write_pairs(Path("pairs.jsonl"), 12)
    from_rows = tiltlm.train(settings("rows"), model=model, tokenizer=tokenizer, train=ROWS)
    from_file = tiltlm.train(settings("file"), model="tiny", train=file)
    assert from_rows.summary.final_loss == from_file.summary.final_loss
    assert from_rows.summary.eval_margin == from_file.summary.eval_margin


def test_settings_may_be_tables_or_a_file() -> None:
    write_model(Path("tiny"))
    write_pairs(Path("pairs.jsonl"))
    table: dict[str, dict[str, Any]] = {
        "model": {"path": "tiny", "precision": "float32"},
        "training": {"max_steps": 1},
        "comparison": {"prompts": 0},
    }
    run = tiltlm.train({**table, "run": {"name": "table"}}, train="pairs.jsonl")
    Path("settings.toml").write_text(
        '[run]\nname = "file"\n[model]\npath = "tiny"\nprecision = "float32"\n'
        "[training]\nmax_steps = 1\n[comparison]\nprompts = 0\n"
    )
    assert tiltlm.train("settings.toml", train="pairs.jsonl").summary.final_loss == run.summary.final_loss
    again = tiltlm.train(run.folder / "config.json", train="pairs.jsonl")
    assert again.folder == Path("runs/table-2") and again.summary.final_loss == run.summary.final_loss
    with pytest.raises(ConfigError, match="Did you mean `max_steps`"):
        tiltlm.train({"training": {"max_step": 1}})
    with pytest.raises(ConfigError, match=r"training\.learning_rate"):
        tiltlm.train({"training": {"learning_rate": -1.0}}, train="pairs.jsonl", model="tiny")
    with pytest.raises(ConfigError, match="`loss` is a section"):
        tiltlm.train({"loss": "simpo"})


def test_a_loaded_model_needs_its_tokenizer(loaded: tuple[PreTrainedModel, PreTrainedTokenizerFast]) -> None:
    model, tokenizer = loaded
    with pytest.raises(ModelError, match="needs its tokenizer"):
        tiltlm.train(model=model, train=ROWS)
    with pytest.raises(ModelError, match="without its loaded model"):
        tiltlm.train(tokenizer=tokenizer, train=ROWS)
    with pytest.raises(ModelError, match="stands for its tokenizer as well"):
        tiltlm.train(model="tiny", tokenizer=tokenizer, train=ROWS)
    wrapped: Any = torch.nn.Sequential(model)
    with pytest.raises(ModelError, match="a Sequential is no model of transformers"):
        tiltlm.train(model=wrapped, tokenizer=tokenizer, train=ROWS)
    with pytest.raises(ModelError, match="a Sequential is no model of transformers"):
        tiltlm.score(wrapped, ["a"], ["b"], tokenizer=tokenizer)


def test_inspecting_rows(loaded: tuple[PreTrainedModel, PreTrainedTokenizerFast]) -> None:
    _, tokenizer = loaded
    report = tiltlm.inspect([*ROWS, {"prompt": "x", "chosen": "same", "rejected": "same"}], tokenizer=tokenizer)
    assert report.sources[0].format == "preference" and report.sources[0].rows == 13
    assert report.dropped.by_reason == {"identical completions": 1}
    assert report.train is not None and report.eval is not None
    with pytest.raises(DataError):
        tiltlm.inspect([{"prompt": "x", "chosen": "same", "rejected": "same"}], tokenizer=tokenizer)


def test_inspecting_with_a_loaded_model_copies_no_weights(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerFast], folder: Path
) -> None:
    model, tokenizer = loaded
    report = tiltlm.inspect(ROWS, model=model, tokenizer=tokenizer)
    assert report == tiltlm.inspect(ROWS, model="tiny")
    assert not (folder / "cache" / "models").exists()
    with pytest.raises(ConfigError, match=r"data\.max_length"):
        tiltlm.inspect(ROWS, {"data": {"max_length": 5000}}, model=model, tokenizer=tokenizer)


def test_settings_that_inspecting_would_pass_over_are_refused(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerFast],
) -> None:
    _, tokenizer = loaded
    with pytest.raises(ConfigError, match=r"loss\.alpha has no effect"):
        tiltlm.inspect(ROWS, {"loss": {"name": "kto", "alpha": 0.1}}, tokenizer=tokenizer)
    with pytest.raises(ConfigError, match=r"model\.chat_template"):
        tiltlm.inspect(ROWS, {"model": {"chat_template": "none such"}}, tokenizer=tokenizer)


def test_a_home_is_written_out(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    write_model(Path("tiny"))
    config = settings()
    config = replace(config, run=replace(config.run, directory="~/runs"))
    run = tiltlm.train(config, model="tiny", train=ROWS)
    assert run.folder == folder / "home" / "runs" / "one"
    assert tiltlm.compare("~/runs/one") == tiltlm.compare(run)


def test_a_dataset_is_rows(loaded: tuple[PreTrainedModel, PreTrainedTokenizerFast]) -> None:
    datasets = pytest.importorskip("datasets")
    report = tiltlm.inspect(datasets.Dataset.from_list(ROWS), tokenizer=loaded[1])
    assert report.sources[0].rows == 12


def test_scores_are_those_of_one_sequence_at_a_time(loaded: tuple[PreTrainedModel, PreTrainedTokenizerFast]) -> None:
    model, tokenizer = loaded
    prompts, completions = ["Is 1 a number?", "Is 2 a number?"], [" Yes, it is.", " no"]
    model.train()
    scored = tiltlm.score(model, prompts, completions, tokenizer=tokenizer)
    assert model.training
    model.eval()
    for prompt, completion, one in zip(prompts, completions, scored, strict=True):
        ids = [*tokenizer(prompt + completion).input_ids, tokenizer.eos_token_id]
        first = len(tokenizer(prompt).input_ids)
        assert list(one.token_ids) == ids[first:]
        assert one.logp == pytest.approx(sum(one.token_logps), abs=1e-4)
        sequence = TokenizedSequence(torch.tensor(ids, dtype=torch.int32).numpy(), first)
        with torch.no_grad():
            assert one.logp == pytest.approx(float(one_at_a_time(model, [sequence])[0]), abs=1e-4)
    # A name is loaded where a run would compute.
    torch.nn.Module.to(model, choose_device("auto"))
    assert tiltlm.score("tiny", prompts, completions) == tiltlm.score(model, prompts, completions, tokenizer=tokenizer)


def test_weights_of_a_narrow_type_score_as_training_scores_them(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerFast],
) -> None:
    model, tokenizer = loaded
    torch.nn.Module.to(model, choose_device("auto"))
    model.bfloat16()
    model.save_pretrained("narrow")
    tokenizer.save_pretrained("narrow")
    before = {name: weight.data_ptr() for name, weight in model.state_dict().items()}
    scored = tiltlm.score(model, ["Is 1 a number?"], [" Yes, it is."], tokenizer=tokenizer)
    assert scored == tiltlm.score("narrow", ["Is 1 a number?"], [" Yes, it is."])
    assert {name: weight.data_ptr() for name, weight in model.state_dict().items()} == before
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_scores_of_chats(folder: Path) -> None:
    write_model(Path("chat"), chat=True)
    asked = [{"role": "user", "content": "Is 1 a number?"}]
    (text,) = tiltlm.score("chat", [asked], ["Yes."])
    (messages,) = tiltlm.score("chat", [asked], [[{"role": "assistant", "content": "Yes."}]])
    assert text == messages and len(text.token_ids) > 1


def test_several_gpus_are_nothing_to_warn_of(monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(Path("tiny"))
    kept: list[int] = []
    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.empty(0))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: kept.append(device))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert len(tiltlm.score("tiny", ["a"], ["b"])) == 1
    assert kept == [0, 1]


def test_of_no_completions_there_are_no_scores(loaded: tuple[PreTrainedModel, PreTrainedTokenizerFast]) -> None:
    model, tokenizer = loaded
    assert tiltlm.score(model, [], [], tokenizer=tokenizer) == []


def test_what_cannot_be_scored_is_said(loaded: tuple[PreTrainedModel, PreTrainedTokenizerFast]) -> None:
    model, tokenizer = loaded
    with pytest.raises(DataError, match="2 prompts and 1 completions"):
        tiltlm.score(model, ["a", "b"], ["c"], tokenizer=tokenizer)
    with pytest.raises(DataError, match="into a list"):
        tiltlm.score(model, "ab", "cd", tokenizer=tokenizer)
    with pytest.raises(DataError, match="completion 1: empty completion"):
        tiltlm.score(model, ["a"], [""], tokenizer=tokenizer)
    with pytest.raises(DataError, match=r"completion 2: .*too long"):
        tiltlm.score(model, ["a", "a"], ["b", "b" * 5000], tokenizer=tokenizer)
    with pytest.raises(DataError, match=r"completion 1: .*must be text too"):
        tiltlm.score(model, ["a"], [[{"role": "assistant", "content": "b"}]], tokenizer=tokenizer)


def test_a_run_without_answers_is_said() -> None:
    write_model(Path("tiny"))
    write_pairs(Path("pairs.jsonl"))
    table: dict[str, dict[str, Any]] = {"model": {"path": "tiny", "precision": "float32"}, "training": {"max_steps": 1}}
    run = tiltlm.train({**table, "comparison": {"prompts": 0}}, train="pairs.jsonl")
    with pytest.raises(RunError, match="recorded no answers"):
        tiltlm.compare(run)
    with pytest.raises(RunError, match="there is no run"):
        tiltlm.compare("runs/none")


@pytest.mark.parametrize(
    ("name", "called"), [("sigmoid", "Direct Preference Optimization"), ("ipo", "IPO"), ("kto", "KTO")]
)
def test_the_page_says_what_was_trained_with(name: str, called: str) -> None:
    write_model(Path("tiny"))
    rows = [{**row, "prompt": f"{row['prompt']} ({copy})"} for copy in range(2) for row in ROWS]
    config = replace(settings(), loss=LossConfig(name=name), comparison=ComparisonConfig(prompts=0))
    page = (tiltlm.train(config, model="tiny", train=rows).folder / "report.html").read_text()
    assert f"{called} of" in page


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_name_for_people(name: str) -> None:
    called = OBJECTIVES[name].what.partition(":")[0]
    assert 1 < len(called) < 20 and called[0].isupper()
