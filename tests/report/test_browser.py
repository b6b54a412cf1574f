"""The page in a real browser: it renders, runs no script, and never scrolls sideways."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import example_run
import pytest

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
    compared["prompts"][0]["after"]["greedy"]["text"] = "<script>document.title = 'ran'</script>" + LONG
    compared["prompts"][1]["prompt"] = LONG
    compared["prompts"][1]["id"] = f"{LONG}.jsonl:4"
    config = example_run.config()
    config["model"]["path"] = f"models/{LONG}"
    summary = example_run.summary() | {"model": LONG}
    folder = tmp_path_factory.mktemp("runs") / "demo"
    return write_report(example_run.write_run(folder, comparison=compared, config=config, summary=summary))


def browse(target: Path, profile: Path, *flags: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, target.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_renders_its_headings_and_runs_no_script(page: Path, tmp_path: Path) -> None:
    document = browse(page, tmp_path, "--dump-dom")
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", document)
    assert headings == [
        "Verdict",
        "Questions",
        "Key figures",
        "Training curves",
        "Start-up checks",
        "Data",
        "Before and after",
        "Settings",
        "Environment",
    ]
    assert "<title>demo · tiltlm report</title>" in document
    assert document.count("<svg") == 6


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
