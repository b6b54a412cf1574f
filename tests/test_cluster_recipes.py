"""The recipes for clusters are read by the tools they are written for, and their command is one that we take."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from kill_ranks import make_pattern
from torch.distributed.run import get_args_parser

from tiltlm.cli.command_line import parse
from tiltlm.runs.run_files import read_run

RECIPES = Path(__file__).parents[1] / "recipes"
# What `sbatch --help` of Slurm 22.05 to 25.05 lists, of which these are used.
SBATCH = {
    *("job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "signal", "requeue"),
    *("open-mode", "output"),
}

SETTINGS = """
[data]
train = "pairs.jsonl"
[model]
path = "model"
precision = "float32"
[training]
max_steps = 120
batch_pairs = 5
micro_batch_tokens = 128
learning_rate = 1e-4
eval_every = 0
[comparison]
prompts = 0
"""


def read(name: str) -> dict[str, Any]:
    found = yaml.safe_load((RECIPES / name).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def command_in(script: str) -> list[str]:
    """The words that torchrun is given in a shell script, with its variables set to something."""
    values = {"CONFIG": "settings.toml", "NAME": "big"}
    text = script.replace("\\\n", " ")
    (line,) = re.findall(r"^(?:srun \S+ \S+|exec) torchrun (.*?)&?$", text, re.MULTILINE)
    return [re.sub(r"\$\{?(\w+).*", lambda m: values.get(m[1], "2"), word) for word in shlex.split(line)]


def commands() -> dict[str, list[str]]:
    compose, job = read("compose.yaml"), read("trainjob.yaml")["spec"]["trainer"]
    assert job["command"] == compose["services"]["first"]["entrypoint"] == ["torchrun"]
    return {
        "train.sbatch": command_in((RECIPES / "train.sbatch").read_text(encoding="utf-8")),
        "skypilot.yaml": command_in(read("skypilot.yaml")["run"]),
        "trainjob.yaml": job["args"],
        "compose.yaml, first": compose["services"]["first"]["command"],
        "compose.yaml, second": compose["services"]["second"]["command"],
    }


@pytest.mark.parametrize("recipe", list(commands()))
def test_the_command_is_one_that_torchrun_and_we_take(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = get_args_parser().parse_args(commands()[recipe])
    assert started.module and started.training_script == "tiltlm" and started.max_restarts == 3
    # What a stop may take must be more than a checkpoint does, and less than the scheduler waits.
    assert started.shutdown_timeout == 240
    command, file, *flags = started.training_script_args
    (tmp_path / "settings.toml").write_text('[data]\ntrain = "pairs.jsonl"\n')
    monkeypatch.chdir(tmp_path)
    parsed = parse([Path(file).name, *flags])
    assert command == "train" and parsed.auto_resume and parsed.config.run.name == "big"
    assert parsed.config.checkpoint.every_minutes == 10


def test_every_recipe_says_what_makes_it_safe_and_has_its_time_limits() -> None:
    for path in sorted(RECIPES.iterdir()):
        text = path.read_text(encoding="utf-8")
        assert "What makes it safe:" in text and "SIGTERM" in text and "checkpoint" in text, path.name
    compose = read("compose.yaml")
    assert all(service["stop_grace_period"] == "5m" for service in compose["services"].values())


def test_compose_is_of_its_schema() -> None:
    schema = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*schema, str(RECIPES / "compose.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = subprocess.run(
        [*schema, "-"], input="services: {a: {imagee: b}}", capture_output=True, text=True, check=False
    )
    assert broken.returncode == 1


def test_the_train_job_is_of_its_schema() -> None:
    from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob

    given = read("trainjob.yaml")
    job = TrainerV1alpha1TrainJob.from_dict(given)
    assert job is not None and job.to_dict() == given  # a name that is not of the schema would be lost
    (patch,) = given["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    # The longest that the ranks may take to stop, and the disk that every path of the command lies on.
    assert pod["terminationGracePeriodSeconds"] == 300
    assert [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]] == ["/shared"]
    assert [volume["name"] for volume in pod["volumes"]] == ["shared"]


@pytest.mark.skipif("SKYPILOT_PYTHON" not in os.environ, reason="needs SkyPilot, in an environment of its own")
def test_the_sky_task_is_of_its_schema() -> None:
    """SkyPilot wants other versions of packages than ours, so it is asked in an environment that has it:
    SKYPILOT_PYTHON=sky/bin/python."""
    ask = "import sys, sky; print(sky.Task.from_yaml(sys.argv[1]).resources)"
    words = [os.environ["SKYPILOT_PYTHON"], "-c", ask, str(RECIPES / "skypilot.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "'H100': 8" in done.stdout and "Spot" in done.stdout, done.stdout + done.stderr


def test_sbatch_is_given_options_that_it_has() -> None:
    script = (RECIPES / "train.sbatch").read_text(encoding="utf-8")
    options = re.findall(r"^#SBATCH --([a-z-]+)", script, re.MULTILINE)
    assert options and set(options) <= SBATCH and len(set(options)) == len(options)
    # Slurm reads them up to the first command.
    assert script.index("#SBATCH --output") < script.index("set -euo pipefail")
    subprocess.run(["bash", "-n", str(RECIPES / "train.sbatch")], check=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node whose `srun` and `scontrol` are stand-ins: the first runs the command, the second notes a requeue."""
    folder = make_pattern(tmp_path_factory.mktemp("cluster"))
    tools = folder / "tools"
    tools.mkdir()
    (tools / "srun").write_text('#!/bin/bash\nshift 2\nexec "$@"\n')
    (tools / "scontrol").write_text(
        '#!/bin/bash\nif [ "$1" = show ]; then echo localhost; else echo "$@" >> requeued; fi\n'
    )
    (tools / "torchrun").write_text(f'#!/bin/bash\nexec {sys.executable} -m torch.distributed.run "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    return folder


def submitted(cluster: Path, config: Path) -> subprocess.Popen[str]:
    job = {"SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node"}
    job["SLURM_CPUS_PER_TASK"] = "2"
    given = {"CONFIG": str(config), "NAME": "big", "OMP_NUM_THREADS": "1", "PORT": "29611"}
    path = f"{cluster / 'tools'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", str(RECIPES / "train.sbatch")],
        cwd=cluster,
        env={**os.environ, **job, **given, "PATH": path, "TILTLM_CACHE": str(cluster / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_job_that_is_told_to_end_is_queued_again_and_goes_on(cluster: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(SETTINGS)
    job = submitted(cluster, config)
    metrics = cluster / "runs" / "big" / "metrics.jsonl"
    until = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text().count("\n") > 2):
        assert job.poll() is None and time.monotonic() < until, job.communicate()[0]
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0 and (cluster / "requeued").read_text() == "requeue 7\n", said
    run = read_run(cluster / "runs" / "big")
    assert run.outcome is not None and run.outcome.status == "interrupted" and any(run_checkpoints(cluster)), said
    again = submitted(cluster, config)
    said, _ = again.communicate(timeout=240)
    assert again.returncode == 0 and "goes on after step" in said, said
    whole = read_run(cluster / "runs" / "big")
    assert whole.outcome is not None and whole.outcome.status == "completed"
    assert [row.step for row in whole.metrics.train] == list(range(1, len(whole.metrics.train) + 1))
    third = submitted(cluster, config)
    said, _ = third.communicate(timeout=120)
    assert third.returncode == 0 and "nothing is left to do" in said, said


def run_checkpoints(cluster: Path) -> list[Path]:
    return list((cluster / "runs" / "big" / "checkpoints").iterdir())
