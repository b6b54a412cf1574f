"""The scripts that texts are written in, by the Unicode property of their letters."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import regex

from tiltlm.data.examples import Example
from tiltlm.data.quality.findings import Names, finding, of_all, verb
from tiltlm.data.quality.parts import one_text
from tiltlm.data.tokens.token_columns import bounds_of
from tiltlm.runs.data_account import DataFinding, FoundRow, ScriptCount

# Unicode's names; letters of any other script are `Other`.
_NAMED = (
    *("Latin", "Greek", "Cyrillic", "Armenian", "Georgian", "Hebrew", "Arabic", "Syriac", "Thaana", "Ethiopic"),
    *("Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala"),
    *("Thai", "Lao", "Tibetan", "Myanmar", "Khmer", "Mongolian", "Hangul", "Han", "Hiragana", "Katakana", "Bopomofo"),
    *("Cherokee", "Canadian_Aboriginal"),
)
NONE, JAPANESE, OTHER = "none", "Japanese", "Other"
NAMES = (NONE, *_NAMED, OTHER, JAPANESE)
"""Scripts by number. Text with kana is Japanese, whose Han are no other script."""
_LETTER = regex.compile(r"\p{L}")
_SCRIPT = regex.compile("|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in _NAMED))
_KANA = [NAMES.index("Hiragana"), NAMES.index("Katakana")]
_HAN = NAMES.index("Han")
_KANA_SHARE = 0.05
_ASCII_LETTER = regex.compile("[A-Za-z]")
_CHARACTERS_AT_ONCE = 1_000_000
_UNKNOWN = 255


class ScriptFinder:
    """Tells the script in which most letters of a text are; a code point is looked up once."""

    def __init__(self) -> None:
        self._of_code = np.full(0x110000, _UNKNOWN, dtype=np.uint8)

    def __call__(self, texts: Iterable[str]) -> np.ndarray:
        """Numbers in NAMES, uint8, one a text."""
        found: list[np.ndarray] = [np.empty(0, dtype=np.uint8)]
        found += [self._of_portion(portion) for portion in _portions(texts)]
        return np.concatenate(found)

    def _of_portion(self, texts: Sequence[str]) -> np.ndarray:
        latin = NAMES.index("Latin")
        scripts = np.array([latin if _ASCII_LETTER.search(text) else 0 for text in texts], dtype=np.uint8)
        wide = [number for number, text in enumerate(texts) if not text.isascii()]
        if not wide:
            return scripts
        joined = "".join(texts[number] for number in wide)
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        self._look_up(codes)
        own = np.repeat(np.arange(len(wide)), [len(texts[number]) for number in wide])
        table = np.bincount(own * len(NAMES) + self._of_code[codes], minlength=len(wide) * len(NAMES))
        letters = table.reshape(len(wide), len(NAMES))
        letters[:, 0] = 0
        kana = letters[:, _KANA].sum(axis=1)
        japanese = (kana > 0) & (kana >= _KANA_SHARE * (kana + letters[:, _HAN]))
        letters[japanese, NAMES.index(JAPANESE)] = (kana + letters[:, _HAN])[japanese]
        letters[np.ix_(japanese, [*_KANA, _HAN])] = 0
        scripts[wide] = np.where(letters.any(axis=1), letters.argmax(axis=1), 0)
        return scripts

    def _look_up(self, codes: np.ndarray) -> None:
        for code in np.unique(codes[self._of_code[codes] == _UNKNOWN]).tolist():
            character = chr(code)
            match = _SCRIPT.match(character)
            number = NAMES.index(match.lastgroup or OTHER) if match else NAMES.index(OTHER)
            self._of_code[code] = number if _LETTER.match(character) else 0


class WritingSystems:
    """Looks for the script of every text, one example after another: its prompt's, then its completions'."""

    def __init__(self) -> None:
        self._finder = ScriptFinder()
        self._held: list[str] = []
        self._characters = 0
        self._scripts: list[np.ndarray] = []
        self._completions = array("q")
        self._pairs = bytearray()

    def see(self, example: Example) -> None:
        """Takes in an example."""
        for text in (example.prompt, *example.completions):
            self._held.append(one_text(text))
            self._characters += len(self._held[-1])
        self._completions.append(len(example.completions))
        self._pairs.append(example.is_pair)
        if self._characters > _CHARACTERS_AT_ONCE:
            self._look()

    def found(self, name: Names, noun: str) -> tuple[tuple[ScriptCount, ...], list[DataFinding]]:
        """How many texts are in which script, and pairs whose completions are in different ones."""
        self._look()
        scripts = np.concatenate([np.empty(0, dtype=np.uint8), *self._scripts])
        of_prompts = bounds_of(1 + np.array(self._completions, dtype=np.int64))[:-1]
        in_prompts = np.zeros(len(scripts), dtype=bool)
        in_prompts[of_prompts] = True
        both = Counter(scripts[in_prompts].tolist()), Counter(scripts[~in_prompts].tolist())
        order = sorted({*both[0], *both[1]}, key=lambda number: (-both[0][number] - both[1][number], NAMES[number]))
        counts = tuple(ScriptCount(NAMES[number], both[0][number], both[1][number]) for number in order)
        pairs = np.flatnonzero(np.frombuffer(self._pairs, dtype=bool))
        if not len(pairs):
            return counts, []
        chosen, rejected = scripts[of_prompts[pairs] + 1], scripts[of_prompts[pairs] + 2]
        # Where one side has no letter at all, as in sums, there is nothing to compare.
        differs = np.flatnonzero((chosen != rejected) & (chosen != 0) & (rejected != 0)).tolist()
        rows = (
            FoundRow((name(int(pairs[place])),), f"chosen {NAMES[chosen[place]]}, rejected {NAMES[rejected[place]]}")
            for place in differs
        )
        return counts, [
            finding(
                "completions in different scripts",
                len(differs),
                len(pairs),
                f"{of_all(len(differs), len(pairs), noun)} {verb(len(differs), 'has', 'have')} the chosen completion "
                "in another script than the rejected one.",
                rows,
                advice="The script is learnt with the rest. Leave such pairs out unless it is what should be "
                "preferred.",
            )
        ]

    def _look(self) -> None:
        self._scripts.append(self._finder(self._held))
        self._held, self._characters = [], 0


def _portions(texts: Iterable[str]) -> Iterator[list[str]]:
    portion: list[str] = []
    characters = 0
    for text in texts:
        if portion and characters + len(text) > _CHARACTERS_AT_ONCE:
            yield portion
            portion, characters = [], 0
        portion.append(text)
        characters += len(text)
    if portion:
        yield portion
