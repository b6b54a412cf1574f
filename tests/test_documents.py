"""What the documents promise is there: commands parse, files exist, both READMEs agree."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import tomllib
from pathlib import Path

import pytest

from tiltlm import __version__, demo
from tiltlm.cli.arguments import COMMANDS, Compare
from tiltlm.cli.command_line import parse_config, parse_inspect, parse_simple
from tiltlm.config import Config, load_config, option_names
from tiltlm.judges.sentiment import vader

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "README.ru.md"]
PAGES = [*READMES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "src" / "tiltlm" / "demo" / "CARD.md"]
COMMANDS_IN = [*READMES, ROOT / "CONTRIBUTING.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def commands(page: Path) -> list[str]:
    """Every line of every ```sh block, without the documents that are written there (`<<'END'`)."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    blocks = [re.sub(r"^cat .*<<'(\w+)'\n(?:.*\n)*?\1\n", "", block, flags=re.MULTILINE) for block in blocks]
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("line", sorted({line for page in COMMANDS_IN for line in commands(page)}))
def test_every_command_is_one_that_works(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)
    if words[:3] == ["python", "-m", "src.main"]:
        words = ["tiltlm", "train", *words[3:]]
    if words[:3] == ["python", "-m", "src.inference"]:
        words = ["tiltlm", "compare", *words[3:]]
    if words[0] == "make":
        assert set(words[1:]) <= make_targets()
    elif words[0] in ("python", ".venv/bin/python"):
        assert (ROOT / words[1]).is_file() or words[1:3] == ["-m", "pytest"]
    elif words[0] == "pip":
        assert words[1] == "install"
        if "-r" in words:
            assert (ROOT / words[words.index("-r") + 1]).is_file()
    elif words[0] == "docker":
        assert words[1] in ("build", "run")
        assert words[-1] in (".", "dpo_project")
    elif words[0] == "git":
        assert words[1] == "clone"
    elif words[0] == "vllm":
        assert words[1] == "serve"
    else:
        assert words[0] == "tiltlm"
        assert words[1] in COMMANDS or words[1:] == ["--help"]
        if words[1] == "train":
            parse_config(words[2:])
        elif words[1] == "inspect":
            parse_inspect(words[2:])
        elif words[1] == "compare":
            parse_simple(Compare, words[2:], {"prompt": tuple[str, ...], "trust_remote_code": bool}, positional=1)


def test_the_example_has_every_option_with_its_default_and_its_text() -> None:
    path = ROOT / "configs" / "example.toml"
    text = path.read_text(encoding="utf-8")
    written = runpy.run_path(str(ROOT / "scripts" / "make_example_config.py"))["example"]()
    assert text == written, "run `python scripts/make_example_config.py`"
    assert load_config(path) == Config()
    for option in option_names():
        assert re.search(rf"^# .+\n(?:# )?{option.split('.')[1]} =", text, re.MULTILINE), option


def test_the_assignments_prompt_is_the_demos_and_the_assignments_alone() -> None:
    asked = "\n\nHuman: What are the main differences between Python and C++?\n\nAssistant:"
    for path in (demo.CONFIG, ROOT / "configs" / "gpt2-hh.toml", ROOT / "configs" / "smollm2-hh.toml"):
        assert load_config(path).comparison.extra_prompts == (asked,)
    assert parse_config(["--data.train", "pairs.jsonl"]).comparison.extra_prompts == ()


def test_both_readmes_give_the_same_commands() -> None:
    assert commands(READMES[0]) == commands(READMES[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    for target in (target for target in targets if "://" not in target):
        assert (page.parent / target).exists(), target


def test_every_page_is_on_the_site() -> None:
    """Sphinx would complain of a page in no list; here that is known without it."""
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    entries = "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL)).splitlines()
    listed = {entry.split("<")[-1].rstrip(">") for entry in entries if entry and not entry.startswith(":")}
    pages = {str(path.relative_to(ROOT).with_suffix("")) for path in PAGES if path.name != "index.md"}
    assert {name.removeprefix("/") if name.startswith("/") else f"docs/{name}" for name in listed} == pages


def test_the_version_is_the_same_everywhere() -> None:
    newest = re.findall(r"^## (\d\S*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    assert newest == __version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"], "pyproject.toml reads it from the package"


def test_hooks_are_the_linters_of_make_check() -> None:
    recipe = re.search(r"^check: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    linters = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"entry: (.+)", hooks) == linters
    assert set(re.findall(r"repo: (.+)", hooks)) == {"local"}


def test_the_dockerfile_names_only_what_exists() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists(), source
    assert 'ENTRYPOINT ["python", "-m", "src.main"]' in text
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {"src", "configs", "locks", "pyproject.toml", "README.md", "LICENSE"} & set(ignored)


def test_rooms_on_the_architecture_page_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = page[page.index("src/main.py") : page.index("Imports point downwards")]
    package = ROOT / "src" / "tiltlm"
    named = {word.strip(",/") for word in re.findall(r"(?<![\w.`])[a-z_]+(?:\.py|/)(?=[\s,])", rooms)}
    on_disk = {path.name for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    within = {path.parent.name for path in package.glob("*/*/__init__.py")}
    assert {name for name in named if name not in ("main.py", "inference.py")} <= on_disk | within | {
        "src",
        "tiltlm",
        "scripts",
        "theory",
        "benchmarks",
        "recipes",
    }
    assert on_disk | within <= named | {"__init__.py", "__main__.py"}


def test_the_demos_data_is_as_its_card_says() -> None:
    demo = ROOT / "src" / "tiltlm" / "demo"
    openers = (demo / "openers.txt").read_text(encoding="utf-8").splitlines()
    assert len(openers) == len({opener.lower() for opener in openers}) >= 300
    card = (demo / "CARD.md").read_text(encoding="utf-8")
    split: dict[str, list[str]] = {}
    for name in ("train", "eval"):
        rows = [json.loads(line) for line in (demo / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert f"| {len(rows)} pairs" in card
        split[name] = [row["prompt"][0]["content"] for row in rows]
        for row in rows:
            assert row["chosen_score"] - row["rejected_score"] >= 0.7
    assert set(split["train"]) <= set(openers[:-120])
    assert set(split["eval"]) <= set(openers[-120:])


def test_the_demos_sentiments_are_vaders() -> None:
    demo = ROOT / "src" / "tiltlm" / "demo"
    rows = [json.loads(line) for line in (demo / "eval.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = vader([row["chosen"][0]["content"] for row in rows])
    assert scores == [row["chosen_score"] for row in rows]
