"""Every branch of the verdict, in words and numbers."""

from __future__ import annotations

from typing import Any

import example_run
import pytest

from tiltlm.report.course import Finding
from tiltlm.report.tiles import Bar, Tile, tiles
from tiltlm.report.verdict import findings, verdict
from tiltlm.runs.outcomes import Summary


def found(topic: str, **changed: Any) -> Finding:
    summary = example_run.record(Summary, example_run.summary() | changed)
    (finding,) = [finding for finding in findings(summary) if finding.topic == topic]
    return finding


@pytest.mark.parametrize(
    ("accuracy", "interval", "status", "words"),
    [
        (0.7, [0.6, 0.79], "shown", "70% of 40 held-out pairs (95% interval 60% to 79%): better than chance."),
        (0.55, [0.4, 0.7], "not shown", "40% to 70%): better than chance is not shown, for the interval includes 50%."),
        (0.6, [0.5, 0.7], "not shown", "better than chance is not shown"),
        (
            0.3,
            [0.2, 0.42],
            "caution",
            "20% to 42%): worse than chance. Check that chosen and rejected are not swapped.",
        ),
        (0.7, None, "not shown", "70% of 40 held-out pairs; without an interval, an effect is not shown."),
        (None, None, "not measured", "Held-out accuracy was not measured."),
    ],
)
def test_accuracy_is_shown_only_clear_of_chance(
    accuracy: float | None, interval: list[float] | None, status: str, words: str
) -> None:
    finding = found("Held-out accuracy", eval_accuracy=accuracy, eval_accuracy_interval=interval)
    assert finding.status == status
    assert words in finding.sentence


@pytest.mark.parametrize(
    ("difference", "status", "words"),
    [
        ({"mean": 0.2, "interval": [0.1, 0.3]}, "shown", "(vader) rose by 0.2 (95% interval 0.1 to 0.3), from 0.34 to"),
        ({"mean": -0.2, "interval": [-0.3, -0.1]}, "caution", "(vader) fell by 0.2 (95% interval -0.3 to -0.1)"),
        ({"mean": 0.05, "interval": [-0.1, 0.2]}, "not shown", "changed by +0.05 (95% interval -0.1 to 0.2)"),
        (
            {"mean": 0.05, "interval": [-0.1, 0.2]},
            "not shown",
            "a change is not shown, for the interval includes zero.",
        ),
        ({"mean": 0.05, "interval": None}, "not shown", "without an interval, an effect is not shown."),
        (None, "not measured", "The known reward (vader) of the answers was not measured."),
    ],
)
def test_reward_moved_only_clear_of_zero(difference: dict[str, Any] | None, status: str, words: str) -> None:
    finding = found("Known reward", reward_difference=difference)
    assert finding.status == status
    assert words in finding.sentence


def test_reward_that_was_never_set_and_win_rate() -> None:
    unset = found("Known reward", reward=None, reward_difference=None)
    assert unset.status == "not measured"
    assert "No known reward was set" in unset.sentence
    assert "higher reward in 70% of comparisons (95% interval 61% to 78%)" in found("Known reward").sentence
    assert "comparisons" not in found("Known reward", win_rate=None).sentence


CONTROLLED = {"mean": 0.62, "interval": [0.52, 0.713], "clusters": 40}


def test_the_win_rate_with_length_controlled_for_stands_beside_the_raw_one() -> None:
    sentence = found("Known reward", length_controlled_win_rate=CONTROLLED).sentence
    raw = "The trained model's answer has the higher reward in 70% of comparisons (95% interval 61% to 78%)"
    assert f"{raw}; with length controlled for, in 62% (95% interval 52% to 71.3%)." in sentence
    assert f"{raw}." in found("Known reward").sentence
    assert "rough" not in sentence
    few = found("Known reward", length_controlled_win_rate=CONTROLLED, counted_prompts=15).sentence
    assert few.endswith("71.3%). Intervals over fewer than 16 prompts are rough.")


def win_rate_tiles(**changed: Any) -> list[Tile]:
    shown = tiles(example_run.record(Summary, example_run.summary() | changed))
    return [tile for tile in shown if tile.label.startswith("Win rate")]


def test_tiles_of_win_rates() -> None:
    raw, controlled = win_rate_tiles(length_controlled_win_rate=CONTROLLED)
    assert (raw.value, controlled.value) == ("70%", "62%") and controlled.label.endswith("length-controlled")
    assert controlled.bar == Bar(0.62, 0.52, 0.713) and controlled.detail == "95% interval 52% to 71.3%"
    # A run of before there was such a figure has no tile that says it was not measured.
    assert [tile.value for tile in win_rate_tiles()] == ["70%"]
    _, withheld = win_rate_tiles(length_controlled_win_rate_why="every comparison is won, whatever the lengths")
    assert withheld.value is None and withheld.why == "Every comparison is won, whatever the lengths."
    for tile in win_rate_tiles(length_controlled_win_rate=CONTROLLED, counted_prompts=12):
        assert tile.detail.endswith(", a rough one: 12 prompts")


def test_divergence() -> None:
    topic = "Distance from the reference"
    moved = found(topic).sentence
    assert "3.2 nats of KL divergence per answer" in moved
    assert "(standard error 0.4, 80 sampled answers)." in moved
    still = found(topic, kl={"mean": 0.1, "standard_error": 0.2, "samples": 8, "temperature": 1.0})
    assert still.status == "not shown"
    assert "0.1 nats" in still.sentence
    assert found(topic, kl=None).status == "not measured"
    assert (
        "(1 sampled answer)"
        in found(topic, kl={"mean": 1, "standard_error": None, "samples": 1, "temperature": 1.0}).sentence
    )


@pytest.mark.parametrize(
    ("after", "sign"),
    [
        ({"repetition": 0.16}, "repeat themselves more"),
        ({"surprise": 2.3}, "read as unlikely to the reference"),
        ({"tokens": 61.0}, "became much longer"),
        ({"tokens": 15.0}, "became much shorter"),
    ],
)
def test_signs_of_incoherence_are_named(after: dict[str, float], sign: str) -> None:
    finding = found("Coherence", answers_after=example_run.summary()["answers_before"] | after)
    assert finding.status == "caution"
    assert f"Read the answers before believing the figures: they {sign} (" in finding.sentence


def test_coherent_answers() -> None:
    finding = found("Coherence")
    assert finding.status == "note"
    assert "length 30.1 to 33.4 tokens, repeated word trigrams 5% to 6%" in finding.sentence
    assert "1.2 to 1.3 nats per token" in finding.sentence
    assert found("Coherence", answers_before=None).status == "not measured"


def test_falling_chosen_log_probabilities_are_explained() -> None:
    falling = found("Log-probabilities")
    assert falling.status == "caution"
    figures = "chosen -1.2 (95% interval -1.9 to -0.5), rejected -4 (95% interval -5.1 to -2.9) nats"
    assert f"less likely too: {figures}" in falling.sentence
    assert "Only the margin between the two is in the loss" in falling.sentence
    assert "lower the learning rate or raise beta" in falling.sentence
    up = {"mean": 0.5, "interval": [0.1, 0.9]}
    rising = found("Log-probabilities", chosen_logp_change=up)
    assert rising.status == "note"
    assert rising.sentence.startswith("The chosen completions became more likely: chosen +0.5 (95% interval 0.1 to")
    crossed = found("Log-probabilities", rejected_logp_change=up).sentence
    assert "became less likely: chosen -1.2" in crossed and "rejected +0.5" in crossed
    assert found("Log-probabilities", chosen_logp_change=None, rejected_logp_change=None).status == "not measured"


def test_one_side_alone_has_its_log_probabilities_told() -> None:
    chosen = found("Log-probabilities", rejected_logp_change=None)
    assert chosen.status == "caution" and "less likely: chosen -1.2" in chosen.sentence
    assert "rejected" not in chosen.sentence
    rejected = found("Log-probabilities", chosen_logp_change=None)
    assert rejected.status == "note" and "changed: rejected -4 (95% interval -5.1 to -2.9) nats" in rejected.sentence


def test_labelled_answers_are_not_called_pairs_and_compared_with_no_chance() -> None:
    accuracy = found("Held-out accuracy", loss="kto")
    assert accuracy.status == "note" and "of 40 held-out examples (95% interval 60% to 79%)" in accuracy.sentence
    assert "sign of the label" in accuracy.sentence and "than chance" not in accuracy.sentence
    falling = found("Log-probabilities", loss="kto").sentence
    assert "less likely too" in falling and "the margin" not in falling and "lower the learning rate" in falling
    assert "2.1 examples per second" in found("Time and memory", loss="kto").sentence


def test_without_a_reference_a_ranking_may_be_that_of_the_model_as_it_was() -> None:
    worse = found("Held-out accuracy", loss="simpo", eval_accuracy=0.3, eval_accuracy_interval=[0.2, 0.42]).sentence
    assert worse.startswith("The reward ranks chosen above rejected in 30%") and "before it was trained" in worse
    assert (
        "before it was trained"
        not in found("Held-out accuracy", eval_accuracy=0.3, eval_accuracy_interval=[0.2, 0.42]).sentence
    )


def test_advice_names_only_settings_that_the_objective_has() -> None:
    assert "beta" not in found("Log-probabilities", beta=None).sentence


@pytest.mark.parametrize("mean", [-0.3, 0.3])
def test_a_change_of_log_probabilities_within_its_interval_is_not_shown(mean: float) -> None:
    within = found("Log-probabilities", chosen_logp_change={"mean": mean, "interval": [-0.7, 0.8]})
    assert within.status == "not shown" and "is not shown" in within.sentence
    assert "learning rate" not in within.sentence
    unknown = found("Log-probabilities", chosen_logp_change={"mean": mean, "interval": None})
    assert unknown.status == "not shown" and "without an interval" in unknown.sentence
    no_claim = found("Log-probabilities", rejected_logp_change={"mean": -4.0, "interval": [-9.0, 1.0]})
    assert "less likely:" in no_claim.sentence


@pytest.mark.parametrize("change", [0.0, -6.1e-5, 9e-5])
def test_a_run_in_which_nothing_moved_says_so(change: float) -> None:
    small = {"mean": change, "interval": [change - 1e-5, change + 1e-5]}
    still = found("Log-probabilities", chosen_logp_change=small, rejected_logp_change=small)
    assert still.status == "caution" and still.sentence.startswith("Nothing moved: chosen ")
    assert "learning rate is too small, or there were too few steps" in still.sentence
    assert "lower the learning rate" not in still.sentence


@pytest.mark.parametrize("error", [0.2, 0.01, None])
def test_a_negative_estimate_of_the_divergence_is_explained(error: float | None) -> None:
    kl = {"mean": -0.1, "standard_error": error, "samples": 8}
    finding = found("Distance from the reference", kl=kl)
    assert finding.status == "not shown" and "is never negative" in finding.sentence
    shown = tiles(example_run.record(Summary, example_run.summary() | {"kl": kl}))
    (tile,) = [tile for tile in shown if tile.label.startswith("KL")]
    assert tile.value == "-0.1" and "is never negative" in tile.detail


def test_time_and_memory() -> None:
    words = "The run took 3 min 30 s, 2 min 30 s of it in training, at 2.1 pairs per second, with 3.2 GiB of memory"
    assert words in found("Time and memory").sentence
    bare = found("Time and memory", stages=None, pairs_per_second=None, peak_memory_gib=None)
    assert bare.sentence == "The run took 3 min 30 s."
    assert found("Time and memory", seconds=None).status == "not measured"


def test_an_interruption_and_a_failed_check_come_first() -> None:
    failed = [{"name": "first loss is ln 2", "passed": False, "detail": "0.9 against 0.693147"}]
    changed = {"completed": False, "status": "interrupted", "checks": failed}
    summary = example_run.record(Summary, example_run.summary() | changed)
    assert verdict(summary)[:2] == [
        "The run was interrupted after 40 steps; what figures there are, are those of the model that was saved.",
        "The start-up check `first loss is ln 2` failed: 0.9 against 0.693147.",
    ]


def test_a_run_without_figures_says_so_and_claims_nothing() -> None:
    results = findings(example_run.record(Summary, example_run.unmeasured_summary()))
    assert results[0].sentence.startswith("The run was interrupted;")
    assert {finding.status for finding in results[1:]} == {"not measured"}
    assert all("not measured" in finding.sentence for finding in results[1:])


def test_sentences_are_ascii_for_any_console() -> None:
    assert all(sentence.isascii() for sentence in verdict(example_run.record(Summary, example_run.summary())))


def test_a_kl_at_another_temperature_is_named_so() -> None:
    topic, tempered = "Distance from the reference", {"mean": 2, "standard_error": 0.2, "samples": 8}
    plain = found(topic, kl={**tempered, "temperature": 1.0}, kl_at_temperature={**tempered, "temperature": 0.8})
    assert "2 nats of KL divergence per answer" in plain.sentence
    named = found(topic, kl=None, kl_at_temperature={**tempered, "temperature": 0.8})
    assert "2 nats of KL divergence at the sampling temperature 0.8 per answer" in named.sentence
    # Files of before the temperature was recorded.
    assert "KL divergence at the sampling temperature per answer" in found(topic, kl=tempered).sentence


def test_a_run_that_went_on_says_so() -> None:
    assert "Going on" not in {finding.topic for finding in findings(example_run.record(Summary, example_run.summary()))}
    finding = found("Going on", resumed=[{"step": 6}, {"step": 20}])
    assert (finding.status, finding.sentence) == (
        "note",
        "The run was stopped and went on, after step 6, 20, as if it had not been stopped.",
    )
    finding = found("Going on", resumed=[{"step": 6, "repeatable": False}])
    assert finding.sentence.endswith("as if it had not been stopped, but for rounding (training.deterministic).")
    other = "training.learning_rate: 1e-06 then, 2e-06 now"
    finding = found("Going on", resumed=[{"step": 6, "differences": [other]}, {"step": 9, "differences": [other]}])
    assert finding.status == "caution"
    assert finding.sentence.endswith(f"after step 6, 9, with something else than before: {other}.")
