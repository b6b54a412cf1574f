"""Runs that train steering vectors: what is saved, gone on with, exported and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_folders import save_tiny
from tiny_runs import write_pairs
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM

from tiltlm.cli import main

FEW = ["--training.batch-pairs", "4", "--comparison.prompts", "1", "--comparison.samples", "1"]
VECTORS = ["--training.parameters", "steering-vectors", "--training.learning-rate", "1e-2"]
TRAIN = ["train", "--data.train", "pairs.jsonl", "--comparison.max-new-tokens", "4", *FEW, *VECTORS]
MODEL = Path("runs/run/model")
arithmetic = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    """A working folder with a tiny model and pairs; reports have no curves."""
    save_tiny(tmp_path / "tiny")
    write_pairs(tmp_path / "pairs.jsonl", 24)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return tensors


@arithmetic
def test_vectors_alone_are_trained_and_saved(here: Path, precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--model.path", "tiny", "--model.precision", precision]) == 0
    said = capsys.readouterr().out
    assert "steering vectors: 16 parameters are trained" in " ".join(said.split())
    before, after = weights(Path("tiny")), weights(MODEL)
    assert all(torch.equal(after[name], own) for name, own in before.items())
    added = {name: own for name, own in after.items() if name not in before}
    moved = [name for name, own in added.items() if bool(own.any())]
    assert moved == ["model.layers.1.mlp.down_proj.bias"]
    assert added[moved[0]].abs().max() > 1e-3
    assert "**Trained**: steering vectors alone" in (MODEL / "README.md").read_text()
    assert "</b>, steering vectors alone, with the sigmoid loss" in Path("runs/run/report.html").read_text()
    model = AutoModelForCausalLM.from_pretrained(MODEL)
    assert model.config.mlp_bias
    # What is saved can be gone on with, and is a model like any other.
    assert main([*TRAIN, "--model.path", str(MODEL), "--run.name", "on", "--model.precision", precision]) == 0
    again = weights(Path("runs/on/model"))
    assert again.keys() == after.keys()
    assert [name for name, own in again.items() if not torch.equal(own, after[name])] == moved


def test_a_checkpoint_of_vectors_is_small_gone_on_with_and_exported(here: Path) -> None:
    words = [*TRAIN, "--model.path", "tiny", "--model.precision", "float32", "--checkpoint.every-steps", "1"]
    assert main([*words, "--checkpoint.keep", "9", "--checkpoint.best", "none"]) == 0
    whole = weights(MODEL)
    last = sorted(Path("runs/run/checkpoints").iterdir())[-1]
    held = sum(path.stat().st_size for path in last.rglob("*") if path.is_file())
    assert held < Path("tiny/model.safetensors").stat().st_size
    assert main(["export", "runs/run", "exported", "--checkpoint", "last"]) == 0
    exported = weights(Path("exported"))
    assert exported.keys() == whole.keys() and all(torch.equal(exported[name], own) for name, own in whole.items())


@pytest.mark.parametrize(
    "words",
    [
        ["--model.reference", "other", "--model.precision", "bfloat16"],
        ["--loss.name", "tdpo2", "--training.activation-checkpointing", "--model.precision", "float32"],
        ["--loss.name", "tr_dpo", "--loss.update-every", "1", "--model.precision", "bfloat16"],
    ],
    ids=["a reference without a place for them", "whole distributions, recomputed", "a reference that follows"],
)
def test_vectors_beside_a_reference_at_work(here: Path, words: list[str]) -> None:
    config = MistralConfig(**{**AutoConfig.from_pretrained("tiny").to_dict(), "sliding_window": None})
    MistralForCausalLM(config).save_pretrained("other")
    AutoTokenizer.from_pretrained("tiny").save_pretrained("other")
    assert main([*TRAIN, "--model.path", "tiny", *words]) == 0
    before, after = weights(Path("tiny")), weights(MODEL)
    assert all(torch.equal(after[name], own) for name, own in before.items())
    assert after["model.layers.1.mlp.down_proj.bias"].abs().max() > 1e-3


def test_what_says_twice_what_is_trained_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--model.path", "tiny", "--adapter.kind", "lora"]) == 2
    assert "both say what is trained" in " ".join(capsys.readouterr().err.split())
    words = ["train", "--data.train", "pairs.jsonl", "--comparison.max-new-tokens", "4", *FEW, "--model.path", "tiny"]
    assert main([*words, "--adapter.kind", "lora"]) == 0
    capsys.readouterr()
    assert main([*TRAIN, "--model.path", str(MODEL), "--run.name", "on"]) == 2
    assert "is an adapter" in " ".join(capsys.readouterr().err.split())
