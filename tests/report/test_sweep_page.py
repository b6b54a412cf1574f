"""The page of a sweep: what is called different is, and no winner is named that the data do not show."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_browser import CHROMIUM, POLICY, complaints

from tiltlm.report.differences import differences
from tiltlm.report.sweep_figures import MemberFigures
from tiltlm.report.sweep_findings import sweep_findings
from tiltlm.report.sweep_page import render_sweep
from tiltlm.report.sweep_plots import looks, on_frontier
from tiltlm.runs.estimates import Divergence, Estimate
from tiltlm.runs.held_out_pairs import HeldOutPair
from tiltlm.runs.rows import EvalRow
from tiltlm.runs.sweep_folder import MemberRecord, SweepRecord
from tiltlm.statistics import clustered_mean, clustered_means, holm, sign_flip_p_values

PAIRS = 200


def member(
    number: int, accuracy: float, seed: int, kl: float | None = None, reward: float | None = None
) -> MemberFigures:
    """A member of a grid of nine with so many pairs right, drawn by a seed; two pairs of each prompt."""
    draw = np.random.default_rng(seed)
    right = draw.random(PAIRS) < accuracy
    pairs = tuple(
        HeldOutPair(f"pairs.jsonl:{n}", n // 2, float(margin), float(margin) * 3)
        for n, margin in enumerate(np.where(right, 1.0, -1.0) * draw.random(PAIRS))
    )
    settings: dict[str, Any] = {
        "loss.name": ("sigmoid", "ipo", "simpo")[(number - 1) // 3],
        "loss.beta": (0.05, 0.1, 0.5)[(number - 1) % 3],
    }
    rows = tuple(
        EvalRow(
            step=step,
            epoch=step / 20,
            examples=PAIRS,
            seconds=1.0,
            loss=0.69,
            accuracy=0.5 + step * 0.001 * number,
            margin=step * 0.01 * number,
            chosen_logp=-40.0 - step / 20,
            rejected_logp=-42.0 - step / 10,
        )
        for step in range(0, 50, 10)
    )
    return MemberFigures(
        record=MemberRecord(number=number, name=f"{number:03d}-x", settings=settings, status="completed"),
        loss=settings["loss.name"],
        steps=40,
        seconds=65.0,
        accuracy=float(right.mean()),
        accuracy_interval=(float(right.mean()) - 0.06, float(right.mean()) + 0.06),
        margin=Estimate(0.3, (0.2, 0.4), PAIRS // 2),
        change=clustered_mean([pair.change for pair in pairs], [pair.prompt for pair in pairs]),
        kl=None if kl is None else Divergence(mean=kl, standard_error=0.3, samples=32, temperature=1.0),
        reward=None if reward is None else "vader",
        reward_change=None if reward is None else Estimate(reward, (reward - 0.1, reward + 0.1), 16),
        evaluations=rows,
        pairs=pairs,
    )  # fmt: skip


def record_of(members: list[MemberFigures]) -> SweepRecord:
    return SweepRecord(
        name="nine",
        settings={"model": {"path": "gpt2"}, "data": {"train": "pairs.jsonl"}, "loss": {"name": "sigmoid"}},
        values={"loss.name": ("sigmoid", "ipo", "simpo"), "loss.beta": (0.05, 0.1, 0.5)},
        members=tuple(one.record for one in members),
        command=("tiltlm", "sweep", "--loss.name", "sigmoid,ipo,simpo"),
    )  # fmt: skip


def said(members: list[MemberFigures]) -> dict[str, str]:
    found = sweep_findings(record_of(members), members, differences(members))
    return {finding.topic: finding.sentence for finding in found}


@pytest.fixture(scope="module")
def nine() -> list[MemberFigures]:
    return [member(n, 0.55 + 0.03 * n, n, kl=2.0 * n, reward=0.1 * min(n, 5)) for n in range(1, 10)]


def test_members_of_equal_worth_have_no_winner() -> None:
    members = [member(n, 0.65, n) for n in range(1, 10)]
    words = said(members)
    assert "no winner is shown" in words["Highest accuracy"]
    assert "chance has helped it" in words["Highest accuracy"]
    assert words["Held-out accuracy"].startswith("None of 36 comparisons over the same 200 held-out pairs")


def test_chance_alone_is_seldom_called_a_difference() -> None:
    """The level holds over all comparisons of a sweep together: of 20 sweeps without differences, at most a few."""
    named = 0
    for seed in range(20):
        members = [dataclasses.replace(member(n, 0.6, 1000 + 10 * seed + n)) for n in (1, 2, 3)]
        named += any(one.shown for one in differences(members).differences)
    assert named <= 4, "0.05 * 20 = 1 is expected at most"


def test_a_member_above_all_others_is_said_to_be(nine: list[MemberFigures]) -> None:
    members = [*(member(n, 0.5, n) for n in range(1, 9)), member(9, 0.95, 9)]
    words = said(members)["Highest accuracy"]
    assert words.startswith("Member 9 (loss.name simpo, loss.beta 0.5) has the highest held-out accuracy, 9")
    assert "It is above every other member by more than chance. It is the highest of 9 figures" in words
    found = differences(members)
    apart = found.between("accuracy", 9, 1)
    back = found.between("accuracy", 1, 9)
    assert apart is not None and back is not None and apart.shown and back.shown
    assert apart.estimate.mean == -back.estimate.mean == pytest.approx(0.955 - 0.5)


def test_members_that_did_not_come_to_their_end_are_not_compared(nine: list[MemberFigures]) -> None:
    stopped = dataclasses.replace(nine[0], record=dataclasses.replace(nine[0].record, status="pruned"))
    found = differences([stopped, *nine[1:]])
    assert {one.one for one in found.differences} | {one.other for one in found.differences} == set(range(2, 10))
    assert "stopped early by the pruner: 1" in said([stopped, *nine[1:]])["Members"]


def test_members_of_different_held_out_pairs_are_compared_over_those_they_share(nine: list[MemberFigures]) -> None:
    few = dataclasses.replace(nine[0], pairs=nine[0].pairs[:60])
    (figure, *_) = differences([few, nine[1]]).figures
    assert (figure.examples, figure.prompts) == (60, 30)
    others = dataclasses.replace(
        nine[0], pairs=tuple(dataclasses.replace(pair, id=f"x{pair.id}") for pair in nine[0].pairs)
    )
    assert said([others, nine[1]])["Differences"].startswith("No two members")  # fmt: skip


def test_the_frontier_joins_members_that_none_beats(nine: list[MemberFigures]) -> None:
    assert [one.record.number for one in on_frontier(nine)] == [1, 2, 3, 4, 5]
    assert "1 (+0.1 at 2 nats), 2 (+0.2 at 4 nats)" in said(nine)["Reward against KL"]


def test_colours_are_objectives_and_dashes_their_settings(nine: list[MemberFigures]) -> None:
    look = looks(record_of(nine))
    assert [look[n].colour for n in range(1, 10)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [look[n].dash for n in range(1, 10)] == [0, 1, 2] * 3


# The statistics behind it


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_its_definition(p_values: list[float]) -> None:
    """Adjusted p of the k-th smallest of m: the largest of (m - j + 1) p_(j) over j <= k, at most 1."""
    order = sorted(range(len(p_values)), key=lambda n: p_values[n])
    m = len(p_values)
    for k, n in enumerate(order):
        wanted = max(min(1.0, (m - j) * p_values[order[j]]) for j in range(k + 1))
        assert holm(p_values)[n] == wanted


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_sign_flips_are_those_of_all_signs() -> None:
    """Four prompts, differences 1, 2, 3, -1: of 16 signs the sum is at least 5 in size for 6: p = 6/16."""
    values = np.array([[1.0], [2.0], [3.0], [-1.0]])
    exact = np.mean([abs(sum(s * v for s, v in zip(signs, values[:, 0], strict=True))) >= 5
                     for signs in np.stack(np.meshgrid(*[[-1, 1]] * 4), -1).reshape(-1, 4)])  # fmt: skip
    assert exact == 6 / 16
    assert sign_flip_p_values(values, range(4), 40_000)[0] == pytest.approx(exact, abs=0.01)
    assert sign_flip_p_values(np.zeros((4, 1)), range(4))[0] == 1.0
    halves = np.repeat(values / 2, 2, axis=0)
    together = sign_flip_p_values(halves, [0, 0, 1, 1, 2, 2, 3, 3], 40_000)
    assert together[0] == sign_flip_p_values(values, range(4), 40_000)[0], "values of a prompt flip together"


def test_means_of_several_figures_are_those_of_each_alone() -> None:
    draw = np.random.default_rng(3)
    values, clusters = draw.normal(size=(60, 3)), draw.integers(0, 25, 60).tolist()
    for column, found in enumerate(clustered_means(values, clusters)):
        alone = clustered_mean(values[:, column].tolist(), clusters)
        assert found.mean == pytest.approx(alone.mean) and found.clusters == alone.clusters
        assert found.interval == pytest.approx(alone.interval, abs=0.02)


# In a browser


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser `chromium`")
@pytest.mark.parametrize("width", [1280, 380])
def test_nine_members_fit_a_phone_and_ask_for_nothing(nine: list[MemberFigures], tmp_path: Path, width: int) -> None:
    failed = MemberRecord(
        number=10, name="010-x", settings={"loss.name": "x" * 300}, status="failed", message="y" * 400
    )
    broken = MemberFigures(record=failed, loss="", steps=0, seconds=None)
    page = render_sweep(record_of([*nine, broken]), [*nine, broken], {1, 2})
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    document, complained = complaints(tmp_path / "page.html", tmp_path / "profile", "--dump-dom")
    assert complained == [], "its own styles are all allowed, and nothing else is asked for"
    assert document.count("<svg") == 10 + 4 and 'href="members/001-x/report.html"' in document
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", document)
    assert headings[:3] == ["What is shown", "Members", "Curves"] and headings[-1] == "Plan"
    measure = "<script>parent.document.title = `${innerWidth} ${document.documentElement.scrollWidth}`</script>"
    (tmp_path / "copy.html").write_text(POLICY.sub("", page).replace("</body>", f"{measure}</body>"), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(f'<title>?</title><iframe src="copy.html" style="width:{width}px;height:900px;border:0"></iframe>')
    document, _ = complaints(frame, tmp_path / "profile", "--window-size=1400,1000", "--dump-dom")
    assert f"<title>{width} {width}</title>" in document
    shutil.rmtree(tmp_path / "profile", ignore_errors=True)
