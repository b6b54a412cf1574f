"""In which encoding a text file is written, and its text."""

from __future__ import annotations

import codecs
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tiltlm.data.files.raw_rows import Tell

# Bytes read at a time, and how many of a file are looked at to tell its encoding.
PIECE = 1 << 16
_LOOKED_AT = 1 << 26
_SAMPLE = 1 << 16
LONGEST = 1 << 24
"""The most characters that one row may have as text: what a file that inflates to far more than it is ends at."""
# Bytes beyond ASCII below which no encoding is guessed: those rows are dropped as not UTF-8.
_FEWEST = 3

# Longer marks first: UTF-32's begins like UTF-16's.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Encodings in which people's files are met; among all that Python knows, some fit any bytes.
_KNOWN = ("cp1252", "cp1251", "cp1250", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256")
_KNOWN_ASIAN = ("gb18030", "big5", "cp932", "euc_jp", "cp949")

# What reading a damaged file raises, compressed in any way.
DAMAGES = (EOFError, OSError, zlib.error, lzma.LZMAError)

_SEQUENCES = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
# What stands for bytes that cannot be decoded: see `surrogateescape`.
UNDECODABLE = re.compile("[\udc80-\udcff]")
# What stands behind the beginning of a line that is too long; no decoder makes it of bytes.
_TOO_LONG = "\udcff"
_MARKED = "tiltlm-marked"
_ENDS = ("\n", "\r")


@dataclass(frozen=True, slots=True)
class TextFile:
    """name: as rows' ids call the file. encoding: a codec of Python. head: the text it begins with."""

    name: str
    encoding: str
    head: str

    def pieces(self, stream: Any) -> Iterator[str]:
        """The text, some 64 KiB at a time. Bytes that cannot be decoded are marked: see UNDECODABLE."""
        decoder = codecs.getincrementaldecoder(self.encoding)(errors=_marking())
        # read1 hands over what there is, so that nothing decoded before a damage is lost with it.
        while piece := stream.read1(PIECE):
            if text := decoder.decode(piece):
                yield text
        yield decoder.decode(b"", final=True)

    def lines(self, stream: Any) -> Iterator[str]:
        """The lines with their ends, which are any of `\\n`, `\\r\\n` and `\\r`. Of one that is longer than LONGEST its
        beginning, with a mark that UNDECODABLE finds.
        """
        wrapper = io.TextIOWrapper(stream, encoding=self.encoding, errors=_marking(), newline="")
        try:
            while line := wrapper.readline(LONGEST):
                if len(line) < LONGEST or line.endswith(_ENDS):
                    yield line
                    continue
                while (more := wrapper.readline(LONGEST)) and not more.endswith(_ENDS):
                    pass
                yield f"{line}{_TOO_LONG}\n"
        finally:
            # Or the wrapper would close what it was lent.
            if not wrapper.closed:
                wrapper.detach()

    def why_no_text(self, row: str) -> str:
        """What is said of a row in which UNDECODABLE is found."""
        return f"longer than {LONGEST:,} characters" if _TOO_LONG in row else f"not {_spoken(self.encoding)} text"


def look_at(stream: Any, name: str, tell: Tell) -> TextFile:
    """The encoding and the beginning of a text; a sentence is told where the encoding is not UTF-8.

    stream: the file's bytes from the beginning; a damaged one is looked at as far as it goes.
    """
    head, encoding, sample = _scan(stream)
    if encoding is None:
        encoding = _guess(sample)
        if encoding != "utf-8":
            shown = next((line for line in sample.decode(encoding, "replace").splitlines() if line.strip()), "")
            tell(
                f"{name} is not UTF-8: it is read as {encoding}, recognised by its bytes, e.g. `{shown.strip()[:60]}`. "
                "If letters are wrong there, save the file as UTF-8."
            )
    elif not encoding.startswith("utf-8"):
        tell(f"{name} is read as {_spoken(encoding)}.")
    decoder = codecs.getincrementaldecoder(encoding)(errors=_marking())
    return TextFile(name, encoding, decoder.decode(head))


def _scan(stream: Any) -> tuple[bytes, str | None, bytes]:
    """The first bytes, the encoding (None where it must be guessed), and lines to guess by."""
    head, looked_at, high, in_sequences, sample = b"", 0, 0, 0, bytearray()
    strict = codecs.getincrementaldecoder("utf-8")()
    try:
        while looked_at < _LOOKED_AT and (piece := stream.read1(PIECE)):
            looked_at += len(piece)
            head += piece if len(head) < PIECE else b""
            if piece.isascii():
                continue
            try:
                strict.decode(piece)
            except UnicodeDecodeError:
                strict.reset()
                high += len(_NOT_ASCII.findall(piece))
                in_sequences += sum(map(len, _SEQUENCES.findall(piece)))
                if len(sample) < _SAMPLE:
                    sample += b"\n".join(line for line in piece.splitlines() if not line.isascii()) + b"\n"
    except DAMAGES:
        pass  # told where the rows are read
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return head, encoding, b""
    if wide := _wide(head):
        return head, wide, b""
    # A file in UTF-8 may hold broken rows; one in another encoding hardly ever looks like UTF-8.
    another = high >= _FEWEST and high > 2 * in_sequences
    return head, None if another else "utf-8", bytes(sample[:_SAMPLE])


def _wide(head: bytes) -> str | None:
    """UTF-16 without its mark: every other byte of Latin text, and of the signs of JSON and CSV, is zero."""
    first, second = head[0::2].count(0), head[1::2].count(0)
    if first + second < len(head) / 20:
        return None
    return "utf-16-le" if second > 4 * first else "utf-16-be" if first > 4 * second else None


def _guess(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    found = from_bytes(sample, cp_isolation=[*_KNOWN, *_KNOWN_ASIAN])
    best = found.best()
    if best is None:
        return "utf-8"
    # Neighbours that read as well, or read the same letters: of those the one that is met most.
    equal = {other.encoding for other in found if (other.chaos, other.coherence) == (best.chaos, best.coherence)}
    equal |= {name for name in _KNOWN if _decodes_as(sample, name, str(best))}
    return next((name for name in _KNOWN if name in equal), best.encoding)


def _decodes_as(sample: bytes, encoding: str, text: str) -> bool:
    try:
        return sample.decode(encoding) == text
    except UnicodeDecodeError:
        return False


def _spoken(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper() if encoding.startswith("utf") else encoding


def _marking() -> str:
    """The name of the error handler that puts a mark where bytes cannot be decoded, in any encoding."""
    codecs.register_error(_MARKED, lambda error: ("\udc80", getattr(error, "end", 0)))
    return _MARKED
