"""Prompts out of data, each different one once: out of preference data of any format, or out of prompts alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from tiltlm import demo
from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.conversion import load_examples
from tiltlm.data.examples import Text
from tiltlm.data.files.encodings import UNDECODABLE, look_at
from tiltlm.data.files.file_rows import data_suffix, holds_rows
from tiltlm.data.files.raw_rows import UNREADABLE, Row
from tiltlm.data.files.sources import Source, open_source
from tiltlm.data.formats.columns import renaming
from tiltlm.data.formats.context import introduced, question, tools_field
from tiltlm.data.formats.fields import Fields, RowError, is_empty, require_characters
from tiltlm.data.formats.fields import field as field_of
from tiltlm.data.formats.messages import chat_field
from tiltlm.data.formats.notation import holds_messages
from tiltlm.data.formats.recognition import recognise_format
from tiltlm.data.formats.table import FORMATS
from tiltlm.data.splitting import prompt_key
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DroppedRow

DEMO = "demo"
OPTION = "--prompts"
_SAMPLE = 100
_TEXT_FILE = ".txt"


@dataclass(frozen=True, slots=True)
class GivenPrompt:
    """A prompt of the data.

    id: the row that it is of first. tools: JSON text of a list of tools. alone: it is text that stands alone, so the
        data does not say whether it is what a user of a chat says.
    """

    id: str
    prompt: Text
    tools: str | None = None
    alone: bool = False


@dataclass(slots=True)
class FoundPrompts:
    """The different prompts of data in their order, and the account of the rest.

    rows: how many there were. repeated: examples whose prompt an earlier one has. dropped: rows without a prompt that
        can be used. how: in words, how they were read.
    """

    how: str = ""
    prompts: list[GivenPrompt] = field(default_factory=list)
    rows: int = 0
    repeated: int = 0
    dropped: list[DroppedRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, given: Iterable[GivenPrompt | DroppedRow]) -> None:
        """Takes in prompts, those that are there already as repeated."""
        seen = {prompt_key(one.prompt, one.tools) for one in self.prompts}
        for one in given:
            if isinstance(one, DroppedRow):
                self.dropped.append(one)
            elif (key := prompt_key(one.prompt, one.tools)) in seen:
                self.repeated += 1
            else:
                seen.add(key)
                self.prompts.append(one)


def read_prompts(source: str, data: DataConfig, hub: HubConfig) -> FoundPrompts:
    """The prompts of a file, a folder, a hub dataset, or `demo`.

    A text file (.txt) that does not hold JSON has one on each line. Rows of no format with a column `prompt` are
    prompts alone. All else is preference data, as `load_examples` reads it.

    Raises:
        DataError: nothing is found, its format is not known, or there is no prompt in it.
        ConfigError: an option is set that has no effect on this data.
    """
    path = demo.TRAIN if source == DEMO else Path(source).expanduser()
    if path.is_file() and data_suffix(path) == path.suffix.lower() == _TEXT_FILE and not holds_rows(path):
        found = _of_lines(path)
    else:
        found = _of_rows(str(path) if source == DEMO else source, data, hub)
    if not found.prompts:
        first = f"; the first is {found.dropped[0].id}: {found.dropped[0].detail}" if found.dropped else ""
        raise DataError(f"{source}: there is no prompt in its {found.rows} rows; {len(found.dropped)} dropped{first}.")
    return found


def _of_lines(path: Path) -> FoundPrompts:
    found = FoundPrompts("a prompt a line")
    with path.open("rb") as stream:
        text = look_at(stream, path.name, found.notes.append)
    blank = 0

    def prompts(stream: object) -> Iterator[GivenPrompt | DroppedRow]:
        nonlocal blank
        for number, line in enumerate(text.lines(stream), start=1):
            found.rows += 1
            place = f"{path.name}:{number}"
            if UNDECODABLE.search(line):
                yield DroppedRow(place, UNREADABLE, text.why_no_text(line))
            elif line.strip():
                yield GivenPrompt(place, line.strip(), alone=True)
            else:
                blank += 1

    with path.open("rb") as stream:
        found.add(prompts(stream))
    if blank:
        found.notes.append(f"{blank} blank line{'s' * (blank > 1)} of {path.name} ask nothing.")
    return found


def _of_rows(source: str, data: DataConfig, hub: HubConfig) -> FoundPrompts:
    opened = open_source(source, data.train_split, data.subset, hub.folder, OPTION)
    sample = list(islice(opened.rows, _SAMPLE))
    readable = [row for row in sample if isinstance(row, Row)]
    rename = renaming(readable, data.columns)
    if data.format == "auto" and readable:
        renamed = [rename(row) for row in readable]
        try:
            # Of what is imitated anything can be made: no format is refused for what an objective wants.
            format, _ = recognise_format(renamed, "demonstration", rename.paths)
        except DataError:
            if not any(not is_empty(row.fields.get("prompt")) for row in renamed):
                raise
            rows = (rename(row) if isinstance(row, Row) else row for row in chain(sample, opened.rows))
            return _alone(rows, opened)
    else:
        format = data.format
    unit = FORMATS[format].unit if format in FORMATS else "pair"
    loaded = load_examples(source, data, hub, "train", unit)
    found = FoundPrompts(
        f"the prompts of preference data (`{loaded.source.format}`)",
        rows=loaded.source.rows,
        dropped=list(loaded.dropped),
        notes=list(loaded.file_notes),
    )
    found.add(GivenPrompt(one.id, one.prompt, one.tools) for one in loaded.examples)
    return found


def _alone(rows: Iterable[Row | DroppedRow], opened: Source) -> FoundPrompts:
    found, unused, ids = FoundPrompts("prompts alone"), dict[str, int](), set[str]()

    def prompts() -> Iterator[GivenPrompt | DroppedRow]:
        for row in rows:
            found.rows += 1
            if isinstance(row, DroppedRow):
                yield row
                continue
            fields = Fields(row.fields)
            try:
                given = _given(row.id, fields)
            except RowError as problem:
                yield DroppedRow(row.id, problem.reason, problem.detail)
                continue
            for column in (*fields.unused(), *fields.ignored):
                unused[column] = unused.get(column, 0) + 1
            if given.id in ids:
                given = GivenPrompt(row.id, given.prompt, given.tools, given.alone)
            ids.add(given.id)
            yield given

    found.add(prompts())
    found.notes += opened.notes
    if unused:
        listed = ", ".join(f"`{name}` ({count} row{'s' * (count > 1)})" for name, count in unused.items())
        found.notes.append(f"Columns not used: {listed}.")
    return found


def _given(place: str, fields: Fields) -> GivenPrompt:
    """The prompt of a row that has a prompt alone, with what stands beside it for the chat template.

    Raises:
        RowError: it has none, or nothing is asked.
    """
    prompt: Text
    value, tools = field_of(fields, "prompt"), tools_field(fields)
    beside = any(not is_empty(fields.look(column)) for column in ("system", "history", "tools"))
    if holds_messages(value):
        prompt = introduced(fields, chat_field(fields, "prompt"))
    else:
        prompt = question(fields, ("prompt",)) if beside else _text(value)
    named = fields.look("id")
    name = str(fields["id"]) if isinstance(named, str) and named.strip() else place
    words = [prompt] if isinstance(prompt, str) else [message.content for message in prompt]
    for text in (*words, name, tools or ""):
        require_characters(text, "`prompt`")
    if not "".join(words).strip():
        raise RowError("empty prompt", "`prompt` holds no text")
    if not isinstance(prompt, str) and prompt[-1].role == "assistant":
        raise RowError("nothing is asked", "the prompt ends with an assistant turn")
    return GivenPrompt(name, prompt, tools, alone=isinstance(prompt, str))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise RowError(UNREADABLE, "`prompt` is neither text nor a list of messages")
    return value
