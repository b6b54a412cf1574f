"""Rounds from the model's own answers: whole, stopped anywhere and gone on with, and ended early."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from broken_runs import leave_undrawn
from test_recipes import enter, same, weights
from tiny_runs import write_model, write_pairs

import tiltlm.pipeline.stages.rounds_run as rounds_run
from tiltlm.answers.answer_file import read_answers
from tiltlm.answers.pair_file import NoPairsError
from tiltlm.cli import main
from tiltlm.config import config_from_dict
from tiltlm.config.recipes import Recipe
from tiltlm.config.round_stages import in_rounds
from tiltlm.config.validation import ready
from tiltlm.errors import ConfigError
from tiltlm.pipeline.stages.round_pairs import make_pairs
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.run_files import read_run

SETTINGS = """
[model]
path = "base"
precision = "float32"
[data]
train = "pairs.jsonl"
eval = "held_out.jsonl"
[training]
batch_pairs = 4
max_steps = 3
eval_every = 2
learning_rate = 1e-3
[comparison]
prompts = 6
samples = 1
max_new_tokens = 5
reward = "rules.toml"
[rounds]
count = 2
answers = 4
choose = "best-worst"
stop = false
"""
RULES = '[[rule]]\nname = "vowels"\npattern = "[aeiou]"\npoints = 1.0\nper_match = true\n'
RUN = Path("runs/run")
FIRST = RUN / "stages" / "1-round-1"


def write_all() -> None:
    write_model(Path("base"))
    write_pairs(Path("pairs.jsonl"), 24)
    lines = Path("pairs.jsonl").read_text().splitlines(keepends=True)
    # The first held-out prompts stand among the training prompts too: they must not be answered in a round.
    Path("held_out.jsonl").write_text("".join(lines[:8]))
    Path("rules.toml").write_text(RULES)
    Path("rounds.toml").write_text(SETTINGS)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two rounds were trained without a stop; no test changes it."""
    place = tmp_path_factory.mktemp("rounds")
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        enter(place, patch)
        write_all()
        assert main(["train", "rounds.toml"]) == 0
    return place


@pytest.fixture
def finished(unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    """A working folder in which the rounds were trained."""
    return enter(shutil.copytree(unbroken, tmp_path / "finished"), monkeypatch)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    enter(tmp_path, monkeypatch)
    write_all()
    return tmp_path


def settings(run: Path) -> dict[str, dict[str, object]]:
    return read_run(run).settings


def test_each_round_learns_from_answers_of_the_model_before_it_held_to_the_model_before_all(finished: Path) -> None:
    first, second = settings(FIRST), settings(RUN)
    assert (first["model"]["path"], first["model"]["reference"]) == ("base", None)
    assert (second["model"]["path"], second["model"]["reference"]) == (str(FIRST / "model"), "base")
    drawn = [read_answers(RUN / "rounds" / number / "answers.jsonl") for number in "12"]
    models = [{row.drawn.weights for row in rows if row.drawn is not None} for rows in drawn]
    assert len(models[0]) == len(models[1]) == 1 and models[0] != models[1]
    held_out = {json.loads(line)["prompt"] for line in Path("held_out.jsonl").read_text().splitlines()}
    assert not held_out & {str(row.prompt) for rows in drawn for row in rows}
    for number, run in zip("12", (FIRST, RUN), strict=True):
        pairs = [json.loads(line) for line in (RUN / "rounds" / number / "pairs.jsonl").read_text().splitlines()]
        assert pairs and all(pair["chosen_score"] > pair["rejected_score"] for pair in pairs)
        assert all(pair["chosen_ended"] in (True, False) for pair in pairs)
        assert read_run(run).data.sources[0].pairs == len(pairs)


def test_each_round_has_its_point_on_the_frontier(finished: Path) -> None:
    one, two = read_run(FIRST).frontier, read_run(RUN).frontier
    assert one is not None and two is not None
    assert [point.name for point in two.path] == ["round 1", "round 2"]
    assert two.path[0] == one.path[0] and two.reference == one.reference
    assert (two.settings.prompts, two.settings.reference_answers) == (6, 128)
    page = (RUN / "report.html").read_text()
    assert "How close to the best possible" in page and "round 2" in page and "1-round-1" in page


@pytest.mark.parametrize("lost", ["answers", "judged", "pairs", "training", "frontier"])
def test_killed_anywhere_it_goes_on_to_the_same_bits(finished: Path, lost: str) -> None:
    """What a kill in the second round leaves: a file that is cut short, and nothing of what comes after it."""
    before, frontier = weights(RUN), (RUN / "frontier.json").read_bytes()
    files = ["answers", "judged", "pairs"]
    for name in files[files.index(lost) :] if lost in files else []:
        path = RUN / "rounds" / "2" / f"{name}.jsonl"
        content = path.read_bytes()
        path.unlink()
        if name == lost:
            path.write_bytes(content[: len(content) // 2])
    if lost != "frontier":
        for name in ("model", "checkpoints", "frontier"):
            shutil.rmtree(RUN / name, ignore_errors=True)
        for name in ("config.json", "data_report.json", "metrics.jsonl", "outcome.json", "summary.json"):
            (RUN / name).unlink(missing_ok=True)
    (RUN / "frontier.json").unlink()
    assert main(["train", "--resume", str(RUN)]) == 0
    assert same(weights(RUN), before)
    assert (RUN / "frontier.json").read_bytes() == frontier


def test_a_run_that_was_moved_goes_on_where_it_is(finished: Path) -> None:
    before = weights(RUN)
    for name in (
        "model",
        "checkpoints",
        "frontier",
        "config.json",
        "data_report.json",
        "metrics.jsonl",
        "frontier.json",
    ):
        path = RUN / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    moved = RUN.rename("runs/moved")
    # What lies at the old place is another run's.
    Path("runs/run/rounds/2").mkdir(parents=True)
    Path("runs/run/rounds/2/pairs.jsonl").write_text("no pairs\n")
    assert main(["train", "--resume", str(moved)]) == 0
    assert same(weights(moved), before)
    assert main(["frontier", str(moved), "--reference-answers", "128"]) == 0


def test_the_same_command_does_not_replace_answers_that_a_kill_left(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rounds_run, "train", killed)
        assert main(["train", "rounds.toml"]) == 130
    kept = (RUN / "rounds" / "1" / "pairs.jsonl").read_bytes()
    Path("rounds.toml").write_text(SETTINGS.replace("count = 2", "count = 1"))
    assert main(["train", "rounds.toml"]) == 0
    assert (RUN / "rounds" / "1" / "pairs.jsonl").read_bytes() == kept
    assert Path("runs/run-2").is_dir()


def gains(*lows: float) -> Iterator[Estimate]:
    """What rounds gain, as it is told: a lower end below nought ends them."""
    return (Estimate(low + 0.2, (low, low + 0.4), 6) for low in lows)


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_round_that_gained_nothing_is_the_last_and_the_run_is_whole(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rounds: int
) -> None:
    told = gains(*[0.1, 0.1] * (rounds - 1), -0.1, -0.1, -0.1)
    monkeypatch.setattr(rounds_run, "bootstrap_mean", lambda values: next(told))
    Path("rounds.toml").write_text(SETTINGS.replace("stop = false", "").replace("count = 2", "count = 3"))
    assert main(["train", "rounds.toml"]) == 0
    assert "gained nothing that is clear of chance, which few prompts (6)" in capsys.readouterr().out
    assert not (RUN / "rounds" / str(rounds + 1)).exists()
    run = read_run(RUN)
    assert run.stage == f"round-{rounds}" and run.frontier is not None and (RUN / "model").is_dir()
    assert [stage.name for stage in run.earlier] == ["round-1"][: rounds - 1]
    assert run.summary is not None and (run.summary.run, len(run.summary.earlier)) == ("run", rounds - 1)
    before = weights(RUN)
    for words in (["--resume", str(RUN)], ["rounds.toml", "--auto-resume"], ["rounds.toml", "--resume", str(RUN)]):
        monkeypatch.setattr(rounds_run, "bootstrap_mean", lambda values: Estimate(0.1, (-0.1, 0.3), 6))
        assert main(["train", *words]) == 0
    assert same(weights(RUN), before)
    assert main(["report", str(RUN)]) == 0


@pytest.mark.parametrize("moved", [0, 3, 8])
def test_killed_while_it_ends_early_it_is_whole_the_next_time(
    here: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    monkeypatch.setattr(rounds_run, "bootstrap_mean", lambda values: Estimate(0.1, (-0.1, 0.3), 6))
    Path("rounds.toml").write_text(SETTINGS.replace("stop = false", ""))
    left, whole = moved, Path.replace

    def replaced(path: Path, target: Path) -> Path:
        nonlocal left
        if path.parent == FIRST and (RUN / "rounds" / "ended.json").is_file():
            if not left:
                raise KeyboardInterrupt
            left -= 1
        return whole(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replaced)
        assert main(["train", "rounds.toml"]) == 130
    assert FIRST.is_dir()
    trained = [path for path in (FIRST, RUN) if (path / "model").is_dir()]
    before = weights(trained[0])
    assert main(["train", "--resume", str(RUN)]) == 0
    assert not FIRST.exists() and same(weights(RUN), before)
    assert read_run(RUN).stage == "round-1"


def test_a_later_round_without_pairs_ends_the_rounds(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_later(*given: object) -> None:
        if given[3]:
            raise NoPairsError("all alike")
        make_pairs(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(rounds_run, "make_pairs", none_later)
    assert main(["train", "rounds.toml"]) == 0
    assert read_run(RUN).stage == "round-1" and "all alike" in (RUN / "rounds" / "ended.json").read_text()


def test_data_that_are_laid_out_otherwise_are_read_as_they_are_said_to_be(here: Path) -> None:
    for name in ("pairs.jsonl", "held_out.jsonl"):
        Path(name).write_text(Path(name).read_text().replace('"prompt"', '"question"').replace('"chosen"', '"good"'))
    columns = "[data.columns]\nprompt = 'question'\nchosen = 'good'\n"
    Path("rounds.toml").write_text(SETTINGS.replace("[training]", columns + "[training]"))
    assert main(["train", "rounds.toml"]) == 0
    assert read_run(RUN).data.sources[-1].pairs == 8


@pytest.mark.parametrize("loss", ["rebel", "infonca", "plackett_luce"])
def test_a_loss_of_lists_learns_from_all_judged_answers(here: Path, loss: str) -> None:
    """A pair is all that a held-out example has, with its scores: a list of two."""
    rows = [json.loads(line) for line in Path("held_out.jsonl").read_text().splitlines()]
    scored = [{**row, "chosen_score": 2.0, "rejected_score": 1.0} for row in rows]
    Path("held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scored))
    text = SETTINGS.replace('choose = "best-worst"\n', "") + f'[loss]\nname = "{loss}"\n'
    Path("rounds.toml").write_text(text)
    assert main(["train", "rounds.toml"]) == 0
    for number, run in zip("12", (FIRST, RUN), strict=True):
        judged = read_answers(RUN / "rounds" / number / "judged.jsonl")
        # An answer that is empty costs its list no other.
        usable = [{answer.reward for answer in row.answers if answer.text.strip()} for row in judged]
        assert any(not answer.text.strip() for row in judged for answer in row.answers)
        learnt = read_run(run).data.sources[0]
        assert (learnt.pairs, learnt.rows_dropped) == (sum(len(rewards) > 1 for rewards in usable), 0)


def test_held_out_pairs_without_scores_are_told_before_the_first_answer(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rounds.toml").write_text(SETTINGS.replace('choose = "best-worst"\n', "") + '[loss]\nname = "rebel"\n')
    assert main(["train", "rounds.toml"]) == 1
    assert "held_out.jsonl" in capsys.readouterr().err
    assert not (RUN / "rounds").exists()


def test_which_answers_make_a_pair_is_nothing_to_a_loss_of_lists(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rounds.toml").write_text(SETTINGS + '[loss]\nname = "rebel"\n')
    assert main(["train", "rounds.toml"]) != 0
    assert "rounds.choose has no effect on the loss `rebel`" in capsys.readouterr().err


def test_an_objective_without_a_reference_goes_in_rounds_too(here: Path) -> None:
    Path("rounds.toml").write_text(SETTINGS + "[loss]\nname = 'simpo'\n")
    assert main(["train", "rounds.toml"]) == 0
    assert settings(RUN)["model"]["reference"] is None


def test_a_reference_that_moves_is_the_model_of_the_round_before(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rounds.toml").write_text(SETTINGS + 'reference = "last"\nprompts = 7\ntemperature = 0.5\n')
    assert main(["train", "rounds.toml"]) == 0
    assert "drawn at temperature 0.5 (rounds.temperature) and learnt from at 1" in capsys.readouterr().out
    assert settings(RUN)["model"]["reference"] is None
    asked = [{row.id for row in read_answers(RUN / "rounds" / number / "answers.jsonl")} for number in "12"]
    assert len(asked[0]) == len(asked[1]) == 7 and not asked[0] & asked[1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rounds": {"answers": 3}}, "no effect without rounds"),
        ({"rounds": {"count": 1}, "data": {"eval": "x"}}, "somebody who judges"),
        ({"rounds": {"count": 1, "judge": "none"}}, "somebody has to judge"),
        ({"rounds": {"count": 1, "judge": "labels:people.jsonl"}}, "people have not seen"),
        ({"rounds": {"count": 1, "judge": "vader"}}, "name data.eval"),
        ({"rounds": {"count": 1, "judge": "vader", "choose": "gap"}, "data": {"eval": "x"}}, "most_pairs or"),
        ({"rounds": {"count": 1, "judge": "vader"}, "data": {"eval": "x"}, "loss": {"name": "sft"}}, "pairs or lists"),
    ],
    ids=["no count", "no judge", "none", "people", "no held-out data", "gap", "imitation"],
)
def test_what_rounds_cannot_be_is_refused(changed: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ready(in_rounds(Recipe(config_from_dict(changed))).base)


def test_a_named_reference_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "rounds.toml", "--model.reference", "base"]) == 2
    assert "model.reference has no effect on rounds" in capsys.readouterr().err


def test_rounds_beside_stages_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rounds.toml").write_text(SETTINGS + "[[stage]]\nname = 'other'\ntraining = { warmup_steps = 1 }\n")
    assert main(["train", "rounds.toml"]) == 2
    assert "not both" in capsys.readouterr().err


def test_a_sweep_of_rounds_is_refused_and_a_plan_says_what_it_is_of(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "rounds.toml", "--loss.beta", "0.1,0.2"]) == 2
    assert "a sweep trains no rounds" in capsys.readouterr().err
    assert main(["plan", "rounds.toml", "--no-calibration"]) == 0
    assert "the pairs of [rounds] are not there yet" in capsys.readouterr().out
