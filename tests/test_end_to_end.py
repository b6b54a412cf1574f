"""The main job on a real model and real text, as a person starts it; small enough for every test run."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from own_data import DIALOGUES, GPT2_LIKE, SHARED, polite_and_rude, write_gpt2
from tiny_tokenizers import byte_level
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from tiltlm.cli import main
from tiltlm.model.loading import choose_precision
from tiltlm.runs.run_files import read_run

pytestmark = pytest.mark.usefixtures("all_threads")

ROOT = Path(__file__).parents[1]
HH = SHARED / "hh-harmless-base-test.jsonl.gz"
AUTO = choose_precision("auto", torch.device("cpu"))[0]
SMALL = ["--run.directory", "runs", "--comparison.max-new-tokens", "8", "--comparison.samples", "1"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a reference cache of its own; the embedded model's cache is shared."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module", params=["float32", "auto"])
def embedded_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, all_threads: None) -> Path:
    """The demo in very small: the embedded model, 6 training pairs, 2 steps; in either arithmetic."""
    if request.param == "auto" and AUTO is torch.float32:
        pytest.skip("on this processor `auto` is float32")
    folder = tmp_path_factory.mktemp("embedded")
    code = main(
        [
            "train",
            *SMALL,
            "--run.directory",
            str(folder),
            "--run.name",
            "small",
            "--model.precision",
            request.param,
            "--data.max-train-pairs",
            "6",
            "--data.max-eval-pairs",
            "3",
            "--training.batch-pairs",
            "3",
            "--comparison.prompts",
            "2",
        ]
    )
    assert code == 0
    return folder / "small"


def test_the_demo_in_small(embedded_run: Path) -> None:
    files = {path.name for path in embedded_run.iterdir()}
    assert files == {
        ".lock",
        ".tiltlm-run",
        "config.json",
        "environment.json",
        "data_report.json",
        "objective.json",
        "metrics.jsonl",
        "outcome.json",
        "evaluation.json",
        "summary.json",
        "origins.json",
        "comparison.json",
        "comparison.md",
        "training_metrics.png",
        "report.html",
        "model",
    }
    run = read_run(embedded_run)
    assert run.summary is not None and run.evaluation is not None
    assert run.summary.completed
    assert run.summary.steps == 2
    exact = run.environment.precision == "float32, as set"
    assert run.summary.first_loss == pytest.approx(0.693147, abs=1e-4 if exact else 0.02)
    assert run.summary.eval_margin == run.evaluation.figures.margin
    assert run.summary.training_margin == pytest.approx(run.summary.eval_margin, abs=1e-4 if exact else 0.05)
    assert run.summary.saved_as == "float32"
    assert run.summary.checks is not None
    assert all(check.passed for check in run.summary.checks)
    assert run.data.chat
    assert run.data.train is not None
    assert run.data.train.pairs == 6
    assert run.summary.reward == "vader"
    assert run.summary.win_rate is not None
    assert run.summary.kl is not None
    assert run.comparison is not None
    assert len(run.comparison.prompts) == 3
    assert "What are the main differences between Python and C++?" in run.comparison.prompts[-1].prompt
    assert not run.comparison.prompts[-1].counted
    assert set(run.summary.stages or {}) == {"data", "reference", "training", "evaluation", "comparison"}


def test_the_trained_model_loads_in_stock_transformers(embedded_run: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(embedded_run / "model")
    tokenizer = AutoTokenizer.from_pretrained(embedded_run / "model")
    assert tokenizer.chat_template is not None
    chat = [{"role": "user", "content": "Name a colour."}]
    asked: Any = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answered: Any = model.generate(**asked, max_new_tokens=4, do_sample=False)
    assert answered.shape[1] == asked["input_ids"].shape[1] + 4
    assert list((embedded_run / "model").glob("*.safetensors"))
    card = (embedded_run / "model" / "README.md").read_text()
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card
    assert "arxiv.org/abs/2305.18290" in card


def test_a_second_run_does_not_overwrite_the_first(embedded_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (embedded_run / "summary.json").read_bytes()
    assert main(["train", "--run.directory", str(embedded_run.parent), "--run.name", "small"]) == 1
    assert "there is a run in" in capsys.readouterr().err
    assert (embedded_run / "summary.json").read_bytes() == before


def test_report_and_compare(embedded_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (embedded_run / "report.html").unlink()
    assert main(["report", str(embedded_run)]) == 0
    assert (embedded_run / "report.html").stat().st_size > 10_000
    assert main(["compare", str(embedded_run)]) == 0
    assert "recorded" in capsys.readouterr().out
    assert main(["compare", str(embedded_run), "--prompt", "Tell me about rain."]) == 0
    output = capsys.readouterr().out
    assert "Tell me about rain." in output
    assert "<|im_start|>assistant" in output


@pytest.mark.parametrize("data", [DIALOGUES, pytest.param(HH, marks=pytest.mark.shared_data)], ids=["our own", "HH"])
def test_dialogues_train_with_the_embedded_model(here: Path, data: Path) -> None:
    options = ["--data.train", str(data), "--data.max-train-pairs", "4", "--data.max-eval-pairs", "2"]
    options += ["--data.max-length", "160", "--model.precision", "float32", "--training.batch-pairs", "2"]
    assert main(["train", *SMALL, "--run.name", "hh", *options, "--comparison.prompts", "1"]) == 0
    run = read_run(here / "runs" / "hh")
    assert run.data.sources[0].format == "dialogue"
    assert run.data.sources[0].rows == (39 if data == DIALOGUES else 2312)
    assert run.summary is not None
    assert run.summary.first_loss == pytest.approx(0.693147, abs=1e-4)
    assert run.summary.win_rate is None  # no reward is known for these data
    assert run.summary.eval_accuracy is not None


@pytest.mark.parametrize(
    ("vocabulary", "data", "parts", "cut_down"),
    [
        pytest.param(GPT2_LIKE, DIALOGUES, (30, 9), ["--training.batch-pairs", "8"], id="of their kind"),
        pytest.param(SHARED / "gpt2-bpe", HH, (300, 40), [], id="themselves", marks=pytest.mark.shared_data),
    ],
)
def test_the_assignments_configuration_with_gpt2s_tokenizer_and_architecture(
    here: Path, vocabulary: Path, data: Path, parts: tuple[int, int], cut_down: list[str]
) -> None:
    """configs/gpt2-hh.toml as it is, on a local stand-in for the hub: one flag, and sizes cut down."""
    hub = here / "hub"
    write_gpt2(hub / "gpt2", vocabulary)
    folder = hub / "Anthropic" / "hh-rlhf" / "harmless-base"
    folder.mkdir(parents=True)
    text = gzip.decompress(data.read_bytes()) if data == HH else data.read_bytes()
    lines = text.splitlines(keepends=True)
    if data == DIALOGUES:
        lines.sort(key=len, reverse=True)  # the long prompt is for training
    for name, part in (("train", lines[: parts[0]]), ("test", lines[parts[0] : sum(parts)])):
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(b"".join(part)))
    options = ["--hub.folder", str(hub), *SMALL, "--training.max-steps", "3", "--training.warmup-steps", "3"]
    options += ["--model.precision", "float32", "--data.max-train-pairs", "150", "--comparison.prompts", "2"]
    assert main(["train", str(ROOT / "configs" / "gpt2-hh.toml"), *options, *cut_down]) == 0
    run = read_run(here / "runs" / "gpt2-hh")
    assert run.summary is not None
    assert run.summary.first_loss == pytest.approx(0.693147, abs=1e-4)
    assert run.summary.steps == 3
    assert [row.learning_rate for row in run.metrics.train] == pytest.approx([1e-6 * k / 3 for k in (1, 2, 3)])
    assert run.data.train is not None
    assert run.data.train.prompt_tokens is not None
    assert run.data.train.prompt_tokens.max == 256
    assert run.comparison is not None
    assert run.comparison.prompts[-1].prompt.endswith("Python and C++?\n\nAssistant:")


@pytest.mark.parametrize(
    ("vocabulary", "data"),
    [
        pytest.param(GPT2_LIKE, None, id="our own"),
        pytest.param(SHARED / "gpt2-bpe", SHARED / "polite-rude.json", id="of others", marks=pytest.mark.shared_data),
    ],
)
def test_polite_answers_are_preferred_after_training(
    here: Path, vocabulary: Path, data: Path | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that starts from nothing learns a real preference in seconds, on real text, as its curves say."""
    model = write_gpt2(here / "model", vocabulary)
    if data is None:
        data = here / "polite-rude.json"
        data.write_text(json.dumps(polite_and_rude(300)))
    options = ["--data.train", str(data), "--model.path", str(model), "--data.max-train-pairs", "200"]
    options += ["--data.max-eval-pairs", "60", "--training.epochs", "4", "--training.learning-rate", "1e-3"]
    options += ["--comparison.prompts", "0", "--comparison.extra-prompts"]
    assert main(["train", *SMALL, "--run.name", "polite", *options]) == 0
    summary = read_run(here / "runs" / "polite").summary
    assert summary is not None and summary.eval_accuracy_interval is not None
    assert summary.eval_accuracy_interval[0] > 0.5
    assert "better than chance" in capsys.readouterr().out


def test_a_hub_model_without_a_network_says_how_to_give_it_locally(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["train", "--model.path", "someone/some-model", "--run.name", "x"]) == 1
    message = capsys.readouterr().err
    assert "someone/some-model" in message
    assert "--model.path FOLDER" in message
    assert "--hub.folder DIR" in message
    assert not (here / "runs").exists()


def tiny_gpt2_and_pairs(folder: Path) -> None:
    """Two random models that share a tokenizer, in `tiny` and `other`, and 40 short pairs in `pairs.jsonl`."""
    for seed, name in enumerate(("tiny", "other")):
        tokenizer = byte_level()
        tokenizer.save_pretrained(folder / name)
        torch.manual_seed(seed)
        sizes: dict[str, Any] = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 128, "initializer_range": 0.3}
        ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1}
        GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **ends)).save_pretrained(folder / name)
    rows = [{"prompt": f"Is {n} a number? Answer:", "chosen": " yes", "rejected": " no"} for n in range(40)]
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def test_another_model_as_reference(here: Path) -> None:
    """Its values are used: the first loss is not ln 2, and the evaluation before training knows that."""
    tiny_gpt2_and_pairs(here)
    options = ["--data.train", "pairs.jsonl", "--model.path", "tiny", "--model.reference", "other"]
    assert main(["train", *SMALL, *options, "--data.max-length", "100", "--comparison.prompts", "2"]) == 0
    run = read_run(here / "runs" / "run")
    assert run.summary is not None
    assert run.summary.reference == "other"
    assert abs((run.summary.first_loss or 0) - 0.693147) > 1e-3
    assert abs(run.metrics.evaluations[0].loss - 0.693147) > 1e-3
    assert run.summary.kl is not None


def test_a_reference_with_another_vocabulary_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_gpt2_and_pairs(here)
    tokenizer = byte_level()
    tokenizer.add_tokens(["something new"])
    tokenizer.save_pretrained(here / "other")
    options = ["--data.train", "pairs.jsonl", "--model.path", "tiny", "--model.reference", "other"]
    assert main(["train", *SMALL, *options, "--data.max-length", "100"]) == 1
    assert "another vocabulary" in capsys.readouterr().err
    # Mended, the same command runs: what failed before training is in nobody's way.
    byte_level().save_pretrained(here / "other")
    assert main(["train", *SMALL, *options, "--data.max-length", "100", "--comparison.prompts", "0"]) == 0


def test_inspect(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "Say yes. ", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(20)]
    rows += [{"prompt": f"Again {n}? ", "chosen": "same", "rejected": "same"} for n in range(2)]
    rows += [{"prompt": f"More {n}? ", "chosen": "a", "rejected": "b"} for n in range(3)]
    Path("pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n{broken\n")
    assert main(["inspect", "pairs.jsonl", "--report", "account.json"]) == 0
    output = capsys.readouterr().out
    assert "read as `preference`" in output
    assert "2 identical completions" in output
    assert "1 unreadable row" in output
    assert "pairs.jsonl:26" in output
    account = json.loads(Path("account.json").read_text())
    assert account["dropped"]["count"] == 3


def test_python_dash_m_src_main_is_the_same_program() -> None:
    command = [sys.executable, "-m", "src.main", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=_plain_environment())
    assert "--training.learning-rate" in shown.stdout
    compare = subprocess.run(
        [sys.executable, "-m", "src.inference", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--prompt" in compare.stdout


def _plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
