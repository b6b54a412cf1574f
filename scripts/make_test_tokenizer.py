"""Trains the tests' byte-level BPE on the tests' dialogues and the demo's data.

    python scripts/make_test_tokenizer.py

It is of GPT-2's kind (the same pre-tokenizer and files, one special token at the end of the vocabulary), and small.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "tests" / "fixtures" / "bpe"
SOURCES = (
    ROOT / "tests" / "fixtures" / "dialogues.jsonl",
    ROOT / "src" / "tiltlm" / "demo" / "train.jsonl",
    ROOT / "src" / "tiltlm" / "demo" / "openers.txt",
)
# Words that tests need as one token.
WORDS = "Answer: yes\nAnswer: no\none two three four five\n\n\nHuman: yes or no?\n\nAssistant: yes"
MERGES = 1500
END = "<|endoftext|>"


def texts() -> Iterator[str]:
    """What is learned from, as text."""
    yield from [WORDS] * 20
    for source in SOURCES:
        for line in source.read_text(encoding="utf-8").splitlines():
            yield from strings(json.loads(line)) if source.suffix == ".jsonl" else [line]


def strings(value: object) -> Iterator[str]:
    """Every text in a row, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def make(folder: Path) -> None:
    """Writes `vocab.json` and `merges.txt`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + MERGES, initial_alphabet=alphabet, min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.model.save(scratch)
        vocabulary = json.loads((Path(scratch) / "vocab.json").read_text(encoding="utf-8"))
        merges = (Path(scratch) / "merges.txt").read_text(encoding="utf-8")
    ordered = dict(sorted(vocabulary.items(), key=lambda entry: entry[1])) | {END: len(vocabulary)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(ordered, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text(merges, encoding="utf-8")


if __name__ == "__main__":
    make(TARGET)
