"""How many tokens a forward pass takes is chosen by memory, said, recorded, and kept by a run that goes on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tiny_runs import write_model, write_pairs

from tiltlm.cli import main
from tiltlm.config import Config, TrainingConfig
from tiltlm.config.sweeping import Range
from tiltlm.errors import ConfigError, OutOfMemoryError
from tiltlm.model.available_memory import available_memory
from tiltlm.model.memory import BESIDES
from tiltlm.pipeline import remedies
from tiltlm.pipeline.prepare import prepare
from tiltlm.pipeline.reporter import LogReporter
from tiltlm.pipeline.setup import set_up
from tiltlm.pipeline.sizing import planning, token_budget
from tiltlm.pipeline.sizing.planning import plan_run
from tiltlm.pipeline.sizing.run_memory import HEADROOM
from tiltlm.pipeline.sizing.short_of_memory import memory_explained
from tiltlm.plan.row_layout import BLOCKS

CPU = torch.device("cpu")
WORDS = ["--model.path", "tiny", "--data.train", "pairs.jsonl", "--model.precision", "float32"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", "cache")
    write_model(Path("tiny"))
    write_pairs(Path("pairs.jsonl"))
    return tmp_path


def settings(tokens: int | None = None) -> Config:
    config = Config()
    training = TrainingConfig() if tokens is None else TrainingConfig(micro_batch_tokens=tokens)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, path="tiny", precision="float32"),
        data=dataclasses.replace(config.data, train="pairs.jsonl"),
        training=training,
    )


def with_memory(there: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (token_budget, planning, remedies):
        monkeypatch.setattr(module, "available_to_a_rank", lambda ranks, device: there)


def test_an_ordinary_machine_takes_the_usual_number(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(1 << 40, monkeypatch)
    setup = set_up(settings())
    data = prepare(setup, LogReporter())
    assert token_budget.choose_budget(setup, data).tokens == 4096
    with_memory(None, monkeypatch)
    assert token_budget.choose_budget(setup, data) == token_budget.Budget(
        4096, "more are no faster, and how much memory is available is not known", None
    )


def test_less_memory_takes_fewer_tokens_but_never_fewer_than_the_largest_example(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any memory between what the least and the most tokens take; a number that is given stays as it is."""
    monkeypatch.setattr(token_budget, "LEAST", 1)
    monkeypatch.setattr(token_budget, "USUAL_TOKENS", 1024)
    monkeypatch.setattr(token_budget, "MOST", {"cpu": 1024})
    setup = set_up(settings())
    data = prepare(setup, LogReporter())
    longest = max(token_budget.largest_example(columns, BLOCKS) for columns in (data.train, data.eval))
    chosen = []
    for there in (1 << 40, round(HEADROOM * BESIDES) + 2_000_000, 1):
        with_memory(there, monkeypatch)
        found = token_budget.choose_budget(setup, data)
        assert longest <= found.tokens <= 1024
        chosen.append((found.tokens, found.fits))
    assert chosen[0] == (1024, True) and chosen[-1] == (longest, False)
    assert chosen == sorted(chosen, reverse=True)
    given = set_up(settings(77))
    assert token_budget.with_budget(given, data, LogReporter()) is given


def test_the_number_is_recorded_and_kept_by_a_run_that_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(token_budget, "MOST", {"cpu": 300})
    short = ["--training.max-steps", "2", "--training.batch-pairs", "4", "--comparison.prompts", "0"]
    assert main(["train", *WORDS, *short]) == 0
    assert "at most 300 tokens in a forward pass" in capsys.readouterr().out
    recorded = json.loads(Path("runs/run/config.json").read_text())
    assert recorded["training"]["micro_batch_tokens"] == 300
    monkeypatch.setattr(token_budget, "MOST", {"cpu": 400})
    Path("settings.toml").write_text(
        '[model]\npath = "tiny"\nprecision = "float32"\n[data]\ntrain = "pairs.jsonl"\n'
        "[training]\nmax_steps = 2\nbatch_pairs = 4\n[comparison]\nprompts = 0\n"
    )
    assert main(["train", "settings.toml", "--resume", "runs/run"]) == 0
    words = ["--resume", "runs/run", "--training.micro-batch-tokens", "200"]
    assert main(["train", *words]) == 1
    assert "training.micro_batch_tokens: 300 then, 200 now" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "fast", "1.5"])
def test_it_takes_a_number_or_auto(value: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *WORDS, "--training.micro-batch-tokens", value]) == 2
    assert "micro" in capsys.readouterr().err
    assert TrainingConfig(micro_batch_tokens="auto") == TrainingConfig()
    with pytest.raises(ConfigError, match=r"training\.micro_batch_tokens"):
        TrainingConfig(micro_batch_tokens="much")  # type: ignore[arg-type]
    assert Range(1, 2, True)


def test_a_run_that_does_not_fit_is_told_what_would_take_less(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Computed, and less than the settings take; the plan says it, and an error of memory too."""
    with_memory(1000, monkeypatch)
    found = plan_run(settings(4096), LogReporter())
    assert found.fits(found.ways[0]) is False
    assert found.remedies and not found.times
    assert any(one.change == "training.optimizer rmsprop" for one in found.remedies)
    assert all(0 < one.memory.most <= found.remedies[0].memory.most * 2 for one in found.remedies)
    setup = set_up(settings(4096))
    data = prepare(setup, LogReporter())
    words = remedies.in_a_sentence(setup, data.train)

    def training() -> str:
        return "training"

    def not_even_that() -> str:
        raise MemoryError

    with pytest.raises(OutOfMemoryError) as error, memory_explained(setup.config, training, lambda: words):
        raise MemoryError
    assert "training.optimizer rmsprop " in str(error.value) and "By estimate" in str(error.value)

    with pytest.raises(OutOfMemoryError) as error, memory_explained(setup.config, training, not_even_that):
        raise MemoryError
    assert "By estimate" not in str(error.value)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["plan", *WORDS]) == 0
    assert "does not fit" in capsys.readouterr().out


def test_the_time_of_every_stage_is_told(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    short = ["--comparison.prompts", "2", "--comparison.max-new-tokens", "3"]
    assert main(["plan", *WORDS, *short]) == 0
    shown = capsys.readouterr().out
    for stage in ("data", "reference", "training", "evaluation", "comparison", "together"):
        assert f"\n{stage} " in shown
    assert not Path("runs").exists()


GIB = 1 << 30


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_limits_of_control_groups_count_and_so_does_what_is_free(tmp_path: Path) -> None:
    """The narrowest of them; caches that a group may give back are not taken for used."""
    meminfo = {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {8 * GIB // 1024} kB\n"}
    assert available_memory(CPU, written(tmp_path / "plain", meminfo)) == 8 * GIB
    second = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/b/memory.current": "5\n",
        "sys/fs/cgroup/a/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/a/memory.current": f"{2 * GIB}\n",
        "sys/fs/cgroup/a/memory.stat": f"anon 1\ninactive_file {GIB}\n",
    }
    assert available_memory(CPU, written(tmp_path / "second", meminfo | second)) == 3 * GIB
    first = {
        "proc/self/cgroup": "5:cpu:/x\n4:memory:/x\n",
        "sys/fs/cgroup/memory/x/memory.limit_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/x/memory.usage_in_bytes": f"{GIB // 2}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
    }
    assert available_memory(CPU, written(tmp_path / "first", meminfo | first)) == GIB // 2
    assert (available_memory(CPU, tmp_path / "nothing") or 1) > 0
