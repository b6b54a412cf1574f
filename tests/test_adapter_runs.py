"""Runs that train an adapter: from a plain or a packed model, gone on with, resumed, exported, merged, compared."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import write_model, write_pairs

from tiltlm.cli import main
from tiltlm.config import HubConfig
from tiltlm.config.resuming import Resume, settings_to_resume
from tiltlm.errors import RunError
from tiltlm.model.adapters import load_scorer
from tiltlm.model.finding import find_model
from tiltlm.model.scoring import score_sequences
from tiltlm.pipeline.resumption import reopened
from tiltlm.runs.run_files import read_run

FEW = ["--training.batch-pairs", "4", "--comparison.prompts", "1", "--comparison.samples", "1"]
TRAIN = ["train", "--data.train", "pairs.jsonl", "--comparison.max-new-tokens", "4", *FEW]
RATE = ["--training.learning-rate", "1e-3"]
LORA = ["--adapter.kind", "lora", *RATE]
EXACT = ["--model.precision", "float32"]
MODEL = Path("runs/run/model")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    """A working folder with a tiny model and pairs; reports have no curves."""
    write_model(tmp_path / "tiny")
    write_pairs(tmp_path / "pairs.jsonl", 24)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def train(*words: str, model: str = "tiny") -> int:
    return main([*TRAIN, "--model.path", model, *words])


def adapter(folder: Path = MODEL) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(folder / "adapter_model.safetensors")
    return tensors


@pytest.mark.parametrize(
    "words",
    [
        ["--adapter.kind", "lora", *EXACT],
        ["--adapter.kind", "dora", "--model.precision", "bfloat16"],
        ["--adapter.kind", "rslora", "--adapter.quantise", "nf4", "--model.precision", "bfloat16"],
        ["--adapter.kind", "lora", "--adapter.quantise", "int8", *EXACT],
        ["--adapter.kind", "lora", "--adapter.base-dtype", "bfloat16", "--training.activation-checkpointing", *EXACT],
    ],
    ids=" ".join,
)
def test_a_run_trains_saves_merges_and_compares(
    words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*words, *RATE) == 0
    said = capsys.readouterr()
    assert "parameters are trained beside" in said.out and "bitsandbytes" not in said.err
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"} <= {
        path.name for path in MODEL.iterdir()
    }
    assert json.loads((MODEL / "adapter_config.json").read_text())["base_model_name_or_path"] == str(here / "tiny")
    summary = json.loads(Path("runs/run/summary.json").read_text())
    assert summary["completed"] and all(check["passed"] for check in summary["checks"])
    assert all(tensor.dtype is torch.float32 for tensor in adapter().values())
    assert main(["compare", "runs/run", "--prompt", "Is 3 a number? Answer:"]) == 0
    assert main(["merge", "runs/run"]) == 0
    assert "nats a token from the two as merged (limit 1e-04)" in " ".join(capsys.readouterr().out.split())
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {
        path.name for path in Path("runs/run/merged").iterdir()
    }
    assert "quantization_config" not in json.loads(Path("runs/run/merged/config.json").read_text())
    assert main(["merge", "runs/run"]) == 1
    assert "is there already" in capsys.readouterr().err
    if "--adapter.quantise" not in words and "--adapter.base-dtype" not in words:
        torch.testing.assert_close(score_tokens(str(MODEL)), score_tokens("runs/run/merged"), atol=1e-5, rtol=0)


def test_a_stopped_run_goes_on_to_the_same_bits(here: Path) -> None:
    """The checkpoints hold what is trained alone."""
    words = [*LORA, *EXACT, "--checkpoint.every-steps", "1"]
    assert train(*words, "--training.max-steps", "4", "--run.name", "whole") == 0
    assert train(*words, "--training.max-steps", "2", "--run.name", "half") == 0
    more = ["--training.max-steps", "4", "--allow", "training.max-steps"]
    assert main(["train", "--resume", "runs/half", *more]) == 0
    whole, half = adapter(Path("runs/whole/model")), adapter(Path("runs/half/model"))
    assert whole.keys() == half.keys() and all(torch.equal(whole[name], half[name]) for name in whole)
    names = load_file("runs/whole/checkpoints/step-00000004/weights.safetensors").keys()
    assert len(names) == len(whole) and all("lora_" in name for name in names)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_checkpoint_is_exported_as_the_adapter_that_it_is(precision: str, here: Path) -> None:
    words = [*LORA, "--model.precision", precision, "--checkpoint.every-steps", "1", "--training.max-steps", "3"]
    assert train(*words, "--adapter.quantise", "nf4") == 0
    assert main(["export", "runs/run", "out", "--checkpoint", "3"]) == 0
    saved, exported = adapter(), adapter(Path("out"))
    assert all(torch.equal(saved[name], exported[name]) for name in saved)
    assert json.loads((MODEL / "adapter_config.json").read_text()) == json.loads(
        Path("out/adapter_config.json").read_text()
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_adapter_is_gone_on_with_and_is_its_own_reference(
    precision: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's SFT adapter, or that of an earlier run: the first loss is ln 2, against the model with it."""
    assert train(*LORA, "--model.precision", precision) == 0
    before = adapter()
    capsys.readouterr()
    assert train(*RATE, "--model.precision", precision, "--run.name", "second", model=str(MODEL)) == 0
    said = capsys.readouterr().out
    assert "lora of rank 16, alpha 32, gone on with" in said and "first loss is ln 2" in said
    after = adapter(Path("runs/second/model"))
    assert after.keys() == before.keys() and not all(torch.equal(after[name], before[name]) for name in before)
    base = json.loads(Path("runs/second/model/adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == str(here / "tiny")
    tokens = score_tokens("runs/second/model")
    assert not torch.allclose(tokens, score_tokens(str(MODEL)), atol=1e-3)


def score_tokens(model: str) -> torch.Tensor:
    from tiny_runs import sequence

    scorer = load_scorer(find_model(model, HubConfig()), torch.device("cpu"))
    return torch.from_numpy(score_sequences(scorer, [sequence(range(3, 12), 2)], torch.float32, 64)[0])


REFUSED: dict[str, tuple[list[str], str]] = {
    "another rank": (
        ["--adapter.kind", "lora", "--adapter.rank", "8"],
        "adapter.rank is 8, but model.path is an adapter",
    ),
    "another kind": (
        ["--adapter.kind", "dora"],
        "adapter.kind is 'dora', but model.path is an adapter with its own (lora)",
    ),
    "other targets": (["--adapter.kind", "lora", "--adapter.targets", "c_attn"], "adapter.targets is ('c_attn',)"),
}


def test_what_contradicts_an_adapter_that_is_gone_on_with_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*LORA, "--training.max-steps", "1", "--comparison.prompts", "0") == 0
    capsys.readouterr()
    for words, message in REFUSED.values():
        assert train(*words, "--run.name", "other", model=str(MODEL)) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--adapter.rank", "8"], "adapter.rank has no effect without a new adapter"),
        (["--adapter.targets", "c_attn"], "adapter.targets has no effect without a new adapter"),
        (["--adapter.quantise", "nf4"], "adapter.quantise has no effect without an adapter: all weights are trained"),
        (["--adapter.base-dtype", "bfloat16"], "adapter.base_dtype has no effect without an adapter"),
        ([*LORA, "--adapter.targets", "all-linear", "c_attn"], "beside `all-linear`"),
        ([*LORA, "--adapter.targets", "c_attn", "c_prj"], "`c_prj`. Did you mean `c_proj`? Its layers are c_attn"),
        (["--adapter.kind", "dora", "--adapter.quantise", "int8"], "adapter.kind dora needs the lengths of the rows"),
        (["--adapter.kind", "qlora"], "adapter.kind cannot be `qlora`"),
        (["--adapter.quantise", "4bit"], "Did you mean `nf4`?"),
        (["--lora_dropout", "0.1"], "Dropout is off in all of training"),
        (["--load_in_4bit"], "rank, alpha, targets and quantise"),
        (["--adapter.alpha", "0"], "adapter.alpha must be above 0"),
    ],
)
def test_settings_without_effect_are_refused(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*words) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_learning_rate_for_all_weights_is_remarked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--adapter.kind", "lora", "--training.max-steps", "1", "--comparison.prompts", "0"]
    assert train(*few) == 0
    assert "learning_rate is 1e-06, which suits the training of all weights" in capsys.readouterr().out
    assert train(*few, *RATE) == 0
    assert "which suits" not in capsys.readouterr().out


def test_a_plain_run_needs_no_merge(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--training.max-steps", "1", "--comparison.prompts", "0") == 0
    capsys.readouterr()
    assert main(["merge", "runs/run"]) == 1
    assert "is a plain model already" in capsys.readouterr().err


def test_without_the_packages_the_extra_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert train(*LORA, "--adapter.quantise", "nf4") == 1
    needed = 'adapter.quantise nf4 needs bitsandbytes, which is not installed: pip install "tiltlm[adapters]"'
    assert needed in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "peft", None)
    assert train(*LORA) == 1
    assert "an adapter needs peft, which is not installed" in capsys.readouterr().err


def test_a_checkpoint_of_before_there_were_adapters_is_gone_on_from(here: Path) -> None:
    """What its settings lack is what is the default since; another choice is still a difference."""
    words = ["--checkpoint.every-steps", "1", "--comparison.prompts", "0", "--training.max-steps", "1"]
    assert train(*words) == 0
    with reopened(settings_to_resume(Path("runs/run")), Resume(Path("runs/run"))) as run:
        assert run.found is not None
        kept = {name: value for name, value in run.found.record.settings.items() if not name.startswith("adapter.")}
        run.found = dataclasses.replace(run.found, record=dataclasses.replace(run.found.record, settings=kept))
        config = settings_to_resume(Path("runs/run"))
        run.require_same_settings(config)
        other = dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, kind="lora"))
        with pytest.raises(RunError, match=r"adapter\.kind: none then, lora now"):
            run.require_same_settings(other)


def test_a_plan_is_shown_and_nothing_is_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    (here / "tiny" / "model.safetensors").unlink()  # no weight is needed
    words = ["--model.path", "tiny", "--data.train", "pairs.jsonl", *LORA, *EXACT]
    assert main(["plan", *words, "--no-calibration"]) == 0
    shown = capsys.readouterr().out
    assert "4,096 are trained" in shown and "steps over 22 examples" in shown
    for row in ("as set", "all weights", "lora, nf4 base", "recomputed"):
        assert row in shown
    assert not Path("runs").exists()


def test_a_whole_distribution_is_compared_beside_an_adapter(here: Path) -> None:
    """The reference at work is the model with the adapter as it begins, which changes nothing."""
    assert train("--adapter.kind", "lora", "--loss.name", "tdpo2") == 0
    first = read_run(Path("runs/run")).metrics.evaluations[0]
    assert first.loss == pytest.approx(math.log(2), abs=1e-6)


def test_a_reference_that_moves_is_refused_beside_an_adapter(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--adapter.kind", "lora", "--loss.name", "tr_dpo") == 2
    assert train("--adapter.kind", "lora") == 0
    assert train("--loss.name", "tr_dpo", "--run.name", "on", model=str(MODEL)) == 1
    assert capsys.readouterr().err.count("averaging the factors of adapters is not averaging weights") == 2


def test_stages_hand_an_adapter_on(here: Path) -> None:
    """What the first trains, the second goes on with, and its reference is the model with it."""
    Path("recipe.toml").write_text(
        '[model]\npath = "tiny"\nprecision = "float32"\n[data]\ntrain = "pairs.jsonl"\n'
        "[training]\nmax_steps = 2\nlearning_rate = 1e-3\nbatch_pairs = 4\n[comparison]\nprompts = 0\n"
        '[[stage]]\nloss = { name = "sft" }\nadapter = { kind = "lora", rank = 4 }\n'
        '[[stage]]\nloss = { name = "ipo" }\n'
    )
    assert main(["train", "recipe.toml", "--run.name", "staged"]) == 0
    run = read_run(Path("runs/staged"))
    assert [stage.loss for stage in (run.summary.earlier if run.summary is not None else ())] == ["sft"]
    begun, ended = adapter(Path("runs/staged/stages/1-sft/model")), adapter(Path("runs/staged/model"))
    assert begun.keys() == ended.keys() and not all(torch.equal(begun[name], ended[name]) for name in begun)
    assert run.metrics.evaluations[0].margin == pytest.approx(0, abs=1e-6)
