"""From Python: rows, a loaded model, training, answers, and what the model thinks of an answer.

    python examples/from_python.py FOLDER

FOLDER holds a model and its tokenizer, as `save_pretrained` leaves them; without it the embedded model is trained,
which takes some minutes. Nothing is printed but what is printed here: how it goes is told to `logging`.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

import tiltlm

PAIRS = Path(__file__).parent / "own_data" / "pairs.jsonl"
SETTINGS: dict[str, dict[str, Any]] = {
    "run": {"name": "from-python"},
    "data": {"eval_fraction": 0.25},
    "training": {"batch_pairs": 3, "learning_rate": 2e-5},
    "comparison": {"prompts": 2, "samples": 1, "max_new_tokens": 16},
}


def main(folder: str | None) -> None:
    logging.basicConfig(level=logging.WARNING)

    # Rows come from anywhere: a list of dicts, a datasets.Dataset, a file's name. Columns are named as tiltlm has them.
    rows = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    rows = [{"question": row["question"], "chosen": row["better"], "rejected": row["worse"]} for row in rows]

    # So does the model. One that is loaded already needs its tokenizer, and is left as it is.
    if folder is None:
        run = tiltlm.train(SETTINGS, model="embedded", train=rows)
    else:
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        account = tiltlm.inspect(rows, tokenizer=tokenizer)
        print("read as", account.sources[0].format, "with", account.dropped.count, "rows dropped")
        run = tiltlm.train(SETTINGS, model=model, tokenizer=tokenizer, train=rows)
    print("held-out margin", run.summary.eval_margin, "in", run.folder)

    for asked in tiltlm.compare(run).prompts:
        print(repr(asked.prompt), "before:", repr(asked.before.greedy.text), "after:", repr(asked.after.greedy.text))

    question = [{"role": "user", "content": rows[0]["question"]}]
    chosen, rejected = tiltlm.score(run.model, [question] * 2, [rows[0]["chosen"], rows[0]["rejected"]])
    print("log-probability of the chosen answer", chosen.logp, "and of the rejected one", rejected.logp)

    # What a loss is can be asked without a model, to check a value against a paper or a peer.
    (loss,) = tiltlm.loss("sigmoid", chosen=[-10], rejected=[-30], reference_chosen=[-12], reference_rejected=[-25])
    print("DPO's loss of a pair", round(float(loss), 6))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
