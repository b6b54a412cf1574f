"""Writes the report of a run from its files: the curves, the comparison, and one self-contained page."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tiltlm.report.comparison_page import comparison_markdown
from tiltlm.report.frontier_plot import frontier_svg
from tiltlm.report.frontier_words import path_rows, sentences
from tiltlm.report.learnt_from import imitates, method, unit
from tiltlm.report.plots import draw_training_metrics, length_svgs, panel_svgs
from tiltlm.report.policy import with_policy
from tiltlm.report.questions.asking import answers
from tiltlm.report.summary import stage_figures, stage_summary, summarise
from tiltlm.report.tiles import tiles
from tiltlm.report.verdict import findings
from tiltlm.report.wording import count, duration, number, percent, signed
from tiltlm.runs.answers import Answers
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.outcomes import StageFigures, Summary
from tiltlm.runs.rows import Metrics
from tiltlm.runs.run_files import RunFiles, Settings, read_run
from tiltlm.storage.whole_files import written_whole
from tiltlm.text.masking import masked, masked_command
from tiltlm.text.visible import shortened, visible

SPECIAL_TOKEN = re.compile(r"(<\|[^<>|\s]{1,40}\|>|</?s>|<(?:bos|eos|start_of_turn|end_of_turn)>|\[/?INST\])")

# Of the rows dropped, so that the page of a large, untidy data set stays quick to open.
LISTED_AT_MOST = 200


def write_report(folder: Path) -> Path:
    """Rebuilds `training_metrics.png`, `comparison.md` and `report.html` in a run's folder.

    Returns the path of `report.html`. The same files of a run give the same report, to the byte.

    Raises:
        RunError: one of the run's files is missing or damaged.
    """
    run = read_run(folder)
    summary = run.summary
    if summary is None:
        summary = summarise(run)
        RunFolder(folder).write_json("summary.json", summary)
    with written_whole(folder / "training_metrics.png") as curves:
        draw_training_metrics(run.metrics, curves, not imitates(summary))
    write_text(folder / "comparison.md", comparison_markdown(run.comparison, summary.run))
    page = folder / "report.html"
    write_text(page, render_page(run, summary))
    return page


def render_page(run: RunFiles, summary: Summary) -> str:
    """The page as HTML that needs no script, no network and no other file."""
    histograms = run.data.quality.histograms if run.data.quality is not None else None
    length_panels = [(title, Markup(svg)) for title, svg in length_svgs(histograms)] if histograms is not None else []
    page = (
        templates()
        .get_template("page.html.j2")
        .render(
            run=run,
            summary=summary,
            environment=run.environment,
            data=run.data,
            comparison=run.comparison,
            findings=findings(summary),
            # Summaries of older versions have no answers, but the files may tell.
            questions=summary.questions or answers(run),
            unit=unit(summary),
            method=method(summary),
            # Version 0.1 told of beta alone.
            loss_settings=summary.loss_settings or ({} if summary.beta is None else {"beta": summary.beta}),
            tiles=tiles(summary),
            panels=_panels(run.metrics, summary),
            length_panels=length_panels,
            command=shlex.join(masked_command(run.environment.command)),
            settings=_options_as_text(run.settings),
            stages=stage_rows(run, summary),
            earlier_panels=[
                _StagePanels(stage.name, _panels(stage.files.metrics, stage_summary(stage))) for stage in run.earlier
            ],
            at_first=_at_first(run),
            frontier_words=sentences(run),
            frontier_rows=path_rows(run.frontier) if run.frontier is not None else [],
            frontier_picture=Markup(frontier_svg(run.frontier)) if run.frontier is not None else None,
            listed_at_most=LISTED_AT_MOST,
            started=date_in_words(run.environment.started),
        )
    )
    return with_policy(page)


@dataclass(frozen=True, slots=True)
class _StagePanels:
    """The training curves of a stage: titles and pictures."""

    name: str
    panels: list[tuple[str, Markup]]


def _panels(metrics: Metrics, summary: Summary) -> list[tuple[str, Markup]]:
    # Safe because plots.py writes no text but our own labels and numbers.
    return [(title, Markup(svg)) for title, svg in panel_svgs(metrics, not imitates(summary))]


def stage_rows(run: RunFiles, summary: Summary) -> list[StageFigures]:
    """The stages of a run of several, the last one, which has no folder of its own, among them."""
    return [*summary.earlier, stage_figures(summary, run.stage or summary.run, "")] if summary.earlier else []


def _at_first(run: RunFiles) -> dict[str, Answers]:
    """Answers of the model before the first of several stages, to prompts that the last one answers too."""
    first = run.earlier[0].files.comparison if run.earlier else None
    return {prompt.id: prompt.before for prompt in first.prompts} if first is not None else {}


def templates() -> Environment:
    """The templates beside this module, with the filters that they use."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=as_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "capitalised": lambda text: text[:1].upper() + text[1:],
        "number": number,
        "signed": signed,
        "percent": percent,
        "count": count,
        "duration": duration,
        "minus": with_minus_signs,
        "shortened": shortened,
        "tokens": with_marked_tokens,
    }
    return found


def as_shown(value: object) -> object:
    """What the page shows of a value: text of others with its hidden characters named and its secrets masked."""
    # Markup is our own, or was made of such text by `with_marked_tokens`.
    return visible(masked(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def with_minus_signs(text: str) -> str:
    """The text with a true minus sign before negative numbers."""
    return re.sub(r"(?<![\w.-])-(?=\d)", "\N{MINUS SIGN}", text)


def with_marked_tokens(text: str) -> Markup:
    """The text escaped, with a chat template's special tokens set apart from it; hidden characters are named."""
    # re.split with one group gives text and tokens in turn.
    pieces = SPECIAL_TOKEN.split(visible(text))
    marked = [
        Markup('<span class="token">{}</span>').format(piece) if place % 2 else escape(piece)
        for place, piece in enumerate(pieces)
    ]
    return Markup("").join(marked)


def _options_as_text(settings: Settings) -> dict[str, dict[str, str]]:
    return {
        section: {name: "unset" if value is None else _option_text(value) for name, value in options.items()}
        for section, options in settings.items()
    }


def _option_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def date_in_words(started: str) -> str:
    """`2 January 2030, 03:04 UTC` for an ISO time; any other text as it stands."""
    try:
        moment = datetime.fromisoformat(started)
    except ValueError:
        return started
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".rstrip()


def write_text(path: Path, text: str) -> None:
    """Writes a text whole, as UTF-8."""
    # A model can generate half a surrogate pair, which UTF-8 cannot hold.
    with written_whole(path) as file:
        file.write_text(text, encoding="utf-8", errors="replace", newline="\n")
