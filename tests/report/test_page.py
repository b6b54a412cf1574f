"""The page: what it says, and that nothing a model or a user wrote becomes markup."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import example_run
import pytest

from tiltlm.report.page import render_page, with_marked_tokens, with_minus_signs, write_report
from tiltlm.runs.run_files import read_run

ATTACK = "<script>alert(1)</script>"
# Elements that HTML itself closes.
VOID = {"meta", "br", "path", "use", "rect"}


class Outline(HTMLParser):
    """Headings, ids, tags and the balance of open and closed elements."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.labelled_by: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.labelled_by |= {value or "" for name, value in attrs if name == "aria-labelledby"}
        if tag in {"h1", "h2", "h3", "h4"}:
            self.levels.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    parsed.close()
    return parsed


def report(folder: Path) -> str:
    run = read_run(folder)
    assert run.summary is not None
    return render_page(run, run.summary)


def test_writes_three_files_and_the_same_bytes_again(tmp_path: Path) -> None:
    folder = example_run.write_run(tmp_path / "demo")
    names = ("training_metrics.png", "comparison.md", "report.html")
    assert write_report(folder) == folder / "report.html"
    first = [(folder / name).read_bytes() for name in names]
    write_report(folder)
    assert [(folder / name).read_bytes() for name in names] == first


def test_the_page_is_well_formed_and_self_contained(tmp_path: Path) -> None:
    page = report(example_run.write_run(tmp_path / "demo"))
    parsed = outline(page)
    assert parsed.open == []
    assert not parsed.tags & {"script", "link", "img", "iframe", "object"}
    assert "url(http" not in page
    assert "@import" not in page
    assert page.startswith("<!doctype html>")
    assert '<html lang="en">' in page
    assert '<meta name="viewport"' in page
    assert "<title>demo · tiltlm report</title>" in page
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.labelled_by <= set(parsed.ids)
    assert parsed.levels[0] == 1
    assert parsed.levels.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in zip(parsed.levels, parsed.levels[1:], strict=False))


def test_the_page_says_what_the_run_did(tmp_path: Path) -> None:
    page = report(example_run.write_run(tmp_path / "demo"))
    for words in (
        "better than chance.",
        "chosen −1.2 (95% interval −1.9 to −0.5), rejected −4",
        "95% interval 60% to 79%",
        "first loss is ln 2",
        "300 rows",
        "identical completions 7",
        "not in the figures",
        "tiltlm train --config configs/demo.toml --run.name demo",
        "2 January 2030, 03:04 UTC",
        '<span class="token">&lt;|im_start|&gt;</span>user',
        "  1. the opening song,\n  2. the quiet duet",
    ):
        assert words in page


def test_the_margin_is_shown_with_its_interval_and_as_training_saw_it(tmp_path: Path) -> None:
    text = " ".join(report(example_run.write_run(tmp_path / "demo")).split())
    assert "beta × nats, 95% interval +0.3 to +0.5, as training saw it +0.39" in text


def test_the_length_controlled_win_rate_is_on_the_page_or_why_it_is_not(tmp_path: Path) -> None:
    given = {"length_controlled_win_rate": {"mean": 0.62, "interval": [0.52, 0.713], "clusters": 40}}
    text = " ".join(report(example_run.write_run(tmp_path / "one", summary=example_run.summary() | given)).split())
    assert '<dt>Win rate after against before, length-controlled</dt> <dd class="value">62%</dd>' in text
    assert "95% interval 52% to 71.3%" in text and "with length controlled for, in 62%" in text
    why = {"length_controlled_win_rate_why": "every new answer is longer than the old one, so that"}
    text = " ".join(report(example_run.write_run(tmp_path / "other", summary=example_run.summary() | why)).split())
    told = '<dd class="unmeasured">not measured</dd> <dd class="detail">Every new answer is longer than the old one'
    assert f"length-controlled</dt> {told}" in text


def test_the_page_answers_questions_of_its_files_where_the_summary_does_not(tmp_path: Path) -> None:
    text = " ".join(report(example_run.write_run(tmp_path / "demo")).split())
    assert '<h2 id="questions">Questions</h2>' in text
    assert "Do the labels look noisy?" in text and "Not measured: no training pairs were scored" in text
    asked = {"name": "drift", "question": "Longer?", "verdict": "shown", "sentence": "By -3.", "change": "Stop."}
    summary = example_run.summary() | {"questions": [asked | {"ids": ["pairs.jsonl:7"]}]}
    text = " ".join(report(example_run.write_run(tmp_path / "asked", summary=summary)).split())
    assert 'Longer? <span class="status">shown</span>' in text and "By \N{MINUS SIGN}3." in text
    assert '<span class="change">Stop.</span>' in text and "<code>pairs.jsonl:7</code>" in text
    assert "Do the labels look noisy?" not in text


def test_nothing_written_by_others_becomes_markup(tmp_path: Path) -> None:
    compared = example_run.comparison(1)
    compared["prompts"][0] |= {
        "id": f'"{ATTACK}',
        "prompt": f"<|im_start|>{ATTACK}<|im_end|>",
        "before": {"greedy": example_run.answer(ATTACK, 0.1), "samples": [example_run.answer(ATTACK, None)]},
    }
    data = example_run.data_report()
    data["dropped"]["list"] = [{"id": ATTACK, "reason": ATTACK, "detail": ATTACK}]
    data["dropped"]["by_reason"] = {ATTACK: 12}
    data["notes"] = [ATTACK]
    data["examples"] = [{"id": f'" onclick="x{ATTACK}', "prompt": ATTACK, "chosen": ATTACK, "rejected": ATTACK}]
    hostile = {"name": "drift", "verdict": "shown", "ids": [ATTACK], "line": ATTACK}
    hostile |= {"question": ATTACK, "sentence": ATTACK, "change": ATTACK}
    data["sources"][0] |= {"name": ATTACK, "files": [ATTACK], "format_why": ATTACK}
    folder = example_run.write_run(
        tmp_path / "demo",
        comparison=compared,
        data_report=data,
        summary=example_run.summary() | {"run": ATTACK, "model": ATTACK, "reward": ATTACK, "questions": [hostile]},
        config=example_run.config() | {"run": {"name": ATTACK}, ATTACK: {ATTACK: ATTACK}},
        environment=example_run.environment() | {"command": ["tiltlm", ATTACK], "platform": ATTACK, "started": ATTACK},
    )
    page = report(folder)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert 'onclick="' not in page
    assert outline(page).open == []


def test_a_run_in_which_nothing_was_measured_still_renders(tmp_path: Path) -> None:
    data = example_run.data_report()
    data |= {"train": dict.fromkeys(data["train"]) | {"pairs": 1, "prompts": 1, "prompts_cut": 0}, "eval": None}
    data |= {"dropped": {"count": 0, "by_reason": {}, "list": []}, "notes": [], "examples": [], "sources": []}
    environment = dict.fromkeys(example_run.environment()) | {"command": ["tiltlm"], "versions": {}, "started": "today"}
    folder = example_run.write_run(
        tmp_path / "cut",
        summary=example_run.unmeasured_summary(),
        data_report=data,
        environment=environment,
        comparison=None,
        metrics=[],
    )
    page = write_report(folder).read_text(encoding="utf-8")
    assert "None" not in page
    assert "The run was interrupted;" in page
    assert "No answers were compared in this run." in page
    assert "Nothing was dropped." in page
    assert outline(page).open == []
    assert "No answers were compared" in (folder / "comparison.md").read_text()


def test_a_run_of_version_0_1_is_reported_on(tmp_path: Path) -> None:
    earlier = Path(__file__).parents[1] / "runs" / "run_of_0_1"
    folder = Path(shutil.copytree(earlier, tmp_path / "demo"))
    assert "with the ipo loss at beta 0.1" in " ".join(write_report(folder).read_text(encoding="utf-8").split())
    (folder / "summary.json").unlink()
    write_report(folder)
    assert json.loads((folder / "summary.json").read_text())["loss_settings"]["beta"] == 0.1


def test_objectives_have_their_settings_on_the_page(tmp_path: Path) -> None:
    settings = {"beta": 2.0, "gamma_beta_ratio": 0.25}
    summary = example_run.summary() | {"loss": "simpo", "loss_settings": settings}
    text = " ".join(report(example_run.write_run(tmp_path / "demo", summary=summary)).split())
    assert "with the simpo loss at beta 2.0, gamma_beta_ratio 0.25, on 280 preference pairs" in text


def test_a_long_list_of_dropped_rows_is_cut(tmp_path: Path) -> None:
    data = example_run.data_report()
    rows = [{"id": f"row-{i}.", "reason": "empty completion", "detail": None} for i in range(300)]
    data["dropped"] = {"count": 300, "by_reason": {"empty completion": 300}, "list": rows}
    page = report(example_run.write_run(tmp_path / "demo", data_report=data))
    assert "row-199." in page
    assert "row-200." not in page
    assert "The first 200; <code>data_report.json</code> lists the rest." in page


def test_half_a_surrogate_pair_does_not_stop_the_report(tmp_path: Path) -> None:
    compared = example_run.comparison(1)
    compared["prompts"][0]["after"]["greedy"]["text"] = "cut \ud83d here"
    page = write_report(example_run.write_run(tmp_path / "demo", comparison=compared))
    assert "cut \\ud83d here" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a -1.2 b", "a −1.2 b"),
        ("-0.3 to -0.1", "−0.3 to −0.1"),
        ("held-out 4.1e-06 gpt-2", "held-out 4.1e-06 gpt-2"),
    ],
)
def test_minus_signs_before_numbers_alone(text: str, shown: str) -> None:
    assert with_minus_signs(text) == shown


def test_special_tokens_are_set_apart_and_stay_readable() -> None:
    assert with_marked_tokens("<s>a < b</s>") == (
        '<span class="token">&lt;s&gt;</span>a &lt; b<span class="token">&lt;/s&gt;</span>'
    )
