"""The demo: the DPO paper's controlled-sentiment experiment in small, with data of our own."""

from pathlib import Path

FOLDER = Path(__file__).parent
CONFIG = FOLDER / "config.toml"
TRAIN = FOLDER / "train.jsonl"
EVAL = FOLDER / "eval.jsonl"
