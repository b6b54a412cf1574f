"""A run's files in pandas: the learning curve as a table, and answers before and after beside each other.

python examples/read_run.py runs/demo
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd


def curves(run: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of `metrics.jsonl` by step: those of training, and those of the held-out pairs."""
    rows = pd.read_json(run / "metrics.jsonl", lines=True)
    by_kind = {kind: part.dropna(axis="columns", how="all").set_index("step") for kind, part in rows.groupby("kind")}
    return by_kind["train"], by_kind["eval"]


def answers(run: Path) -> pd.DataFrame:
    """Greedy answers of `comparison.json`, a prompt a row, with rewards where one is known."""
    prompts = json.loads((run / "comparison.json").read_text(encoding="utf-8"))["prompts"]
    return pd.DataFrame(
        {
            "prompt": prompt["prompt"].strip(),
            **{f"{when} (text)": prompt[when]["greedy"]["text"] for when in ("before", "after")},
            **{f"{when} (reward)": prompt[when]["greedy"]["reward"] for when in ("before", "after")},
        }
        for prompt in prompts
    )


def main(run: Path) -> None:
    train, held_out = curves(run)
    print(train[["loss", "margin", "accuracy"]].rolling(10, min_periods=1).mean().tail(3).round(4))
    print(held_out[["loss", "margin", "accuracy"]].round(4))
    print(answers(run).to_string(index=False, max_colwidth=40))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
