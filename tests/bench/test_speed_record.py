"""Figures, tables and pictures of a benchmark, from records made up."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from tiltlm.bench.speed_picture import draw_speed
from tiltlm.bench.speed_record import Measured, SpeedRecord, StepWork, Timed, with_figures
from tiltlm.bench.speed_table import ablated_rows, compared_rows, in_words, is_ablation, quotient_rows
from tiltlm.bench.systems import QUOTIENTS, SYSTEMS
from tiltlm.cli.bench_command import keep
from tiltlm.runs.environment import Environment
from tiltlm.runs.schema import from_json

LIVE = {one.name for one in SYSTEMS.values() if one.live}


def timed(first: float, *counted: float, reference: float = 0.0, gib: float | None = 2.0) -> Timed:
    return Timed((first, *counted), (math.log(2),) * (1 + len(counted)), reference, gib)


def record(*measured: Measured, forward: float | None = 3e9, **other: object) -> SpeedRecord:
    """Three steps of four pairs, the first not counted."""
    made = SpeedRecord(
        environment=Environment(
            command=("tiltlm", "bench"),
            versions={"torch": "2.13.0", "tiltlm": "1"},
            device="a processor",
            started="now",
        ),
        model="a/model",
        data="pairs.jsonl",
        batch=4,
        steps=3,
        rounds=len({one.round for one in measured}),
        precision="bfloat16",
        micro_batch_tokens=4096,
        max_length=512,
        load_before=0.5,
        load_after=None,
        work=(StepWork(100, 40, 300, forward), StepWork(120, 50, 320, forward)),
        peaks=(10e9, 12e9),
        measured=measured,
        left_out={"trl-live": "there is none"},
    )
    made = dataclasses.replace(made, **other)  # type: ignore[arg-type]
    return with_figures(made, SYSTEMS, LIVE, QUOTIENTS)


THREE_ROUNDS = (
    *(Measured("ours", n, timed(9.0, 1.0, s)) for n, s in ((1, 1.0), (2, 3.0), (3, 1.0))),
    *(Measured("trl", n, timed(9.0, 4.0, s, gib=8.0)) for n, s in ((1, 4.0), (2, 6.0), (3, 10.0))),
    *(Measured("ours-live", n, timed(0.0, 1.0, 1.0, reference=2.0, gib=None)) for n in (1, 2, 3)),
)


def test_figures_are_medians_of_the_steps_that_count() -> None:
    made = record(*THREE_ROUNDS)
    ours, live, trl = made.figures
    assert [one.system for one in made.figures] == ["ours", "ours-live", "trl"]
    # Eight pairs in 2, 4 and 2 seconds; the first step of 9 seconds is in none of them.
    assert (ours.pairs_per_second, ours.seconds_per_step, ours.peak_gib) == (4.0, 1.0, 2.0)
    # Two steps of 3 units of 3e9 operations in 2 seconds.
    assert (ours.useful, ours.of_peak) == (9e9, 9e9 / 12e9)
    # The reference's pass counts as time, and as one unit of work.
    assert (live.pairs_per_second, live.seconds_per_step, live.useful) == (2.0, 2.0, 2 * 4 * 3e9 / 4)
    assert live.peak_gib is None
    assert trl.seconds_per_step == 5.0


def test_quotients_are_medians_of_quotients_of_one_round() -> None:
    made = record(*THREE_ROUNDS)
    found = {(one.system, one.by): one for one in made.quotients}
    # 8/2, 10/4 and 14/2 seconds; the quotient of the medians would be 5.
    assert found["ours", "trl"].speed == 4.0
    assert found["ours", "trl"].memory == 0.25
    assert found["ours-live", "ours"].memory is None
    assert set(found) == {("ours", "trl"), ("ours-live", "ours")}


def test_a_round_that_one_of_them_lacks_is_in_no_quotient() -> None:
    made = record(*THREE_ROUNDS[:3], *THREE_ROUNDS[3:5])
    assert next(one for one in made.quotients if one.by == "trl").speed == pytest.approx((4.0 + 2.5) / 2)


def test_tables_say_what_there_is() -> None:
    made = record(*THREE_ROUNDS)
    assert compared_rows(made)[0] == ("tiltlm, reference cached", "4", "1", "2", "9", "75%")
    assert compared_rows(made)[1][3] == "–"
    assert quotient_rows(made) == [("tiltlm, reference cached ÷ TRL, reference precomputed", "4", "0.25")]
    words = "\n".join(in_words(made))
    assert "110 tokens" in words and "(310 with padding" in words and "12 GFLOP/s in bfloat16" in words
    assert "Left out: TRL, live reference: there is none" in words
    assert not is_ablation(made)


def test_what_is_not_known_is_not_made_up() -> None:
    made = record(*THREE_ROUNDS, forward=None)
    assert made.figures[0].useful is None and made.figures[0].of_peak is None
    assert compared_rows(made)[0][-2:] == ("–", "–")
    assert any("not told" in line for line in in_words(made))
    without = record(*THREE_ROUNDS, peaks=())
    assert (without.figures[0].useful, without.figures[0].of_peak) == (9e9, None)


def test_an_ablation_is_held_against_ours() -> None:
    made = record(*THREE_ROUNDS, *(Measured("no-packing", n, timed(9.0, 4.0, 4.0, gib=1.0)) for n in (1, 2, 3)))
    assert is_ablation(made)
    rows = ablated_rows(made)
    assert [row[0] for row in rows] == [SYSTEMS[name].words for name in ("ours", "ours-live", "no-packing")]
    assert rows[0][1:] == ("4", "1", "2", "1")
    assert rows[2][1:] == ("1", "0.25", "1", "0.5")
    assert not any("packing" in row[0] for row in compared_rows(made) + quotient_rows(made))


def test_the_record_is_read_back_and_the_picture_is_the_same_bytes(tmp_path: Path) -> None:
    made = record(*THREE_ROUNDS)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        keep(made, tmp_path / name)
    text = (tmp_path / "a" / "speed.json").read_bytes()
    assert from_json(SpeedRecord, text) == made
    assert json.loads(text)["schema"] == 1
    pictures = [(tmp_path / name / "speed.png").read_bytes() for name in ("a", "b")]
    assert pictures[0] == pictures[1] and pictures[0].startswith(b"\x89PNG")


def test_a_picture_of_one_system_and_of_memory_that_is_not_told(tmp_path: Path) -> None:
    draw_speed(record(Measured("ours", 1, timed(1.0, 1.0, 1.0, gib=None))), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000
