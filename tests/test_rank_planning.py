"""What several ranks would take, held against what was measured of two, and against what must be so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import write_model, write_pairs

from tiltlm.cli import main
from tiltlm.model.memory import BESIDES, StepMemory
from tiltlm.pipeline.sizing.rank_planning import Cluster, Speed, Work, held, rank_plans, sent, speed_of

MEASURED = Path(__file__).parents[1] / "benchmarks" / "results" / "rank-costs" / "avx512.json"
SMOLLM2 = Work(columns=4096.0, weights=134_515_008, layers=106_202_880, largest=3_540_096, passes=1.0, busy=0.994)


def step_of(weights: int, trained: int | None = None, activations: int = 10**9) -> StepMemory:
    own = weights if trained is None else trained
    return StepMemory(weights, own, 4 * weights, 4 * own, 8 * own, activations, 10**7, 12 * own)


@pytest.mark.parametrize("shard", [0, 1])
def test_bytes_on_the_wire_are_those_that_were_counted_and_measured(shard: int) -> None:
    """Two ranks of SmolLM2-135M (benchmarks/rank_costs.py). gloo adds gradients up everywhere where it is to share them
    out, and so sends more than a ring would where all is shared out; where nothing is, it sends what was counted."""
    for jobs in json.loads(MEASURED.read_text())["rounds"]:
        (job,) = (one for one in jobs if one["ranks"] == 2 and one["shard"] == shard)
        of_a_rank = sum(sent(SMOLLM2, SMOLLM2.weights, 2, shard or 2))
        assert 2 * of_a_rank == pytest.approx(job["counted"], rel=1e-3)
        assert 2 * of_a_rank == pytest.approx(job["sent"], rel=0.01 if shard == 1 else 0.3)


clusters = st.tuples(st.integers(0, 7), st.integers(0, 4)).map(lambda p: Cluster(2 ** p[0], 2 ** p[1], 4e11, 5e10))
works = st.tuples(
    st.integers(10**6, 10**10), st.floats(0, 1), st.integers(1, 100), st.floats(1, 8), st.floats(0.1, 1)
).map(lambda p: Work(10_000.0, p[0], int(p[1] * p[0]), int(p[1] * p[0]) // p[2], p[3], p[4]))


@given(work=works, cluster=clusters)
def test_what_must_be_so(work: Work, cluster: Cluster) -> None:
    step, speed = step_of(work.weights), Speed(1e-4, 0.5)
    plans = rank_plans(work, step, cluster, speed)
    assert plans[0].shard == cluster.ranks and plans[-1].shard == 1
    for one in plans:
        groups = cluster.ranks // one.shard
        apart, together = sent(work, step.trained, cluster.ranks, one.shard)
        assert one.within + one.between == pytest.approx(apart + together)
        assert (apart == 0) == (one.shard == 1) and (together == 0) == (groups == 1)
        assert one.between == 0 or cluster.ranks > cluster.per_node
        assert one.at_best <= one.at_worst <= 2 * one.at_best + 1e-12
        # All ranks together, the idle time taken out, compute what one does.
        computed = (one.computing - speed.update / one.shard) * cluster.ranks * work.busy
        assert computed == pytest.approx(speed.column * work.columns)
        assert one.memory >= (step.weights + step.gradients + step.moments) / one.shard + step.activations
    alone = held(work, step, 1)
    assert alone == step.total + BESIDES


@given(work=works)
def test_sharing_out_to_more_ranks_never_takes_more_of_each(work: Work) -> None:
    step = step_of(work.weights)
    memory = [held(work, step, shard) for shard in (2, 4, 8, 64, 1024)]
    assert memory == sorted(memory, reverse=True)


def test_the_arithmetic_of_an_adapter_is_two_thirds_of_that_of_all_weights() -> None:
    whole, adapter = (speed_of(1e12, step_of(10**9, trained), again=False).column for trained in (10**9, 0))
    assert whole == pytest.approx(6e-3) and adapter == pytest.approx(4e-3)
    assert speed_of(1e12, step_of(10**9), again=True).column == pytest.approx(8e-3)


# The command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny")
    write_pairs(tmp_path / "pairs.jsonl", 24)
    return tmp_path


WORDS = ["--model.path", "tiny", "--data.train", "pairs.jsonl", "--model.precision", "float32"]


def test_several_ranks_are_planned_without_weights(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "tiny" / "model.safetensors").unlink()
    words = ["--ranks", "32", "--per-node", "8", "--tflops", "0.001", "--no-calibration"]
    assert main(["plan", *WORDS, *words, "--training.batch-pairs", "22"]) == 0
    shown = capsys.readouterr().out
    assert "A step on 32 ranks, 8 a machine" in shown and "at 0.001 TFLOP/s a device" in shown
    table = shown[shown.index("distributed.shard") :].splitlines()[1:4]
    assert [line.split()[0] for line in table] == ["32", "8", "1"]
    assert "10 ranks have nothing to do: training.batch_pairs is 22" in shown


def test_without_a_figure_the_speed_is_measured_here(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *WORDS, "--ranks", "2", "--training.batch-pairs", "8"]) == 0
    shown = capsys.readouterr().out
    assert "at the speed measured on this machine" in shown and "Time, told from" in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tflops", "400"], "--tflops has no effect without --ranks"),
        (["--ranks", "4", "--tflops", "nan"], "--tflops must be above 0"),
        (["--ranks", "4", "--tflops", "1", "--distributed.shard", "3"], "no multiple of it"),
        (["--ranks", "0"], "--ranks must be above 0"),
        (["--ranks", "4", "--within", "-1"], "--within must be above 0"),
        (["--ranks", "4", "--no-calibration"], "give --tflops"),
        (["--rnks", "4"], "Did you mean `--ranks`"),
    ],
)
def test_mistakes_are_said(here: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *WORDS, *words]) == 2
    assert says in capsys.readouterr().err
