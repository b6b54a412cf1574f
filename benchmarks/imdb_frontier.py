"""The DPO paper's controlled-sentiment experiment in small: many methods on one plane of reward and KL.

    python benchmarks/imdb_frontier.py --data imdb-5000.jsonl.gz --work FOLDER --output benchmarks/results/imdb-frontier

The embedded model is trained to write openings of IMDB reviews (`sft`), which gives the reference. It answers the
first 2 to 8 tokens of reviews, a sentiment classifier that is the true reward judges, pairs are made, and each method
of imdb_settings.py is trained on the same ones (arXiv 2305.18290, section 6). `tiltlm frontier` then places every model
between the reference and the limit, on held-out prompts. Seeds differ in the training prompts, which no two of them
share, and so in answers and pairs; the reference, the held-out prompts and the random numbers are the same.

All work is done by tiltlm's own commands, as processes, --jobs at once; logs/, configs/ and runs/ in the work folder
keep everything. The same command again does what is missing. `--small` takes some 3 minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from transformers import AutoTokenizer

from imdb_plane import draw
from imdb_record import collected, told
from imdb_reward import Tokens, make_prompts, openings, read_reviews
from imdb_settings import BATCH, LEARNING_RATE, SETTINGS, SMALL, TINY, Setting, Sizes
from imdb_steps import Step, run_steps
from machine import write_record
from tiltlm.config.loss_config import learns_lists
from tiltlm.config.toml_text import toml_value
from tiltlm.model.embedded import embedded_model

HELD_OUT, START = "held-out", "start"
TILTLM = ("-m", "tiltlm")
REWARD_SCRIPT = Path(__file__).with_name("imdb_reward.py")


Sections = dict[str, dict[str, object]]
"""Options of tiltlm by their section."""


class Plan:
    """The steps, and the files in the work folder that they read and write."""

    def __init__(self, data: Path, work: Path, sizes: Sizes, settings: Sequence[Setting], seeds: int) -> None:
        self.data, self.work, self.sizes, self.settings, self.seeds = data, work, sizes, settings, seeds
        self.judge = f"{work / 'own.py'}:score"

    def steps(self) -> Iterator[Step]:
        """All of them. The first training's frontier comes as early as can be: it draws the reference's answers, which
        all others read from the cache."""
        yield self._start()
        of_reviews = () if self.sizes.reviews is None else ("--reviews", str(self.sizes.reviews))
        given = ("--data", str(self.data), "--work", str(self.work))
        yield Step("reward", (str(REWARD_SCRIPT), *given, *of_reviews))
        for name in (HELD_OUT, *(f"seed-{seed}" for seed in range(self.seeds))):
            yield from self._pairs(name)
        frontiers: list[Step] = []
        for setting in self.settings:
            for seed in range(self.seeds):
                yield self._training(setting, seed)
                placed = self._frontier(setting, seed, tuple(one.name for one in frontiers[:1]))
                frontiers.append(placed)
                if len(frontiers) == 1:
                    yield placed
        yield from frontiers[1:]

    def run(self, setting: Setting, seed: int) -> Path:
        """The folder of a training."""
        return self.work / "runs" / f"{setting.name}-s{seed}"

    def make_prompts(self) -> None:
        """Writes prompts and openings, which take a moment; the same ones each time."""
        reviews = read_reviews(self.data)[: self.sizes.reviews]
        train, test = ([one for one in reviews if one.split == split] for split in ("train", "test"))
        tokenizer, sizes = AutoTokenizer.from_pretrained(embedded_model()), self.sizes
        tokens = Tokens(
            lambda text: list(tokenizer.encode(text, add_special_tokens=False)), lambda ids: str(tokenizer.decode(ids))
        )
        held_out = make_prompts(test, tokens, sizes.held_out, seed=0)
        self._write(f"{HELD_OUT}.prompts.jsonl", [{"id": f"held-{n}", "prompt": one} for n, one in enumerate(held_out)])
        prompts = make_prompts(train, tokens, sizes.prompts * self.seeds, seed=1, taken=held_out)
        for seed in range(self.seeds):
            own = prompts[seed * sizes.prompts : (seed + 1) * sizes.prompts]
            rows = [{"id": f"seed-{seed}-{number}", "prompt": one} for number, one in enumerate(own)]
            self._write(f"seed-{seed}.prompts.jsonl", rows)
        self._write("openings.jsonl", openings(train[: sizes.imitated], tokens, sizes.opening, seed=2))
        held = openings(test[: sizes.imitated_held_out], tokens, sizes.opening, seed=3)
        self._write("openings.held-out.jsonl", held)

    def _write(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (self.work / name).write_text("".join(lines), encoding="utf-8")

    def _start(self) -> Step:
        """The reference: the embedded model, after openings of reviews."""
        data = {"train": str(self.work / "openings.jsonl"), "eval": str(self.work / "openings.held-out.jsonl")}
        return self._trained(START, {"model": {"path": "embedded"}, "data": data, "loss": {"name": "sft"}}, ())

    def _pairs(self, name: str) -> Iterator[Step]:
        """The reference's answers to a set of prompts, their rewards and their pairs."""
        prompts, answers, judged, pairs = (
            str(self.work / f"{name}.{kind}.jsonl") for kind in ("prompts", "answers", "judged", "pairs")
        )
        sizes, held_out = self.sizes, name == HELD_OUT
        count = sizes.held_out_answers if held_out else sizes.answers
        room = ("--max-new-tokens", str(sizes.max_new_tokens))
        asked = ("--prompts", prompts, "--form", "text", "--answers", str(count), *room, "--precision", "float32")
        model = str(self.work / "runs" / START)
        yield Step(f"answers-{name}", (*TILTLM, "sample", model, "--output", answers, *asked), (START,))
        judging = ("judge", answers, "--judge", self.judge, "--output", judged)
        yield Step(f"judged-{name}", (*TILTLM, *judging), (f"answers-{name}", "reward"))
        few = ("--choose", sizes.choose, "--most-pairs", str(sizes.most_pairs))
        chosen = ("--choose", "best-worst") if held_out else few
        made = ("pair", judged, "--output", pairs, *chosen, "--overwrite")
        yield Step(f"pairs-{name}", (*TILTLM, *made), (f"judged-{name}",))

    def _training(self, setting: Setting, seed: int) -> Step:
        train, held_out = (self.work / f"{name}.jsonl" for name in (f"seed-{seed}.{setting.data}", f"{HELD_OUT}.pairs"))
        sections: Sections = {
            "model": {"path": str(self.work / "runs" / START / "model")},
            "data": {"train": str(train), "eval": str(held_out)},
            "loss": setting.loss,
            "training": setting.training,
        }
        if setting.rounds:
            drawn: dict[str, object] = {"answers": self.sizes.answers}
            if not learns_lists(str(setting.loss["name"])):
                drawn |= {"choose": self.sizes.choose, "most_pairs": self.sizes.most_pairs}
            sections["rounds"] = {"judge": self.judge, **drawn, **setting.rounds}
        needs = (f"pairs-seed-{seed}", f"pairs-{HELD_OUT}")
        return self._trained(self.run(setting, seed).name, sections, needs)

    def _trained(self, name: str, sections: Mapping[str, Mapping[str, object]], needs: tuple[str, ...]) -> Step:
        """A training with these options, without answers or evaluations on the way: `frontier` draws its own."""
        rate = {"learning_rate": LEARNING_RATE, "batch_pairs": BATCH, "warmup_steps": self.sizes.warmup}
        common: Sections = {
            "run": {"name": name, "directory": str(self.work / "runs"), "overwrite": True},
            "model": {"save_dtype": "float32"},
            "data": {"max_length": 128},
            "training": {**rate, "eval_every": 0},
            "checkpoint": {"every_steps": 0, "every_minutes": 0.0, "best": "none"},
            "comparison": {"prompts": 0, "temperature": 1.0, "max_new_tokens": self.sizes.max_new_tokens},
        }
        lines = list[str]()
        for section in dict.fromkeys([*common, *sections]):
            options = {**common.get(section, {}), **sections.get(section, {})}
            lines += [f"[{section}]", *(f"{key} = {toml_value(value)}" for key, value in options.items()), ""]
        text, place = "\n".join(lines), self.work / "configs" / f"{name}.toml"
        place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")
        return Step(name, (*TILTLM, "train", str(place)), needs, reads=text)

    def _frontier(self, setting: Setting, seed: int, after: tuple[str, ...]) -> Step:
        run, sizes = self.run(setting, seed), self.sizes
        asked = ("--prompts", str(sizes.held_out), "--reference-answers", str(sizes.reference_answers))
        words = (
            "frontier",
            str(run),
            "--reward",
            self.judge,
            *asked,
            "--answers",
            str(sizes.model_answers),
            "--no-checkpoints",
        )
        return Step(f"frontier-{run.name}", (*TILTLM, *words), (run.name,), after)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="reviews: JSON lines with text, label and split")
    parser.add_argument("--work", type=Path, required=True, help="a folder for runs and answers, 7 GB a seed")
    parser.add_argument("--output", type=Path, required=True, help="a folder for frontier.json and figure.png")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each setting")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--small", action="store_true", help="tiny counts, one seed and few settings")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no step begins after so many")
    parser.add_argument("--only", default="", help="names of settings, with commas between them")
    return parser.parse_args()


def chosen(only: str, small: bool) -> list[Setting]:
    """The settings that were named; of a small run a few, where none are."""
    known = [one.name for one in SETTINGS]
    names = only.split(",") if only else SMALL if small else known
    if unknown := [one for one in names if one not in known]:
        raise SystemExit(f"no such setting: {', '.join(unknown)}. There are: {', '.join(known)}")
    return [one for one in SETTINGS if one.name in names]


def same_sizes(work: Path, sizes: Sizes) -> None:
    """Refuses a work folder that was begun with other counts."""
    place, asked = work / "sizes.json", json.loads(json.dumps(dataclasses.asdict(sizes)))
    work.mkdir(parents=True, exist_ok=True)
    if place.is_file() and json.loads(place.read_text(encoding="utf-8")) != asked:
        raise SystemExit(f"{work} was begun with other counts: name another --work, or remove it.")
    place.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Does what is missing, and writes what there is."""
    arguments = parsed()
    until = time.monotonic() + arguments.seconds
    # So that a command that is told to stop takes its processes along.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # Names of downloads would be looked up again by every process.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sizes, work = TINY if arguments.small else Sizes(), arguments.work.resolve()
    same_sizes(work, sizes)
    seeds = 1 if arguments.small else arguments.seeds
    plan = Plan(arguments.data.resolve(), work, sizes, chosen(arguments.only, arguments.small), seeds)
    plan.make_prompts()
    outcome = run_steps(list(plan.steps()), work, arguments.jobs, until)
    places = [(one, seed, plan.run(one, seed)) for one in plan.settings for seed in range(seeds)]
    record = collected(work, sizes, places, outcome)
    write_record(record, arguments.output / "frontier.json")
    if record.means:
        draw(record, arguments.output / "figure.png")
    print(told(record))


if __name__ == "__main__":
    main()
