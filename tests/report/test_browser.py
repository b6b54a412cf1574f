"""The page in a real browser: it renders, runs no script, and never scrolls sideways."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import example_run
import pytest
from hostile import TEXTS

from tiltlm.report.page import write_report

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
]
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
LONG = "x" * 600

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the browser `chromium`")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report full of what breaks layouts: markup, long words, long paths, every fold open."""
    compared = example_run.comparison()
    compared["prompts"][0]["after"]["greedy"]["text"] = "".join(TEXTS.values()) + LONG
    compared["prompts"][0]["before"]["greedy"]["text"] = "".join(TEXTS.values())
    compared["prompts"][1]["prompt"] = LONG
    compared["prompts"][1]["id"] = f"{LONG}.jsonl:4"
    config = example_run.config()
    config["model"]["path"] = f"models/{LONG}"
    summary = example_run.summary() | {"model": LONG}
    folder = tmp_path_factory.mktemp("runs") / "demo"
    return write_report(example_run.write_run(folder, comparison=compared, config=config, summary=summary))


def browse(target: Path, profile: Path, *flags: str) -> str:
    return complaints(target, profile, *flags)[0]


def complaints(target: Path, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """What the browser prints, and what it says on its console: each thing that the page's policy forbids is there."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, "--enable-logging=stderr", f"--user-data-dir={profile}", *flags, target.as_uri()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_renders_its_headings_and_runs_no_script(page: Path, tmp_path: Path) -> None:
    document, said = complaints(page, tmp_path, "--dump-dom")
    assert said == [], "its own styles are all allowed, and nothing else is asked for"
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", document)
    assert headings == [
        "Verdict",
        "Questions",
        "Key figures",
        "Training curves",
        "How close to the best possible",
        "Start-up checks",
        "Data",
        "Before and after",
        "Settings",
        "Environment",
    ]
    assert "<title>demo · tiltlm report</title>" in document
    assert document.count("<svg") == 8


def test_the_policy_holds_where_escaping_would_fail(page: Path, tmp_path: Path) -> None:
    """A copy in which a text has become markup: no script, no handler, no style, no image, no form, no other base."""
    copy = tmp_path / "copy.html"
    attack = "".join(TEXTS[what] for what in ("a script", "a handler", "a style"))
    more = '<base href="https://x.example/"><style>h1 { display: none }</style><iframe src="frame.html"></iframe>'
    copy.write_text(page.read_text(encoding="utf-8").replace("<main>", f"<main>{attack}{more}"), encoding="utf-8")
    document, said = complaints(copy, tmp_path / "profile", "--dump-dom")
    assert "<title>demo · tiltlm report</title>" in document
    assert sum("Content Security Policy" in line for line in said) >= 6


@pytest.mark.parametrize("width", [1280, 380])
def test_never_scrolls_sideways(page: Path, tmp_path: Path, width: int) -> None:
    """A copy of the page reports its own width from within a frame, for a window cannot be as narrow as a phone."""
    measure = "<script>parent.document.title = `${innerWidth} ${document.documentElement.scrollWidth}`</script>"
    copy = POLICY.sub("", page.read_text(encoding="utf-8")).replace("<details>", "<details open>")
    (tmp_path / "copy.html").write_text(copy.replace("</body>", f"{measure}</body>"), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(f'<title>?</title><iframe src="copy.html" style="width:{width}px;height:900px;border:0"></iframe>')
    document = browse(frame, tmp_path / "profile", "--window-size=1400,1000", "--dump-dom")
    assert f"<title>{width} {width}</title>" in document


@pytest.mark.parametrize("width", [1280, 380])
def test_can_be_photographed(page: Path, tmp_path: Path, width: int) -> None:
    image = tmp_path / "page.png"
    browse(page, tmp_path / "profile", f"--window-size={width},2000", f"--screenshot={image}")
    assert struct.unpack(">I", image.read_bytes()[16:20]) == (width,)
