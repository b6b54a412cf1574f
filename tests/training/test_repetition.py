"""The same seed gives the same bits twice: steps on several threads, and whole runs in processes that differ."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import VOCABULARY, build
from tiny_runs import bound, sequence
from tiny_tokenizers import byte_level
from transformers import LlamaConfig, LlamaForCausalLM

from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score
from tiltlm.objectives.interface import CHOSEN, REJECTED
from tiltlm.plan.row_layout import DENSE
from tiltlm.training.losses import backward
from tiltlm.training.step_plans import Referenced

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "repeated_runs.py"
WIDE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
"""Wide enough for PyTorch to share work out over threads."""


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_gradient_has_the_same_bits_where_many_answers_share_a_prompt() -> None:
    """All of them send their gradient to the prompt's last token, and float sums depend on their order."""
    rng = np.random.default_rng(0)
    prompt = [1, 5, 6, 7]
    examples = [
        TokenizedExample(
            f"pair {number}",
            tuple(sequence([*prompt, *rng.integers(3, VOCABULARY, 8), 2], len(prompt)) for _ in range(2)),
            (CHOSEN, REJECTED),
        )
        for number in range(40)
    ]
    columns = TokenColumns.of(examples)
    config = LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=1, max_position_embeddings=64, **WIDE)
    scorer = Scorer(build(config, torch.float32))
    plan = Referenced(columns, score(scorer, columns, torch.float32, 4096)).plan(range(len(columns)), 4096, DENSE)
    seen = set()
    for _ in range(6):
        scorer.zero_grad()
        backward(scorer, plan, bound(), torch.float32, lambda losses: None)
        bits = (weight.grad.numpy().tobytes() for weight in scorer.parameters() if weight.grad is not None)
        seen.add(hashlib.sha256(b"".join(bits)).hexdigest())
    assert len(seen) == 1


def write_run(folder: Path) -> None:
    """A model in `model` and pairs in `pairs.jsonl`: some prompts with several, of uneven lengths."""
    tokenizer = byte_level()
    tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(0)
    ids: dict[str, Any] = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(num_hidden_layers=2, max_position_embeddings=256, initializer_range=0.1, **WIDE, **ids)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    rng, words = np.random.default_rng(0), ["yes", "no", "maybe", "never", "always", "the", "answer", "is"]
    rows = [
        {
            "prompt": f"Is {number // 3} a number, and why would it be one? Answer:",
            "chosen": " " + " ".join(rng.choice(words, rng.integers(2, 12))),
            "rejected": " " + " ".join(rng.choice(words, rng.integers(2, 12))),
        }
        for number in range(48)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def started(folder: Path, number: int, order: str) -> subprocess.Popen[str]:
    """A process with a hash seed, a working folder and a place for its runs of its own."""
    here = folder / f"here {number}"
    here.mkdir()
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    # On a busy machine threads that wait for each other without resting take most of the time.
    patience = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    environment = {**os.environ, **patience, "PYTHONPATH": paths, "PYTHONHASHSEED": str(number)}
    given = [str(folder / "model"), str(folder / "pairs.jsonl"), str(here / "runs"), order]
    command = [sys.executable, str(PROGRAM), *given]
    return subprocess.Popen(
        command, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_whole_runs_are_the_same_to_the_bit(tmp_path: Path) -> None:
    """In another process, with another hash seed, from another folder, after other runs, and with empty caches."""
    write_run(tmp_path)
    results = []
    for number, order in enumerate(("forwards", "backwards"), start=1):
        process = started(tmp_path, number, order)
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        results.append(json.loads(output))
    first, second = results
    assert set(first) == {"float32-1", "float32-2", "bfloat16-1", "bfloat16-2"}
    for name, files in first.items():
        assert {"metrics.jsonl", "evaluation.json", "comparison.json", "model/model.safetensors"} <= set(files)
        assert {file for file in files if files[file] != second[name].get(file)} == set(), name
        assert set(files) == set(second[name]), name
    weights = {name: files["model/model.safetensors"] for name, files in first.items()}
    assert weights["float32-1"] != weights["bfloat16-1"], "otherwise nothing was trained"
