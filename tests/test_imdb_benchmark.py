"""The parts of benchmarks/imdb_frontier.py that can err in silence: prompts, the reward, steps that need each other."""

from __future__ import annotations

import json
import random
import runpy
import time
from pathlib import Path

import pytest

import imdb_reward
from imdb_frontier import Plan, chosen
from imdb_plane import draw
from imdb_record import collected, told
from imdb_reward import Review, Tokens, accuracy, fit, make_prompts, make_reward, openings, pieces
from imdb_score import read_weights
from imdb_settings import SETTINGS, TINY
from imdb_steps import Outcome, Step, run_steps
from tiltlm.config.recipes import load_recipe
from tiltlm.config.round_stages import in_rounds
from tiltlm.config.validation import ready

FILLER = ["the", "film", "plot", "of", "a", "man", "who", "goes", "into", "town", "and", "sees", "his", "old", "house"]
PRAISE, BLAME = ["wonderful", "moving"], ["dreadful", "dull"]


def characters() -> Tokens:
    """A tokenizer whose tokens are characters."""
    return Tokens(lambda text: [ord(one) for one in text], lambda ids: "".join(map(chr, ids)))


def synthetic(count: int, seed: int) -> list[Review]:
    """Reviews in which one word of ten is of praise or of blame; every fourth is a test review."""
    draw, found = random.Random(seed), []
    for number in range(count):
        positive = draw.random() < 0.5
        words = [draw.choice(PRAISE if positive else BLAME) if n % 10 == 3 else draw.choice(FILLER) for n in range(90)]
        found.append(Review(" ".join(words), positive, "test" if number % 4 == 0 else "train"))
    return found


def test_the_reward_tells_praise_from_blame_and_is_what_the_judge_says(tmp_path: Path) -> None:
    reviews = synthetic(160, seed=0)
    trained = make_reward(reviews, tmp_path, seed=0)
    assert trained.review_accuracy == trained.piece_accuracy == 1
    assert (trained.reviews, trained.test_reviews, trained.test_pieces) == (120, 40, 80)
    assert read_weights(tmp_path / "reward.npz")[0].keys() > {*PRAISE, *BLAME, "the"}
    score = runpy.run_path(str(tmp_path / "own.py"))["score"]
    assert score("the film is", " wonderful") > 0.7 > 0.3 > score("the film is", " dreadful")
    # One text, wherever the prompt ends in it, and nothing is out of range or unknown.
    assert score("the film is won", "derful") == score("the film is", " wonderful")
    assert 0 < score("", "") < 1 and 0 < score("wonderful " * 500, "!") < 1


def test_other_weights_are_another_judge(tmp_path: Path) -> None:
    sources = set()
    for seed in (0, 1):
        make_reward(synthetic(60, seed), tmp_path, seed=0)
        sources.add((tmp_path / "own.py").read_text(encoding="utf-8"))
    assert len(sources) == 2


def test_the_fit_is_the_minimum_it_says_it_is() -> None:
    """At the minimum no small step of a weight or of the bias lowers the loss, which a second way computes."""
    texts = [(review.text, review.positive) for review in synthetic(40, seed=2)]
    l2 = 1e-2
    weights, bias = fit(texts, l2)

    def loss(changed: str, by: float) -> float:
        moved = {name: value + by * (name == changed) for name, value in weights.items()}
        squares = sum(value**2 for value in moved.values())
        return imdb_reward.log_loss(texts, moved, bias + by * (changed == "")) + l2 / 2 * squares

    least = loss("the", 0.0)
    for changed in ["", "the", "wonderful", "dull", *list(weights)[::40]]:
        assert all(loss(changed, by) > least for by in (-0.05, 0.05)), changed
    assert accuracy(texts, weights, bias) == 1


def test_pieces_are_of_the_text_start_with_its_first_words_and_do_not_overlap() -> None:
    words = [str(number) for number in range(230)]
    found = pieces(" ".join(words), random.Random(0))
    assert len(found) == 4 and found[0].split() == words[:40]
    every = [word for piece in found for word in piece.split()]
    assert len(every) == len(set(every)) == 160
    assert pieces("too short", random.Random(0)) == ["too short"]


def test_prompts_are_first_tokens_and_all_different() -> None:
    reviews = [Review(f"{chr(97 + n % 26)}{chr(97 + n // 26)} film, and more of it", True, "train") for n in range(300)]
    held_out = make_prompts(reviews, characters(), 30, seed=0)
    prompts = make_prompts(reviews, characters(), 60, seed=1, taken=[one.upper() for one in held_out])
    assert len({one.lower() for one in (*held_out, *prompts)}) == 90
    assert all(any(review.text.startswith(one) for review in reviews) for one in prompts)
    assert {len(one) for one in prompts} <= set(range(2, 9)) and all(one == one.strip() for one in prompts)
    assert prompts == make_prompts(reviews, characters(), 60, seed=1, taken=held_out)
    with pytest.raises(SystemExit, match="only"):
        make_prompts(reviews[:5], characters(), 60, seed=1)


def test_openings_are_cut_where_they_say_and_say_whether_they_ended() -> None:
    reviews = [Review("x" * 20, True, "train"), Review("x" * 10, True, "train")]
    rows = openings(reviews, characters(), 12, seed=0)
    assert [(str(row["prompt"]) + str(row["completion"]), row["ended"]) for row in rows] == [
        ("x" * 12, False),
        ("x" * 10, True),
    ]


def python(code: str) -> tuple[str, str]:
    return "-c", code


def test_a_step_that_fails_takes_along_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    steps = [
        Step("first", python(f"open('{tmp_path}/first', 'a').write('.')")),
        Step("broken", python("raise SystemExit('no such thing')")),
        Step("lost", python("pass"), ("broken",)),
        Step("lost too", python("pass"), ("lost",)),
        Step("waits", python(f"assert open('{tmp_path}/first').read()"), ("first",), ("broken",)),
    ]
    later = time.monotonic() + 60
    outcome = run_steps(steps, tmp_path, 2, later)
    assert set(outcome.seconds) == {"first", "waits"} and outcome.left_out == ["lost", "lost too"]
    assert "no such thing" in outcome.failed["broken"]
    mended = [steps[0], Step("broken", python("pass")), *steps[2:]]
    assert set(run_steps(mended, tmp_path, 2, later).seconds) == {one.name for one in steps}
    assert (tmp_path / "first").read_text() == "."  # it was not done again
    changed = [Step("first", steps[0].words, reads="other settings"), *mended[1:]]
    assert run_steps(changed, tmp_path, 1, time.monotonic() - 1).left_out == ["first", "waits"]


def test_every_setting_has_a_training_and_a_frontier_for_each_seed(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "reviews.jsonl", tmp_path, TINY, SETTINGS, 2)
    steps = {step.name: step for step in plan.steps()}
    assert len(steps) == 2 + 3 * 3 + 2 * 2 * len(SETTINGS)
    first = f"frontier-{SETTINGS[0].name}-s0"
    for setting in SETTINGS:
        for seed in (0, 1):
            name = f"{setting.name}-s{seed}"
            assert steps[f"frontier-{name}"].needs == (name,)
            assert steps[f"frontier-{name}"].after == (() if f"frontier-{name}" == first else (first,))
    # Their settings are what tiltlm takes, and effective.
    recipes = {place.stem: load_recipe(place) for place in (tmp_path / "configs").glob("*.toml")}
    assert len(recipes) == 1 + 2 * len(SETTINGS)
    for recipe in map(in_rounds, recipes.values()):
        ready(recipe.settings(0) if recipe.stages else recipe.base)
    rounds = {name for name, one in recipes.items() if one.base.rounds.count == 3}
    assert rounds == {f"{name}-s{n}" for name in ("rounds", "vectors") for n in "01"}
    known = set[str]()
    for step in steps.values():  # what a step waits for stands before it
        assert {*step.needs, *step.after} <= known
        known.add(step.name)
    with pytest.raises(SystemExit, match="no such setting"):
        chosen("dpo-0.1,dop", small=False)


def test_what_is_there_is_told_and_drawn_and_what_is_not_is_named(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "reviews.jsonl", tmp_path, TINY, SETTINGS[:2], 2)
    places = [(setting, seed, plan.run(setting, seed)) for setting in SETTINGS[:2] for seed in (0, 1)]
    nothing = collected(tmp_path, TINY, places, Outcome(failed={"start": f"exit status 2: {tmp_path}/x"}))
    assert "failed: start" in told(nothing) and str(tmp_path) not in nothing.failed["start"]

    demo = Path(__file__).parents[1] / "benchmarks" / "results" / "demo-frontier" / "frontier.json"
    kept = json.loads(demo.read_text(encoding="utf-8"))
    done = Outcome(seconds={f"frontier-{folder.name}": 1.0 for _, _, folder in places[:2]}, left_out=["rounds-s0"])
    for reward, (_, _, folder) in zip((0.5, 0.7), places, strict=False):
        folder.mkdir(parents=True)
        kept["path"][-1]["reward"]["mean"] = reward
        (folder / "frontier.json").write_text(json.dumps(kept), encoding="utf-8")
    record = collected(tmp_path, TINY, places, done)
    [mean] = record.means  # of the setting that has results
    assert (mean.name, mean.seeds, mean.told) == (SETTINGS[0].name, 2, 2)
    assert mean.reward.mean == pytest.approx(0.6) and mean.spread == pytest.approx(0.02**0.5)
    assert mean.share is not None and mean.share.mean == kept["path"][-1]["share"]["mean"]
    table = told(record).splitlines()
    assert "0.600" in next(line for line in table if line.startswith(SETTINGS[0].name))
    assert table[-1] == "left out: rounds-s0"
    draw(record, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_reviews_with_unknown_labels_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "reviews.jsonl"
    place.write_text(json.dumps({"text": "a\u2028b", "label": "good", "split": "train"}, ensure_ascii=False) + "\n")
    with pytest.raises(SystemExit, match="line 1"):
        imdb_reward.read_reviews(place)
