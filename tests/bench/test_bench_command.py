"""`tiltlm bench` from its words to its files: on a tiny model, its processes played by functions but for one."""

from __future__ import annotations

import dataclasses
import json
import math
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import write_model, write_pairs

from tiltlm.bench import processes, rounds
from tiltlm.bench.job import Job, Result, read_pairs
from tiltlm.bench.one_training import PEAK, REFERENCE, done
from tiltlm.bench.processes import FailedError, run_ours
from tiltlm.bench.speed_record import SpeedRecord, Timed
from tiltlm.bench.systems import ABLATED, COMPARED, SYSTEMS
from tiltlm.cli import main
from tiltlm.cli.bench_words import parse_bench
from tiltlm.config import settings_table
from tiltlm.errors import ConfigError, RunError
from tiltlm.runs.schema import from_json

ROOT = Path(__file__).parents[2]
OWN = ["--data.train", "pairs.jsonl", "--model.path", "tiny", "--model.precision", "float32", "--batch", "3"]
SHORT = [*OWN, "--steps", "2", "--rounds", "2"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "tiny")
    write_pairs(tmp_path / "pairs.jsonl", 12)
    processes.why_no_trl.cache_clear()
    return tmp_path


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Processes are functions in this one; what each did, in order."""
    did: list[str] = []

    def ours(what: str, job: Job) -> Result:
        did.append(what)
        if what == PEAK:
            return Result(peak=1e9)
        return done(what, from_json(Job, json.dumps(dataclasses.asdict(job)).encode()))

    monkeypatch.setattr(rounds, "run_ours", ours)
    return did


def record() -> SpeedRecord:
    return from_json(SpeedRecord, Path("speed/speed.json").read_bytes())


def said(words: list[str], capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert main(["bench", *words]) == code
    return capsys.readouterr().err


def test_two_rounds_of_ours_and_the_naive_loop(played: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *SHORT, "--systems", "naive", "ours", "ours-live"]) == 0
    assert played == [REFERENCE, PEAK, "ours", "ours-live", "naive", PEAK, "ours-live", "naive", "ours"]
    made = record()
    assert [one.system for one in made.figures] == ["ours", "ours-live", "naive"]
    assert len(made.measured) == 6 and made.peaks == (1e9, 1e9)
    for one in made.measured:
        assert len(one.timed.step_seconds) == len(one.timed.losses) == 2
        assert one.timed.losses[0] == pytest.approx(math.log(2), abs=1e-5)
        assert (one.timed.reference_seconds > 0) == (one.system == "ours-live")
    losses = {one.system: one.timed.losses[1] for one in made.measured}
    assert losses["ours"] == losses["ours-live"] == pytest.approx(losses["naive"], abs=1e-5)
    assert made.environment.command[:3] == ("tiltlm", "bench", "--data.train")
    assert {(one.system, one.by) for one in made.quotients} == {
        ("ours", "naive"),
        ("ours-live", "naive"),
        ("ours-live", "ours"),
    }
    shown = capsys.readouterr().out
    assert "tiltlm, reference cached" in shown and "pairs/s" in shown
    assert "tiny on pairs.jsonl: 3 pairs a step" in " ".join(shown.split())
    assert Path("speed/speed.png").is_file()


def test_an_ablation_from_end_to_end(played: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    names = [one.name for one in ABLATED if one.name not in ("compiled", "float32")]
    assert main(["bench", *OWN, "--steps", "2", "--rounds", "1", "--systems", "ours", *names]) == 0
    made = record()
    assert [one.system for one in made.figures] == ["ours", *names]
    losses = [one.timed.losses[1] for one in made.measured]
    assert losses == pytest.approx([losses[0]] * len(losses), abs=1e-5)
    assert "without packing" in capsys.readouterr().out


def test_where_there_is_no_trl_the_rest_is_measured(
    played: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "OF_TRL", "raise ImportError('no trl here')")
    assert main(["bench", *OWN, "--steps", "2", "--rounds", "1", "--systems", "ours", "trl"]) == 0
    made = record()
    assert [one.system for one in made.figures] == ["ours"]
    assert "has no TRL that can be used (ImportError: no trl here)" in made.left_out["trl"]
    shown = " ".join(capsys.readouterr().out.split())
    assert "left out: TRL, reference precomputed:" in shown and "--trl-python names another" in shown


def test_an_interpreter_that_is_not_there_is_a_mistake(played: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = said([*SHORT, "--systems", "ours", "trl", "--trl-python", "none/python"], capsys, 2)
    assert message == "tiltlm: --trl-python none/python cannot be run: No such file or directory.\n"
    assert played == []


def test_a_peer_that_fails_is_left_out_and_ours_is_not(
    played: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []

    def trl(system: Any, job: Job, *_: object) -> Result:
        told.append(system.name)
        if system.name == "trl-live" and told.count("trl-live") == 2:
            raise FailedError("it ran out")
        pairs = read_pairs(Path(job.pairs))
        assert len(pairs) == 6
        return Result(Timed((2.0, 4.0), (0.7, 0.6), 0.0, 1.0, {"trl": "9"}))

    monkeypatch.setattr(rounds, "run_trl", trl)
    monkeypatch.setattr(rounds, "why_no_trl", lambda python: None)
    assert main(["bench", *SHORT, "--systems", "trl", "ours", "trl-live"]) == 0
    made = record()
    assert [one.system for one in made.figures] == ["ours", "trl"]
    assert made.left_out == {"trl-live": "it failed: it ran out"}
    assert [one.seconds_per_step for one in made.figures][1] == 4.0
    capsys.readouterr()

    def fails(what: str, job: Job) -> Result:
        raise FailedError("nothing works")

    monkeypatch.setattr(rounds, "run_ours", fails)
    assert said([*SHORT, "--output", "other"], capsys, 1) == "tiltlm: nothing works\n"


def test_a_process_of_its_own(here: Path) -> None:
    """The reference's values, by the program that measures."""
    config = parse_bench(OWN).config
    pairs = here / "measured.jsonl"
    lines = [{"id": str(n), "prompt": [5, 6], "chosen": [7, n], "rejected": [8]} for n in range(4)]
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = Job(settings=settings_table(config), pairs=str(pairs), reference=str(here / "values"), steps=1, batch=4)
    assert run_ours(REFERENCE, job) == Result()
    assert list((here / "values").iterdir())


def test_a_process_that_fails_says_its_last_words(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(settings={}, pairs="", reference="", steps=1, batch=1)
    program = here / "python"
    for ending, words in (
        ("echo one; echo two >&2; echo three; echo four; exit 1", "two / three / four"),
        ("exit 3", "its process ended with exit code 3"),
        ("exit 0", "its process ended with exit code 0"),
        ("kill -9 $$", "its process was killed, as the system does where memory does not suffice"),
    ):
        program.write_text(f"#!/bin/sh\n{ending}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        with pytest.raises(FailedError) as error:
            run_ours("ours", job)
        assert str(error.value) == words


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--batch", "7"], "pairs.jsonl has 12 pairs that can be used, and 2 steps of 7 pairs need 14: lower --steps"),
        (["--loss.name", "ipo"], "loss.name ipo is not for tiltlm bench"),
        (["--training.optimizer", "rmsprop"], "training.optimizer rmsprop is not for tiltlm bench"),
        (["--model.reference", "tiny"], "model.reference is not for tiltlm bench"),
        (["--steps", "1"], "--steps is at least 2, as the first step is not counted, not 1."),
    ],
)
def test_what_cannot_be_measured_is_said(
    words: list[str], why: str, played: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert why in said([*SHORT, *words], capsys, 1 if "--batch" in words else 2)
    assert played == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--systems", "our"], "--systems has no `our`. Did you mean `ours`?"),
        (["--rounds", "0"], "--rounds must be at least 1, not 0."),
        (["--batch", "0"], "--batch must be at least 1, not 0."),
        (["--batch", "4", "--training.batch-pairs", "4"], "are one: leave one of them out"),
        (["--systems", "ours", "--trl-python", sys.executable], "--trl-python has no effect where TRL is not measured"),
        (["--stepps", "3"], "there is no option `--stepps`. Did you mean `--steps`?"),
    ],
)
def test_words_that_make_no_sense(words: list[str], why: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_bench(["--data.train", "pairs.jsonl", *words])
    assert why in str(error.value)


def test_which_systems_are_measured() -> None:
    def names(*words: str) -> list[str]:
        return [one.name for one in parse_bench(["--data.train", "pairs.jsonl", *words]).wanted.systems]

    assert names() == [one.name for one in COMPARED]
    assert names("--ablation") == ["ours", "ours-live", *(one.name for one in ABLATED)]
    assert names("--ablation", "--systems", "naive") == ["ours", "naive", *(one.name for one in ABLATED)]
    assert names("--systems", "naive", "ours") == ["ours", "naive"]
    assert list(SYSTEMS) == [one.name for one in (*COMPARED, *ABLATED)]


def test_a_benchmark_replaces_none(here: Path) -> None:
    (here / "speed").mkdir()
    parse_bench(OWN)
    (here / "speed" / "speed.png").touch()
    with pytest.raises(RunError, match=r"speed\.png is there already: name another folder"):
        parse_bench(OWN)
    with pytest.raises(RunError, match="is a file: name a folder"):
        parse_bench([*OWN, "--output", "pairs.jsonl"])


def test_stages_are_refused(here: Path) -> None:
    (here / "two.toml").write_text('[[stage]]\nname = "a"\n[stage.loss]\nname = "sft"\n[[stage]]\nname = "b"\n')
    with pytest.raises(ConfigError, match="has stages, and a benchmark is of one training"):
        parse_bench(["two.toml"])


def test_the_page_has_the_tables_of_the_records() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_speed_tables.py"))
    written = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert script["page"]() == written, "run `python scripts/make_speed_tables.py`"
    for one in SYSTEMS:
        assert f"| `{one}` |" in written or one in ("ours-live",), one


def test_a_section_of_the_page(played: list[str], here: Path) -> None:
    assert main(["bench", *SHORT, "--systems", "ours", "naive", "--output", "results/tiny"]) == 0
    script = runpy.run_path(str(ROOT / "scripts" / "make_speed_tables.py"))
    text = script["sections"](here / "results")
    assert text.startswith("### tiny\n")
    assert "| tiltlm, reference cached | " in text and "÷ naive loop, live reference" in text
    assert "    tiltlm bench --data.train pairs.jsonl" in text
    assert script["sections"](here / "none") == script["NONE"]
