"""Texts of others stay texts: on the report's page, in the comparison's Markdown, on a terminal."""

from __future__ import annotations

import io
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import example_run
import pytest
from hostile import TEXTS
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from tiny_folders import change_json
from tiny_runs import write_model

from tiltlm.cli import main
from tiltlm.cli.compare_command import show
from tiltlm.cli.console import ConsoleReporter
from tiltlm.cli.output import inert_errors
from tiltlm.cli.safe_console import SafeConsole
from tiltlm.report import page as page_module
from tiltlm.report.comparison_page import comparison_markdown
from tiltlm.report.page import render_page
from tiltlm.report.plots import panel_svgs
from tiltlm.report.policy import PLACE, with_policy
from tiltlm.runs.answers import Comparison
from tiltlm.runs.run_files import read_run
from tiltlm.text.visible import visible

REPORT = Path(__file__).parents[2] / "src" / "tiltlm" / "report"
WORDS = frozenset({"completed", "sigmoid", "vader", "train", "eval", "pair"})
"""Texts of the records by which the program chooses what to say; whoever writes others gets an error or a sentence."""


def with_text(value: Any, text: str, at: str = "") -> Any:
    """A record in which every text is this one, keys that users choose included."""
    if isinstance(value, str):
        return value if value in WORDS or at == "status" else text
    if isinstance(value, dict):
        keys = {key: f"{text}{key}" if at in ("versions", "by_reason", "config", "stages") else key for key in value}
        return {keys[key]: with_text(item, text, key) for key, item in value.items()}
    return [with_text(item, text, at) for item in value] if isinstance(value, list) else value


def hostile_run(folder: Path, text: str) -> Path:
    data = example_run.data_report()
    data["examples"] = [{"id": "a", "prompt": "a", "chosen": "a", "rejected": "a", "rejected_prompt": "a"}]
    config = {section: with_text(options, text, "config") for section, options in example_run.config().items()}
    return example_run.write_run(
        folder,
        comparison=with_text(example_run.comparison(1), text),
        data_report=with_text(data, text),
        summary=with_text(example_run.summary(), text) | {"status": "failed", "message": text, "completed": False},
        config=config,
        environment=with_text(example_run.environment(), text),
    )


class Skeleton(HTMLParser):
    """What a page is made of but for its texts: elements in order, with their attributes; labels hold texts too."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kept = tuple((name, None if name == "aria-label" else value) for name, value in attrs)
        if kept != (("class", "token"),):
            self.elements.append((tag, kept))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def skeleton(page: str) -> Skeleton:
    read = Skeleton()
    read.feed(page)
    read.close()
    return read


@pytest.fixture(scope="module")
def panels(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """The curves: drawn of numbers alone, and slowly, so once."""
    return panel_svgs(read_run(example_run.write_run(tmp_path_factory.mktemp("plain") / "demo")).metrics)


@pytest.fixture
def drawn(panels: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "panel_svgs", lambda metrics, compared: panels)


def page_of(folder: Path, text: str) -> str:
    run = read_run(hostile_run(folder, text))
    assert run.summary is not None
    # As it is written to a file.
    return render_page(run, run.summary).encode("utf-8", "replace").decode("utf-8")


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("what", TEXTS)
def test_the_page_is_the_same_but_for_its_texts(what: str, tmp_path: Path) -> None:
    """Whatever stands in the records, the page's elements and attributes are those of a run of plain words."""
    page = page_of(tmp_path / "demo", TEXTS[what])
    read = skeleton(page)
    assert read.elements == skeleton(page_of(tmp_path / "plain", "plain")).elements
    shown = "".join(read.text)
    assert not [c for c in page if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t"]
    assert visible(shown) == shown
    assert visible(TEXTS[what]).split("\n")[0] in shown


@pytest.mark.usefixtures("drawn")
def test_the_policy_allows_styles_of_ours_alone(tmp_path: Path) -> None:
    page = page_of(tmp_path / "demo", TEXTS["a style"])
    head = page.index("<title>")
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert page.index("Content-Security-Policy") < head, "it stands before any text of others"
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    styles = rules.pop("style-src")
    assert rules == {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}
    assert re.fullmatch(r"'unsafe-hashes'( 'sha256-[A-Za-z0-9+/]{43}=')+", styles)
    (element,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    known = set(styles.split()[1:])
    for style, allowed in [(element, True), ("position:fixed;inset:0", False), ("body{display:none}", False)]:
        asked = with_policy(f"<meta {PLACE}><style>{style}</style>")
        assert (set(re.findall(r"'sha256-[^']+'", asked)) <= known) is allowed


def testtemplates_escape_whatever_they_are_given() -> None:
    environment = page_module.templates()
    assert environment.autoescape is True
    for path in REPORT.glob("*.j2"):
        assert not re.search(r"\|\s*safe\b|autoescape|<script|\son\w+=", path.read_text(encoding="utf-8"))


# Markdown


def html_in(markdown: str) -> list[str]:
    """What a reader of Markdown takes for HTML."""
    found = []
    for token in MarkdownIt("commonmark", {"html": True}).parse(markdown):
        for one in (token, *(token.children or ())):
            if one.type in ("html_block", "html_inline"):
                found.append(one.content.strip())
            assert one.type not in ("link_open", "image", "autolink")
    return found


@pytest.mark.parametrize("what", TEXTS)
def test_the_comparisons_markdown_is_the_same_but_for_its_texts(what: str) -> None:
    compared = example_run.record(Comparison, with_text(example_run.comparison(1), "plain"))
    attacked = example_run.record(Comparison, json.loads(json.dumps(with_text(example_run.comparison(1), TEXTS[what]))))
    page = comparison_markdown(attacked, TEXTS[what])
    assert html_in(page) == html_in(comparison_markdown(compared, "plain"))
    assert visible(page) == page


@given(st.text(st.sampled_from("`~<>/[]()!#\n -*&;a\\\t"), max_size=60))
def test_no_text_gets_out_of_its_fence(text: str) -> None:
    compared = example_run.record(Comparison, with_text(example_run.comparison(1), "plain"))
    attacked = example_run.record(Comparison, with_text(example_run.comparison(1), text))
    assert html_in(comparison_markdown(attacked, text)) == html_in(comparison_markdown(compared, "plain"))


# Terminals

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def obeyed(output: str) -> list[str]:
    """What a terminal would obey in an output, but for colours of the console's own."""
    return [c for c in _COLOURS.sub("", output) if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t"]


def consoles() -> Iterator[Console]:
    for terminal in (False, True):
        for width in (60, 140):
            options: dict[str, Any] = {"highlight": False, "emoji": False, "soft_wrap": True, "width": width}
            yield SafeConsole(file=io.StringIO(), force_terminal=terminal, color_system="256", **options)


@pytest.mark.parametrize("what", TEXTS)
def test_a_terminal_obeys_nothing_that_is_shown(what: str) -> None:
    text = TEXTS[what]
    for console in consoles():
        reporter = ConsoleReporter(console)
        reporter.say(text)
        with reporter.stage("name", text), reporter.progress(text, 2, text) as advance:
            advance(2)
        show(example_run.record(Comparison, with_text(example_run.comparison(1), text)), reporter, "comparison.json")
        assert isinstance(console.file, io.StringIO)
        output = console.file.getvalue()
        if not console.is_terminal:
            assert obeyed(output.replace("\u200c", "").replace("\u200d", "")) == []
            first = visible(text).split("\n")[0]
            assert output.startswith(first)
        assert "\x1b]" not in output and "\x9b" not in output


@given(st.text(st.sampled_from("[]/\\=:abred \x1b\u202e#@"), max_size=30))
def test_markup_in_a_line_is_text(text: str) -> None:
    """Of rich's own language nothing works in what is said."""
    console = SafeConsole(file=io.StringIO(), highlight=False, emoji=False, soft_wrap=True)
    reporter = ConsoleReporter(console)
    reporter.say(text)
    with reporter.stage("name", text):
        pass
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == 2 * f"{visible(text)}\n"


def test_what_libraries_warn_of_is_shown_not_obeyed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "correct-horse")
    with inert_errors():
        for text in (*TEXTS.values(), "correct-horse", "\r 3/4 |##  \x1b[A"):
            print(text, file=sys.stderr, flush=True)
    shown = capsys.readouterr().err
    assert shown.endswith("***\n\r 3/4 |##  \x1b[A\n")
    assert set(obeyed(shown.removesuffix("\x1b[A\n"))) <= set("\r\u200c\u200d\ufe0f")


ATTACK = "".join(TEXTS.values()).replace("\ud83d", "").replace("\x00", "")


def test_inspecting_and_training_on_hostile_data_print_nothing_that_is_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_model(Path("tiny"), chat=True)
    # Named in a warning of transformers.
    change_json(Path("tiny"), "tokenizer_config.json", tokenizer_class="\x1b]0;owned\x07Tokenizer")
    good = [{"prompt": f"{ATTACK}{n}", "chosen": f"{ATTACK}a", "rejected": f"{ATTACK}b", ATTACK: 1} for n in range(6)]
    bad = [{"prompt": ATTACK, "chosen": [{"role": ATTACK, "content": ATTACK}], "rejected": 3}, {ATTACK: ATTACK}]
    name = "pairs\x1b]0;owned\x07\u202e.jsonl"
    Path(name).write_text("\n".join(map(json.dumps, [*good, *bad])) + f"\n{ATTACK}\n")
    model = ["--model.path", "tiny", "--data.max-length", "1000", "--data.max-prompt-length", "600"]
    small = ["--training.max-steps", "1", "--comparison.prompts", "1", "--comparison.max-new-tokens", "2"]
    assert main(["inspect", name, *model]) == 0
    assert main(["train", "--data.train", name, *model, *small, "--run.name", "one"]) == 0
    main(["train", "--data.train", name, *model, *small, "--data.columns", f"prompt={ATTACK}"])
    assert main(["train", "--data.train", name, *model, *small, "--run.name", "a\x1b[2Jb\u202e"]) == 2
    assert main(["compare"]) == 0
    main(["report", "runs/none\x1b[2J"])
    main([f"x{ATTACK}"])
    captured = capsys.readouterr()
    for output in (captured.out, captured.err):
        assert output
        assert set(obeyed(output)) <= set("\r\u200c\u200d\ufe0f")
