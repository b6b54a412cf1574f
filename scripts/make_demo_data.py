"""Makes the demo's preference pairs: `python scripts/make_demo_data.py` (about a quarter of an hour on two cores).

The embedded model answers each opener several times; an answer is cut after its last whole sentence, so that it ends
as an answer should; VADER scores it; the best and the worst answer to an opener make a pair. The openers were
shuffled when they were written, and the split follows their order: it is fixed.
"""

from __future__ import annotations

import json
import re
import time

import torch

from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.examples import Message
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.demo import EVAL, FOLDER, TRAIN
from tiltlm.evaluation.generation import GenerationSettings, generate_answers, samples
from tiltlm.judges.sentiment import vader
from tiltlm.model.finding import EMBEDDED, find_model
from tiltlm.model.loading import load_tokenizer, model_facts
from tiltlm.model.weights import load_model

HELD_OUT = 120
SETTINGS = GenerationSettings(most=40, seed=2305)
DRAWS = samples(4, temperature=0.8)
SMALLEST_GAP = 0.7
LONGEST_RATIO = 1.5

_LAST_SENTENCE_END = re.compile(r"^.*[.!?][\"')\]]?(?=\s|$)", re.DOTALL)


def whole_sentences(text: str) -> str:
    """The text up to its last sentence end; empty where there is none."""
    match = _LAST_SENTENCE_END.search(text)
    return match.group().strip() if match else ""


def pair(answers: list[str]) -> tuple[tuple[str, float], tuple[str, float]] | None:
    """Best and worst answer with their scores, or None where they are too close to tell apart.

    Answers of very unlike length are passed over: a longer text collects more sentiment words, and the pair would
    teach length.
    """
    whole = [text for text in map(whole_sentences, answers) if len(text.split()) >= 6]
    if len(whole) < 2:
        return None
    scored = sorted(zip(whole, vader(whole), strict=True), key=lambda item: item[1])
    (worst, low), (best, high) = scored[0], scored[-1]
    lengths = sorted((len(worst), len(best)))
    if high - low < SMALLEST_GAP or lengths[1] > LONGEST_RATIO * lengths[0]:
        return None
    return (best, high), (worst, low)


def main() -> None:
    source = find_model(EMBEDDED, HubConfig())
    tokenizer, model = load_tokenizer(source), load_model(source, torch.device("cpu"))
    terminators = model_facts(source, tokenizer).terminators
    encoder = ExampleTokenizer(tokenizer, DataConfig(), terminators)
    openers = (FOLDER / "openers.txt").read_text(encoding="utf-8").splitlines()
    prompts = [encoder.encode_prompt(encoder.render_prompt((Message("user", opener),))[0]) for opener in openers]
    start, done = time.perf_counter(), 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        print(f"{done} of {len(prompts) * len(DRAWS)} answers, {time.perf_counter() - start:.0f} s", flush=True)

    draws = [DRAWS] * len(prompts)
    answers = generate_answers(model, tokenizer, prompts, draws, SETTINGS, terminators, torch.float32, advance)
    held_out_from = len(openers) - HELD_OUT
    for path, part in ((TRAIN, slice(0, held_out_from)), (EVAL, slice(held_out_from, None))):
        rows = []
        for opener, drawn in zip(openers[part], answers[part], strict=True):
            if (best_and_worst := pair([answer.text for answer in drawn])) is None:
                continue
            (best, high), (worst, low) = best_and_worst
            row = {
                "prompt": [{"role": "user", "content": opener}],
                "chosen": [{"role": "assistant", "content": best}],
                "rejected": [{"role": "assistant", "content": worst}],
                "chosen_score": high,
                "rejected_score": low,
            }
            rows.append(json.dumps(row, ensure_ascii=False))
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        print(f"{path.name}: {len(rows)} pairs")


if __name__ == "__main__":
    main()
