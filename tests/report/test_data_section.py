"""What the page says of the data: words first, then tables, pictures and the rows that are meant."""

from __future__ import annotations

import re
from pathlib import Path

import example_run
import pytest

from tiltlm.report.page import LISTED_AT_MOST, render_page
from tiltlm.report.plots import length_svgs
from tiltlm.runs.data_account import TokenHistogram, TokenHistograms
from tiltlm.runs.run_files import read_run

ATTACK = '<script>alert(1)</script>"onmouseover="x\x1b[31m\u202e'


def data_section(folder: Path) -> str:
    run = read_run(folder)
    assert run.summary is not None
    page = render_page(run, run.summary)
    section = page[page.index('<section aria-labelledby="data">') :]
    return section[: section.index("</section>")]


def test_words_come_first_then_tables_pictures_and_rows(tmp_path: Path) -> None:
    section = data_section(example_run.write_run(tmp_path / "demo"))
    order = (
        *('Encoding damage <span class="status">look at it</span>', "8 of 320 are so."),
        *("What to do about encoding damage.", "Truncation", "Duplicate pairs, contradictory pairs."),
        *("Training pairs: 280 pairs", "Cut to fit, in both splits", "90 of 9,000", "Scripts, by most"),
        *("Tokens of a prompt", "<svg", "Tokens of a completion", "<svg"),
        *("Rows: truncation", "pairs.jsonl:9", "prompt lost 40 of 90 tokens", "Rows: encoding damage", "a\u2400b"),
        "Dropped",
    )
    place = 0
    for words in order:
        place = section.index(words, place)
    # What need not be looked at needs no advice.
    assert "What to do about truncation" not in section and section.count("look at it") == 1


def test_a_run_that_did_not_look_says_nothing(tmp_path: Path) -> None:
    data = {key: value for key, value in example_run.data_report().items() if key != "quality"}
    section = data_section(example_run.write_run(tmp_path / "demo", data_report=data))
    assert "Not found" not in section and "<svg" not in section and "Training pairs: 280 pairs" in section


def test_hostile_text_in_rows_is_inert(tmp_path: Path) -> None:
    data = example_run.data_report()
    data["quality"] |= {
        "findings": [
            example_run.found(ATTACK, 2, True, {"ids": [ATTACK, ATTACK], "detail": ATTACK})
            | {"sentence": ATTACK, "advice": ATTACK},
            example_run.found(ATTACK, 0, False),
        ],
        "scripts": [{"script": ATTACK, "prompts": 1, "completions": 1}],
        "truncation": [data["quality"]["truncation"][0] | {"part": ATTACK}],
        "histograms": {
            "edges": [0, 5],
            "histograms": [{"split": ATTACK, "part": ATTACK, "counts": [1]}],
        },
    }
    section = data_section(example_run.write_run(tmp_path / "demo", data_report=data))
    assert "<script" not in section and section.count("&lt;script&gt;") == 10
    assert not re.search(r'<[^>]*"onmouseover=', section)
    assert "\x1b" not in section and "\u202e" not in section and "\\u202e" in section


def test_many_rows_are_listed_up_to_a_limit(tmp_path: Path) -> None:
    data = example_run.data_report()
    rows = [{"ids": [f"p:{n}"], "detail": None} for n in range(LISTED_AT_MOST + 5)]
    data["quality"]["findings"] = [example_run.found("truncation", len(rows), True, *rows)]
    section = data_section(example_run.write_run(tmp_path / "demo", data_report=data))
    assert len(re.findall(r"<code>p:\d+</code>", section)) == LISTED_AT_MOST
    assert f"The first {LISTED_AT_MOST};" in section


@pytest.mark.parametrize("counts", [(3, 1), (0, 0), (0, 7)])
def test_every_histogram_can_be_drawn(counts: tuple[int, int]) -> None:
    both = TokenHistograms((0, 10, 20), tuple(TokenHistogram("train", part, counts) for part in ("prompt", "chosen")))
    svgs = length_svgs(both)
    assert [title for title, _ in svgs] == ["Tokens of a prompt", "Tokens of a completion, training"]
    assert all(svg.startswith("<svg") and "nan" not in svg.lower() for _, svg in svgs)
    assert length_svgs(both) == svgs
