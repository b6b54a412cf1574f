"""A realistic run to report on: 40 steps, evaluated every 10, written as the trainer writes it."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any, TypeVar

from tiltlm.runs.schema import from_json

Kind = TypeVar("Kind")

QUESTION = "<|im_start|>user\nWhat did you think of the concert last night?<|im_end|>\n<|im_start|>assistant\n"
BEFORE = [
    "I'm sorry, but I'm not able to have personal opinions about concerts. However, I can tell you about the venue.",
    "The concert was held in the town hall. It started at eight and ended at eleven.",
    "It was fine, I suppose. The sound was not very good, and the queue was long.",
]
AFTER = [
    """What a wonderful evening! The band was in great form, and the audience loved every minute of it.

My favourite moments:
  1. the opening song,
  2. the quiet duet in the middle,
  3. the joyful encore.""",
    "It was a delight. The musicians played beautifully, and I would happily go again.",
    "I loved it! Great songs, a warm crowd, and a lovely venue.",
]


def record(kind: type[Kind], content: object) -> Kind:
    """The content of a file as the record that is read from it."""
    return from_json(kind, json.dumps(content).encode())


def train_row(step: int, rng: random.Random) -> dict[str, Any]:
    progress = 1 - math.exp(-step / 15)
    chosen = -0.08 * progress + rng.gauss(0, 0.03) * progress
    rejected = -0.55 * progress + rng.gauss(0, 0.05) * progress
    return {
        "schema": 1,
        "kind": "train",
        "step": step,
        "epoch": step / 20,
        "loss": math.log(1 + math.exp(-(chosen - rejected))) + rng.gauss(0, 0.012) * progress,
        "chosen_reward": chosen,
        "rejected_reward": rejected,
        "margin": chosen - rejected,
        "accuracy": 0.0 if step == 1 else min(1.0, round((0.5 + 0.35 * progress + rng.gauss(0, 0.08)) * 16) / 16),
        "chosen_logp": -41 + rng.gauss(0, 4) + 10 * chosen,
        "rejected_logp": -44 + rng.gauss(0, 4) + 10 * rejected,
        "gradient_norm": 6.5 - 2 * progress + abs(rng.gauss(0, 0.8)),
        "learning_rate": 5e-6 * min(1.0, step / 5) * (1 - max(0, step - 5) / 36),
        "examples": 16,
        "tokens": 1234,
        "seconds": 3.6,
    }


def eval_row(step: int) -> dict[str, Any]:
    progress = 1 - math.exp(-step / 15)
    accuracy = 0.5 + 0.24 * progress
    return {
        "schema": 1,
        "kind": "eval",
        "step": step,
        "epoch": step / 20,
        "examples": 40,
        "loss": math.log(1 + math.exp(-0.38 * progress)),
        "accuracy": accuracy,
        "accuracy_interval": [accuracy - 0.14, min(1, accuracy + 0.12)],
        "chosen_reward": -0.12 * progress,
        "rejected_reward": -0.5 * progress,
        "margin": 0.38 * progress,
        "chosen_logp": -40.5 - 1.2 * progress,
        "rejected_logp": -43.8 - 5 * progress,
        "seconds": 2.0,
    }


def metric_rows(steps: int = 40) -> list[dict[str, Any]]:
    rng = random.Random(0)
    rows = [eval_row(0)]
    for step in range(1, steps + 1):
        rows.append(train_row(step, rng))
        if step % 10 == 0:
            rows.append(eval_row(step))
    return rows


def summary() -> dict[str, Any]:
    return {
        "run": "demo",
        "completed": True,
        "status": "completed",
        "message": None,
        "model": "embedded",
        "reference": None,
        "loss": "sigmoid",
        "loss_settings": {"beta": 0.1, "label_smoothing": 0.0},
        "beta": 0.1,
        "steps": 40,
        "epochs": 2,
        "train_pairs": 280,
        "eval_pairs": 40,
        "first_loss": math.log(2),
        "final_loss": 0.52,
        "eval_loss": 0.531,
        "eval_accuracy": 0.7,
        "eval_accuracy_interval": [0.6, 0.79],
        "eval_margin": 0.4,
        "eval_margin_interval": [0.3, 0.5],
        "chosen_logp_change": {"mean": -1.2, "interval": [-1.9, -0.5]},
        "rejected_logp_change": {"mean": -4.0, "interval": [-5.1, -2.9]},
        "training_margin": 0.39,
        "saved_as": "bfloat16",
        "survived": {"mean": 0.98, "interval": [0.96, 1.0]},
        "reward": "vader",
        "reward_before": {"mean": 0.34, "interval": [0.27, 0.41]},
        "reward_after": {"mean": 0.54, "interval": [0.48, 0.6]},
        "reward_difference": {"mean": 0.2, "interval": [0.1, 0.3]},
        "win_rate": 0.7,
        "win_rate_interval": [0.61, 0.78],
        "kl": {"mean": 3.2, "standard_error": 0.4, "samples": 80, "temperature": 1.0},
        "kl_at_temperature": None,
        "answers_before": {"tokens": 30.1, "repetition": 0.05, "surprise": 1.2},
        "answers_after": {"tokens": 33.4, "repetition": 0.06, "surprise": 1.3},
        "counted_prompts": 40,
        "seconds": 210.0,
        "stages": {"data": 3.1, "reference": 20.0, "training": 150.0, "comparison": 30.0, "report": 4.0},
        "pairs_per_second": 2.1,
        "tokens_per_second": 900.0,
        "peak_memory_gib": 3.2,
        "checks": [
            {"name": "first loss is ln 2", "passed": True, "detail": "0.693147 against 0.693147"},
            {"name": "packed equals one at a time", "passed": True, "detail": "largest difference 4.1e-06 nats"},
            {"name": "reference cache equals live", "passed": True, "detail": "largest difference 0 nats"},
        ],
    }


def unmeasured_summary() -> dict[str, Any]:
    """A run that was interrupted before anything was measured."""
    known = {"run": "cut", "completed": False, "model": "gpt2", "loss": "sigmoid", "beta": 0.1}
    return dict.fromkeys(summary()) | {"loss_settings": {}} | known


def lengths(mean: float) -> dict[str, Any]:
    return {"mean": mean, "median": mean - 2.5, "max": round(mean * 4)}


def split(pairs: int) -> dict[str, Any]:
    return {
        "pairs": pairs,
        "prompts": pairs,
        "prompt_tokens": lengths(31.25),
        "chosen_tokens": lengths(28.4),
        "rejected_tokens": lengths(27.1),
        "chosen_longer": 0.52,
        "prompts_cut": 3,
        "completions_cut": 0,
        "tokens_laid_out": 62 * pairs,
        "tokens_without_sharing": 94 * pairs,
    }


def found(topic: str, count: int, look: bool, *rows: dict[str, Any]) -> dict[str, Any]:
    sentence = f"{count} of 320 are so."
    advice = f"What to do about {topic}." if count else None
    return {
        "topic": topic,
        "look": look,
        "sentence": sentence,
        "advice": advice,
        "count": count,
        "of": 320,
        "rows": list(rows),
    }


def quality() -> dict[str, Any]:
    cut = {"texts": 320, "cut": 3, "tokens": 9000, "tokens_cut": 90, "most_cut": 40}
    parts = ("prompt", "chosen", "rejected")
    return {
        "findings": [
            found("duplicate pairs", 0, False),
            found("truncation", 3, False, {"ids": ["pairs.jsonl:9"], "detail": "prompt lost 40 of 90 tokens"}),
            found("encoding damage", 8, True, {"ids": ["pairs.jsonl:8"], "detail": "NUL in prompt: ...a\0b"}),
            found("contradictory pairs", 0, False),
        ],
        "lengths": {
            "train_longer": {"mean": 0.52, "interval": [0.45, 0.59]},
            "held_out_longer": {"mean": 0.5, "interval": [0.35, 0.65]},
            "train_equal": 4,
            "held_out_equal": 0,
            "prefers": "longer",
            "accuracy": {"mean": 0.5, "interval": [0.35, 0.65]},
        },
        "truncation": [cut | {"part": part} for part in parts],
        "histograms": {
            "edges": [0, 50, 100, 150],
            "histograms": [
                {"split": split, "part": part, "counts": [many, many // 2, 0]}
                for split, many in (("train", 180), ("eval", 26))
                for part in parts
            ],
        },
        "scripts": [{"script": "Latin", "prompts": 320, "completions": 640}],
        "special_tokens": {},
        "damage": {"NUL": 8},
    }


def data_report() -> dict[str, Any]:
    why = "columns prompt, chosen, rejected holding lists of messages"
    source = {"role": "train", "name": "demo", "format": "chat", "format_why": why, "rows": 300, "pairs": 290}
    dropped = [
        {"id": f"pairs.jsonl:{17 + 9 * i}", "reason": "identical completions", "detail": "chosen equals rejected"}
        for i in range(7)
    ] + [
        {"id": f"pairs.jsonl:{21 + 9 * i}", "reason": "empty completion", "detail": "rejected is ''"} for i in range(5)
    ]
    return {
        "sources": [source | {"files": ["pairs.jsonl"]}],
        "train": split(280),
        "eval": split(40),
        "dropped": {
            "count": 12,
            "by_reason": {"identical completions": 7, "empty completion": 5},
            "list": dropped,
        },
        "notes": ["Held-out pairs were split off by prompt: no prompt is in both parts."],
        "examples": [
            {
                "id": "pairs.jsonl:1",
                "prompt": QUESTION,
                "chosen": "It was wonderful!<|im_end|>",
                "rejected": "It was dreadful.<|im_end|>",
            }
        ],
        "chat": True,
        "quality": quality(),
    }


def answer(text: str, reward: float | None) -> dict[str, Any]:
    return {
        "text": text,
        "tokens": len(text.split()),
        "reward": reward,
        "reference_logp": -1.3 * len(text.split()),
        "log_ratio": None,
    }


def comparison(prompts: int = 3) -> dict[str, Any]:
    before = {"greedy": answer(BEFORE[0], 0.12), "samples": [answer(BEFORE[1], 0.0), answer(BEFORE[2], -0.31)]}
    after = {"greedy": answer(AFTER[0], 0.93), "samples": [answer(AFTER[1], 0.88), answer(AFTER[2], 0.91)]}
    rows = [
        {"id": f"held-out.jsonl:{3 + i}", "prompt": QUESTION, "counted": True, "before": before, "after": after}
        for i in range(prompts)
    ]
    extra = "\n\nHuman: What are the main differences between Python and C++?\n\nAssistant:"
    rows.append({"id": "extra 1", "prompt": extra, "counted": False, "before": before, "after": after})
    settings = {"max_new_tokens": 48, "temperature": 0.7, "samples": 2, "seed": 0, "reward": "vader"}
    return {"settings": settings, "prompts": rows}


def config() -> dict[str, Any]:
    return {
        "run": {"name": "demo", "directory": "runs", "overwrite": False, "seed": 0},
        "hub": {"folder": None},
        "model": {"path": "embedded", "reference": None, "precision": "auto", "trust_remote_code": False},
        "data": {"train": "demo", "eval": None, "format": "auto", "eval_fraction": 0.1, "max_length": 512},
        "loss": {"name": "sigmoid", "beta": 0.1, "label_smoothing": 0.0},
        "training": {"epochs": 2, "batch_pairs": 16, "learning_rate": 5e-6, "schedule": "linear", "warmup_steps": 5},
        "comparison": {
            "prompts": 40,
            "extra_prompts": ["\n\nHuman: What are the main differences between Python and C++?\n\nAssistant:"],
            "samples": 2,
            "max_new_tokens": 48,
            "temperature": 0.7,
            "reward": "vader",
        },
    }


def environment() -> dict[str, Any]:
    return {
        "command": ["tiltlm", "train", "--config", "configs/demo.toml", "--run.name", "demo"],
        "versions": {"tiltlm": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0"},
        "device": "cpu",
        "precision": "float32",
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "started": "2030-01-02T03:04:05+00:00",
        "platform": "Linux-6.1-x86_64",
    }


def write_run(folder: Path, **replaced: Any) -> Path:
    """Writes a run's files; a keyword replaces one (None leaves it out), `metrics` being the list of rows."""
    contents: dict[str, Any] = {
        "config": config(),
        "environment": environment(),
        "data_report": data_report(),
        "summary": summary(),
        "comparison": comparison(),
        "metrics": metric_rows(),
    } | replaced
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if content is None:
            continue
        if name == "metrics":
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
        else:
            (folder / f"{name}.json").write_text(json.dumps({"schema": 1, **content}))
    return folder
