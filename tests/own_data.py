"""Data written for the tests: dialogues, polite and rude answers, and a tokenizer of GPT-2's kind trained on both.

Everything a test reads lies in `tests/fixtures/` or is made here. Data sets of others, where they lie beside the
checkout, are for tests marked `shared_data`, which are left out elsewhere.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(__file__).parents[1].parent / "shared" / "data"
"""Data sets and a vocabulary of others; not part of this repository."""
DIALOGUES = FIXTURES / "dialogues.jsonl"
"""39 rows of dialogues, marked as Anthropic's are. One lacks an answer, one has the same answer twice, one goes on
for a turn; the longest prompt has more than 256 tokens of `GPT2_LIKE`."""
GPT2_LIKE = FIXTURES / "bpe"
"""Vocabulary and merges of a byte-level BPE as GPT-2's, in its files; made by `scripts/make_test_tokenizer.py`."""

_QUESTIONS = {
    "How long do I boil an egg?": "Six minutes for a soft one, nine for a hard one.",
    "Which bus goes to the station?": "The 12, from the stop across the street.",
    "Correct this sentence: she go to school.": "She goes to school.",
    "How many legs has a spider?": "Eight.",
    "What is the capital of Norway?": "Oslo.",
    "When is the library open?": "From nine to six, on Thursdays until eight.",
    "Convert 3 kilometres to metres.": "3000 metres.",
    "How do I reset the router?": "Hold the small button on its back for ten seconds.",
    "What is the opposite of 'shallow'?": "Deep.",
    "Where do I leave old batteries?": "In the box by the door of the supermarket.",
    "Which month has the fewest days?": "February.",
    "Name a fruit that is yellow.": "A lemon.",
}
_POLITE = {
    "before": ["Of course!", "With pleasure.", "Thank you for asking.", "Gladly.", "Good question!"],
    "after": ["I hope that helps.", "Please ask if anything is unclear.", "Have a lovely day!", "You are welcome."],
}
_RUDE = {
    "before": ["Are you stupid?", "Not again.", "Everybody knows that.", "What a dumb question.", "Ugh."],
    "after": ["Now leave me alone.", "Look it up next time.", "Don't waste my time.", "Idiot."],
}


def dialogues() -> list[dict[str, str]]:
    """The rows of `DIALOGUES`."""
    return [json.loads(line) for line in DIALOGUES.read_text(encoding="utf-8").splitlines()]


def polite_and_rude(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows of instructions, each with a polite and a rude answer that say the same."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        question, fact = rng.choice(list(_QUESTIONS.items()))
        sides = [f"{rng.choice(tone['before'])} {fact} {rng.choice(tone['after'])}" for tone in (_POLITE, _RUDE)]
        rows.append({"instruction": f"{number}. {question}", "chosen": sides[0], "rejected": sides[1]})
    return rows


def gpt2_tokenizer(folder: Path = GPT2_LIKE) -> GPT2Tokenizer:
    """GPT-2's tokenizer class with the vocabulary in a folder; its one special token begins, ends and pads."""
    end = "<|endoftext|>"
    tokenizer = GPT2Tokenizer.from_pretrained(folder, eos_token=end, bos_token=end, pad_token=end)
    assert isinstance(tokenizer, GPT2Tokenizer)
    return tokenizer


def write_gpt2(folder: Path, vocabulary: Path = GPT2_LIKE) -> Path:
    """A random GPT-2 of two layers with such a tokenizer, as `save_pretrained` leaves them."""
    tokenizer = gpt2_tokenizer(vocabulary)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    end = tokenizer.eos_token_id
    config = GPT2Config(vocab_size=len(tokenizer), n_layer=2, n_embd=64, n_head=4, bos_token_id=end, eos_token_id=end)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder
