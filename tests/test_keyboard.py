"""At the keyboard: output that fails, disks that are full, names that are taken, what is asked and what is shown."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import example_run
import pytest
from safetensors import SafetensorError
from tiny_runs import write_model, write_pairs

from tiltlm.cli import commands, main
from tiltlm.cli.console import ConsoleReporter
from tiltlm.cli.output import watched_output
from tiltlm.config import CheckpointConfig, Config
from tiltlm.errors import ConfigError, RunError
from tiltlm.model.embedded import embedded_model
from tiltlm.pipeline.preflight import BESIDES_THE_MODEL, require_fit
from tiltlm.runs.folder import MARKER
from tiltlm.runs.run_files import newest_comparable, read_run
from tiltlm.storage.cache import cache_folder, writable_cache_folder
from tiltlm.storage.space import folder_bytes, in_words, require_space, weight_bytes

SOURCES = Path(__file__).parents[1] / "src"
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
TRAIN = ["train", "--data.train", "pairs.jsonl", "--model.path", "models/m", "--model.precision", "float32"]
TRAIN += ["--comparison.prompts", "1", "--comparison.max-new-tokens", "4", "--comparison.samples", "1"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a tiny model, a few pairs and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "models" / "m")
    write_pairs(tmp_path / "pairs.jsonl")
    return tmp_path


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def one_line(text: str) -> str:
    assert text.startswith("tiltlm: ") and text.count("\n") == 1 and text.endswith("\n")
    return text


# Nothing of the user's is lost


@pytest.mark.parametrize("overwrite", [[], ["--run.overwrite"]])
@pytest.mark.parametrize(
    ("directory", "name"), [("models", "m"), (".", "models"), ("models/m", "new"), ("link", "m"), ("models/m/..", "m")]
)
def test_a_run_never_takes_the_place_of_the_model_it_reads(
    here: Path, directory: str, name: str, overwrite: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "link").symlink_to("models")
    before = contents(here / "models")
    assert main([*TRAIN, "--run.directory", directory, "--run.name", name, *overwrite]) == 1
    shown = capsys.readouterr()
    assert shown.out == "", "refused before any work"
    assert f"{(here / 'models' / 'm').resolve()}, which the run reads (model.path)" in one_line(shown.err)
    assert contents(here / "models") == before


@pytest.mark.parametrize("option", ["data.train", "data.eval", "model.reference", "hub.folder"])
def test_nor_of_anything_else_it_reads(here: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    read = here / "runs" / "mine" / "deep"
    read.mkdir(parents=True)
    words = [word for word in TRAIN if option != "data.train" or word not in ("--data.train", "pairs.jsonl")]
    assert main([*words, f"--{option}", str(read), "--run.name", "mine", "--run.overwrite"]) == 1
    assert f"contains {read.resolve()}, which the run reads ({option})" in one_line(capsys.readouterr().err)


def test_another_models_folder_is_not_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(here / "models" / "other")
    before = contents(here / "models")
    assert main([*TRAIN, "--run.directory", "models", "--run.name", "other", "--run.overwrite"]) == 1
    assert "holds something that is not a run" in one_line(capsys.readouterr().err)
    assert contents(here / "models") == before


def test_a_second_run_takes_the_next_name_unless_one_was_given(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TRAIN) == 0
    assert "is taken" not in capsys.readouterr().out
    assert main(TRAIN) == 0
    assert "runs/run is taken, so this run is called run-2 (--run.name).\n" in capsys.readouterr().out
    assert {path.name for path in Path("runs").iterdir()} == {"run", "run-2"}
    summary = read_run(Path("runs/run-2")).summary
    assert summary is not None and summary.run == "run-2"
    assert main([*TRAIN, "--run.name", "run"]) == 1
    assert "there is a run in runs/run already" in one_line(capsys.readouterr().err)
    Path("mine.toml").write_text('[run]\nname = "run-2"\n')
    assert main([TRAIN[0], "mine.toml", *TRAIN[1:]]) == 1
    assert "there is a run in runs/run-2 already" in capsys.readouterr().err
    assert main([TRAIN[0], "runs/run-2/config.json", "--training.max-steps", "1"]) == 0
    assert read_run(Path("runs/run-2-2")).data.sources[0].name == "pairs.jsonl"


# Which run is compared


def test_the_newest_run_that_can_be_compared(tmp_path: Path) -> None:
    def run(name: str, age: int, **replaced: object) -> Path:
        folder = example_run.write_run(tmp_path / name, **replaced)
        os.utime(folder / "config.json", (1000 - age, 1000 - age))
        return folder

    def with_model(folder: Path) -> Path:
        (folder / "model").mkdir()
        (folder / "model" / "config.json").touch()
        (folder / "model" / "model.safetensors").touch()
        return folder

    with pytest.raises(RunError, match="can be compared"):
        newest_comparable(tmp_path, anew=False)
    oldest = with_model(run("a", 9))
    recorded = run("b", 8)
    run("broken", 3, metrics=None)
    run("nothing to compare", 2, comparison=None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "notes.txt").touch()
    assert newest_comparable(tmp_path, anew=False) == recorded
    assert newest_comparable(tmp_path, anew=True) == oldest
    (recorded / "comparison.json").unlink()
    (oldest / "comparison.json").unlink()
    assert newest_comparable(tmp_path, anew=False) == oldest
    with pytest.raises(RunError, match=r"there is no run in .*nowhere that can be compared"):
        newest_comparable(tmp_path / "nowhere", anew=False)


def test_every_prompt_that_is_given_is_answered(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TRAIN) == 0
    comparison = json.loads(Path("runs/run/comparison.json").read_text())
    assert [prompt["counted"] for prompt in comparison["prompts"]] == [True], "own data is asked its own prompts alone"
    capsys.readouterr()
    assert main(["compare", "--prompt", "First?", "--prompt", "Second?", "Third?"]) == 0
    shown = capsys.readouterr().out
    assert [shown.count(prompt) for prompt in ("First?", "Second?", "Third?")] == [1, 1, 1]
    assert main(["compare", "--prompt", "First?", "runs/run"]) == 2
    assert "name the run before --prompt" in one_line(capsys.readouterr().err)
    assert main(["report", "models/m"]) == 1
    assert "models/m is no run, but perhaps a model" in one_line(capsys.readouterr().err)
    assert main(["compare", "run"]) == 1
    assert "Did you mean runs/run?" in one_line(capsys.readouterr().err)


# Output that fails


def started(words: list[str], output: int | None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tiltlm", *words]
    return subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, env=environment, cwd=cwd)


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"], ["report", "run"]])
def test_a_closed_pipe_ends_without_a_word(words: list[str], tmp_path: Path) -> None:
    example_run.write_run(tmp_path / "run")
    writer = closed_pipe()
    done = started(words, writer, cwd=tmp_path)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@needs_full
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["report", "run"]])
def test_a_full_device_ends_in_one_line(words: list[str], tmp_path: Path) -> None:
    example_run.write_run(tmp_path / "run")
    with FULL.open("w") as device:
        done = started(words, device.fileno(), cwd=tmp_path)
    assert done.returncode == 1
    assert "standard output cannot be written: No space left on device" in one_line(done.stderr)


class Gone(io.StringIO):
    """A stream whose reader has closed it."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_training_goes_on_when_nobody_reads_along(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C reaches `tee` first: what was trained must not be lost with the reader of the output."""
    monkeypatch.setattr(sys, "stdout", Gone())
    assert main(TRAIN) == 141
    assert main(["compare"]) == 141
    monkeypatch.undo()
    assert capsys.readouterr().err == ""
    monkeypatch.chdir(here)
    summary = read_run(Path("runs/run")).summary
    assert summary is not None and summary.completed
    assert Path("runs/run/report.html").is_file()


def test_no_output_at_all_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["--help"]) == 0
    assert main(["trian"]) == 2


def test_the_output_is_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with watched_output() as output:
        print("said")
        assert sys.stdout is output
        assert sys.stdout.encoding == before.encoding
    assert sys.stdout is before
    assert capsys.readouterr().out == "said\n"


def test_without_a_terminal_nothing_is_drawn_over(here: Path) -> None:
    done = started([*TRAIN, "--training.epochs", "2"], subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stdout + done.stderr
    assert "%|" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout


# The machine's troubles


@pytest.mark.parametrize("command", ["train", "compare", "report", "inspect"])
@pytest.mark.parametrize(
    ("error", "part"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "a file cannot be written: No space left on device. Either free",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "runs/x cannot be written or read: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), "runs/x cannot be written or read: Permission"),
        (OSError(errno.EROFS, "Read-only file system", "runs/x"), "change its permissions"),
        (sqlite3.OperationalError("database or disk is full"), "TILTLM_CACHE"),
        (sqlite3.DatabaseError("file is not a database"), "TILTLM_CACHE"),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "--run.directory",
        ),
    ],
)
def test_a_trouble_of_the_machine_is_one_sentence(
    command: str, error: Exception, part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(words: object) -> int:
        raise error

    monkeypatch.setitem(commands.COMMANDS, command, fails)
    assert main([command]) == 1
    assert part in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(errno.ENOENT, "No such file", "x"), SafetensorError("header too large"), ConnectionError()],
)
def test_a_mistake_of_ours_is_not_hidden_as_one(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(words: object) -> int:
        raise error

    monkeypatch.setitem(commands.COMMANDS, "train", fails)
    with pytest.raises(type(error)):
        main(["train"])


@pytest.mark.parametrize("cache", ["file", "file/below", "/proc/tiltlm"])
def test_a_cache_that_cannot_be_used_is_said_before_the_work(
    here: Path, cache: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").write_text("not a folder")
    monkeypatch.setenv("TILTLM_CACHE", cache)
    assert main(TRAIN) == 2
    shown = capsys.readouterr()
    assert "1/5" not in shown.out and not Path("runs").exists()
    assert f"TILTLM_CACHE cannot be used: {cache}" in one_line(shown.err)
    assert "Set TILTLM_CACHE to a folder" in shown.err
    with pytest.raises(ConfigError):
        writable_cache_folder("models")
    with pytest.raises(ConfigError):
        embedded_model()


def disk_with(free: int) -> Callable[[object], object]:
    return lambda path: shutil._ntuple_diskusage(2 * free, free, free)


def test_a_model_that_would_not_fit_is_said_before_the_work(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = weight_bytes(here / "models" / "m")
    assert needed == (here / "models" / "m" / "model.safetensors").stat().st_size
    needed += BESIDES_THE_MODEL
    monkeypatch.setattr(shutil, "disk_usage", disk_with(needed - 1))
    assert main(TRAIN) == 1
    shown = capsys.readouterr()
    assert "1/5" not in shown.out and not Path("runs").exists()
    assert "not enough disk space in runs/run: the run with its model takes about" in one_line(shown.err)
    assert "--run.directory" in shown.err
    monkeypatch.setattr(shutil, "disk_usage", disk_with(needed))
    assert main(TRAIN) == 0
    # What the run that is replaced leaves free counts too.
    monkeypatch.setattr(shutil, "disk_usage", disk_with(needed - 1))
    assert main([*TRAIN, "--run.name", "run", "--run.overwrite"]) == 0


def test_a_loaded_model_that_would_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", disk_with(4 * 10**9))
    require_fit(10**7, Config(), tmp_path, ConsoleReporter())
    none = Config(checkpoint=CheckpointConfig(every_minutes=0))
    require_fit(10**9, none, tmp_path, ConsoleReporter())
    assert capsys.readouterr().out == ""
    require_fit(10**9, Config(), tmp_path, ConsoleReporter())
    assert "too full for checkpoints of 12.0 GB each (checkpoint.keep): 4.0 GB are free" in capsys.readouterr().out
    require_fit(2 * 10**9, Config(), tmp_path, ConsoleReporter())
    assert "the disk may be too full for the trained model: 4.0 GB are free" in capsys.readouterr().out
    with pytest.raises(RunError, match=r"the trained model takes about 4\.2 GB, and 4\.0 GB are free"):
        require_fit(2 * 10**9 + 10**8, Config(), tmp_path, ConsoleReporter())


def test_the_file_that_cannot_be_written_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(TRAIN) == 0
    capsys.readouterr()

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["report", "runs/run"]) == 1
    assert "runs/run/comparison.md cannot be written or read: No space left" in one_line(capsys.readouterr().err)
    assert main([*TRAIN, "--run.name", "other"]) == 1
    assert "runs/other/config.json cannot be written or read: No space left" in one_line(capsys.readouterr().err)


def test_a_user_without_a_home_chooses_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    for name in ("TILTLM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="set TILTLM_CACHE"):
        cache_folder()


def test_sizes(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"12345")
    (tmp_path / "pytorch_model.bin").write_bytes(b"1234567")
    (tmp_path / "link").symlink_to("a.safetensors")
    assert weight_bytes(tmp_path) == 5, "the same weights in two forms are loaded once"
    assert weight_bytes(tmp_path / "gpt2") == 0
    assert folder_bytes(tmp_path) == 12 + len("a.safetensors")
    assert [in_words(amount) for amount in (540_000_000, 4_000_000, 1, -3)] == ["0.5 GB", "4 MB", "0 MB", "0 MB"]
    require_space(tmp_path / "not" / "there", 1, "it", "--x")


def test_the_embedded_model_says_once_what_it_does_and_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path))
    monkeypatch.setattr("tiltlm.model.embedded._installed_gguf", lambda: Path(__file__))
    monkeypatch.setattr("tiltlm.model.embedded._check", lambda gguf: None)
    monkeypatch.setattr("tiltlm.model.embedded._convert", lambda gguf, folder: folder.mkdir())
    said: list[str] = []
    folder = embedded_model(said.append)
    embedded_model(said.append)
    assert len(said) == 1
    assert "0.5 GB" in said[0] and str(folder) in said[0] and "TILTLM_CACHE" in said[0]
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(shutil, "disk_usage", disk_with(10**8))
    with pytest.raises(
        RunError, match=r"the embedded model, converted once, takes about 0\.5 GB, and 0\.1 GB are free"
    ):
        embedded_model(said.append)
    assert len(said) == 1


# What others wrote is shown, not obeyed

ATTACK = "\x1b]0;owned\x07\x9b31m\u202eevil\u2066\r"


def test_nothing_of_the_data_reaches_terminal_or_pages_raw(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "pa\x1birs\u202e.jsonl"
    rows = [{"prompt": f"{ATTACK}{n}? ", "chosen": f"yes{ATTACK}", "rejected": f"no{ATTACK}"} for n in range(6)]
    rows.append({"prompt": "x", "chosen": ATTACK, "rejected": ATTACK})
    Path(name).write_text("\n".join(json.dumps(row) for row in rows))
    words = [name if word == "pairs.jsonl" else word for word in TRAIN]
    assert main([*words, "--comparison.extra-prompts", ATTACK]) == 0
    assert main(["compare"]) == 0
    assert main(["compare", "--prompt", ATTACK]) == 0
    assert main(["inspect", name, "--model.path", "models/m", "--report", "account.json"]) == 0
    assert main(["train", f"{ATTACK}.jsonl"]) == 2
    assert main(["train", f"--{ATTACK}"]) == 2
    shown = capsys.readouterr()
    pages = [Path("runs/run", page).read_text(encoding="utf-8") for page in ("comparison.md", "report.html")]
    pages.append(Path("runs/run/model/README.md").read_text(encoding="utf-8"))
    for text in (shown.out, shown.err, *pages):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert all("␛]0;owned␇\\x9b31m\\u202eevil\\u2066" in text for text in (shown.out, *pages[:2]))
    kept = json.loads(Path("runs/run/comparison.json").read_text(encoding="utf-8"))
    assert any(ATTACK in prompt["prompt"] for prompt in kept["prompts"])


def test_a_file_name_that_is_not_utf_8(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"pa\xefrs.jsonl")
    Path(name).write_bytes(Path("pairs.jsonl").read_bytes())
    assert main([name if word == "pairs.jsonl" else word for word in TRAIN]) == 0
    assert main(["inspect", name, "--model.path", "models/m", "--report", "account.json"]) == 0
    assert "pa\\udcefrs.jsonl" in capsys.readouterr().out
    assert read_run(Path("runs/run")).settings["data"]["train"] == name
    assert json.loads(Path("account.json").read_text(encoding="utf-8"))["sources"][0]["name"] == name


def test_long_texts_are_shortened_where_they_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared = example_run.comparison(1)
    long = "begin " + "word " * 4000 + "end"
    compared["prompts"][0]["prompt"] = long
    compared["prompts"][0]["before"] = {"greedy": example_run.answer(long, 0.1), "samples": []}
    compared["prompts"][0]["after"] = {"greedy": example_run.answer(long, 0.1), "samples": []}
    data = example_run.data_report()
    data["examples"][0] |= {"prompt": long, "chosen": long, "rejected": long}
    run = example_run.write_run(tmp_path / "run", comparison=compared, data_report=data)
    assert main(["report", str(run)]) == 0
    assert main(["compare", str(run)]) == 0
    shown = capsys.readouterr().out
    left_out = f"{len(long) - 2000:,} characters left out"
    assert shown.count(left_out) == 3
    assert (run / "comparison.md").read_text().count(left_out) == 3
    assert (run / "report.html").read_text().count(left_out) == 6
    for text in (shown, (run / "comparison.md").read_text(), (run / "report.html").read_text()):
        assert "begin word" in text and "word end" in text and len(text) < 200_000


def test_secrets_stand_in_no_message_and_no_record(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "hf_abcdefghijklmnopqrst"
    Path(secret).mkdir()
    assert main([*TRAIN, "--hub.folder", secret]) == 0
    assert main([*TRAIN, "--data.eval", "https://me:pa55word@host/x?token=t0ken"]) == 1
    assert main([*TRAIN, "--hub.token", "t0ken"]) == 2
    assert main([*TRAIN, "--hub.token=t0ken"]) == 2
    shown = capsys.readouterr()
    records = [path.read_text(encoding="utf-8") for path in Path("runs/run").glob("*.*") if path.suffix != ".png"]
    records.append(Path("runs/run/model/README.md").read_text(encoding="utf-8"))
    for text in (shown.out, shown.err, *records):
        assert not re.search(f"{secret}|pa55word|t0ken", text)
    assert Path("runs/run", MARKER).is_file()


# Warm-up


def test_a_warm_up_longer_than_the_epochs_is_refused_before_the_work(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--training.warmup-steps", "3", "--training.batch-pairs", "4"]) == 2
    shown = capsys.readouterr()
    assert "training.warmup_steps is 3, but the run has 2 steps" in one_line(shown.err)
    assert "Reference" not in shown.out
    assert not Path("runs").exists()
