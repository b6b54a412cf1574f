"""The reference cache: right values, found again exactly when nothing that matters changed."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import one_at_a_time
from tiny_runs import examples_for, pairs, sequence, tiny_model

from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.errors import ModelError, NonFiniteError
from tiltlm.model import reference, scoring
from tiltlm.model.reference import ReferenceCache, fill_cache, fingerprint, reference_address, reference_values
from tiltlm.model.scorer import SCORER_REVISION, Scorer
from tiltlm.model.scoring import score, score_sequences, totals
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, Needs


def token_logps_of(scorer: Scorer, one: TokenizedSequence) -> list[float]:
    """The oracle, token by token: stock transformers, one sequence, full logits."""
    ids = torch.from_numpy(one.ids).long()
    with torch.no_grad():
        logps = scorer.model(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(-1)
    values: list[float] = logps[:-1].gather(-1, ids[1:, None]).squeeze(-1)[one.first_scored - 1 :].tolist()
    return values


def live(scorer: Scorer, columns: TokenColumns) -> list[float]:
    return [value for number in range(columns.sequences) for value in token_logps_of(scorer, columns.sequence(number))]


def fill(scorer: Scorer, columns: TokenColumns, cache: ReferenceCache, budget: int = 256) -> np.ndarray:
    return reference_values(scorer, columns, cache, torch.float32, budget)


def missing(columns: TokenColumns, cache: ReferenceCache) -> list[int]:
    numbers: list[int] = cache.join(columns)[1].tolist()
    return numbers


@pytest.mark.parametrize("needs", dict.fromkeys(objective.needs for objective in OBJECTIVES.values()), ids=str)
@pytest.mark.parametrize("budget", [1, 60, 4096])
def test_values_are_the_live_ones_one_sequence_at_a_time(tmp_path: Path, needs: Needs, budget: int) -> None:
    scorer, columns = Scorer(tiny_model()), examples_for(needs, 9)
    cache = ReferenceCache(tmp_path, reference_address(scorer, torch.float32))
    values = fill(scorer, columns, cache, budget)
    assert values.dtype == np.float32
    assert values.tolist() == pytest.approx(live(scorer, columns), abs=1e-5)
    joined, lacking = cache.join(columns)
    assert joined.tobytes() == values.tobytes()
    assert lacking.tolist() == []


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_come_in_the_order_of_the_columns(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever portions they are planned in."""
    monkeypatch.setattr(scoring, "EXAMPLES_AT_ONCE", 4)
    scorer, columns = Scorer(tiny_model()), pairs(9)
    done: list[int] = []
    values = score(scorer, columns, torch.float32, 45, done.append, temperature)
    with torch.no_grad():
        scorer.model.lm_head.weight /= temperature
        sums = one_at_a_time(scorer.model, [columns.sequence(n) for n in range(columns.sequences)])
    assert values.tolist() == pytest.approx(live(scorer, columns), abs=1e-5)
    assert totals(values, columns).tolist() == pytest.approx(sums.tolist(), abs=1e-4)
    assert sum(done) == 9


@pytest.mark.parametrize("count", [0, 1, 5])
def test_single_sequences_have_their_own_scores(count: int) -> None:
    scorer, columns = Scorer(tiny_model()), pairs(3)
    sequences = [columns.sequence(number) for number in range(count)]
    scores = score_sequences(scorer, sequences, torch.float32, 45)
    assert [own.tolist() for own in scores] == [
        pytest.approx(token_logps_of(scorer, one), abs=1e-5) for one in sequences
    ]


def test_sums_by_sequence_by_hand() -> None:
    columns = TokenColumns.of(
        [TokenizedExample("a", (sequence([1, 2, 3], 1), sequence([1, 2], 1), sequence([1, 2, 3, 4], 1)), (CHOSEN,) * 3)]
    )
    values = np.array([1, 2, 4, 8, 16, 32], dtype=np.float32)
    assert totals(values, columns).tolist() == [3, 4, 56]
    assert totals(np.empty(0, dtype=np.float32), TokenColumns.of([])).tolist() == []


def test_only_what_is_missing_is_computed_and_survives_the_process(tmp_path: Path) -> None:
    scorer, columns = Scorer(tiny_model()), pairs(8)
    address = reference_address(scorer, torch.float32)
    cache = ReferenceCache(tmp_path, address)
    some = columns.take([6, 0, 3, 1, 7])
    kept = fill(scorer, some, cache)
    cache.close()
    again = ReferenceCache(tmp_path, address)
    values, lacking = again.join(columns)
    assert lacking.tolist() == [2, 4, 5]
    for place, number in enumerate([6, 0, 3, 1, 7]):
        assert part(values, columns, number).tobytes() == part(kept, some, place).tobytes()
    assert all(np.isnan(part(values, columns, number)).all() for number in (2, 4, 5))
    done: list[int] = []
    fill_cache(scorer, columns, again, torch.float32, 256, done.append)
    assert sum(done) == 3
    filled, lacking = again.join(columns)
    assert lacking.tolist() == []
    assert filled.tolist() == pytest.approx(live(scorer, columns), abs=1e-5)
    for number in (6, 0, 3, 1, 7):
        assert part(filled, columns, number).tobytes() == part(values, columns, number).tobytes()


def part(values: np.ndarray, columns: TokenColumns, example: int) -> np.ndarray:
    """The values of one example's scored tokens."""
    return values[slice(*(columns.scored_starts[columns.members[example + end]] for end in (0, 1)))]


def test_an_example_of_which_one_sequence_is_missing_is_missing(tmp_path: Path) -> None:
    scorer, columns = Scorer(tiny_model()), pairs(3)
    cache = ReferenceCache(tmp_path, reference_address(scorer, torch.float32))
    one = columns[1]
    fill(scorer, TokenColumns.of([TokenizedExample("chosen", one.sequences[:1], (CHOSEN,))]), cache)
    values, lacking = cache.join(columns)
    assert lacking.tolist() == [0, 1, 2]
    assert np.isnan(values).sum() == len(values) - one.chosen.scored_tokens


def test_equal_sequences_are_found_wherever_they_stand(tmp_path: Path) -> None:
    scorer, columns = Scorer(tiny_model()), pairs(4)
    often = columns.take([2, 0, 2, 1, 2, 3, 0])
    cache = ReferenceCache(tmp_path, reference_address(scorer, torch.float32))
    values = fill(scorer, often, cache)
    assert values.tolist() == pytest.approx(live(scorer, often), abs=1e-5)
    again, lacking = cache.join(often)
    assert lacking.tolist() == []
    for place in (2, 4):
        assert part(again, often, place).tobytes() == part(again, often, 0).tobytes()


def _flipped(stored: bytes) -> bytes:
    return stored[:-1] + bytes([stored[-1] ^ 1])


DAMAGE: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a bit of a value": lambda entries: [_flipped(entries[0]), *entries[1:]],
    "a bit of every value": lambda entries: [_flipped(entry) for entry in entries],
    "zeros": lambda entries: [bytes(len(entry)) for entry in entries],
    "cut short": lambda entries: [entry[: len(entry) // 2] for entry in entries],
    "without the checksum": lambda entries: [entry[4:] for entry in entries],
    "another sequence's": lambda entries: [*entries[1:], entries[0]],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_entry_is_noticed_and_computed_anew(tmp_path: Path, name: str) -> None:
    scorer, columns = Scorer(tiny_model()), pairs(4)
    cache = ReferenceCache(tmp_path, reference_address(scorer, torch.float32))
    whole = fill(scorer, columns, cache)
    with contextlib.closing(sqlite3.connect(cache.path)) as file, file:
        entries = file.execute("SELECT key, logps FROM token_logps").fetchall()
        damaged = DAMAGE[name]([logps for _, logps in entries])
        changed = [(new, key) for new, (key, old) in zip(damaged, entries, strict=True) if new != old]
        file.executemany("UPDATE token_logps SET logps = ? WHERE key = ?", changed)
    values, lacking = cache.join(columns)
    assert len(lacking) > 0
    known = ~np.isnan(values)
    assert values[known].tobytes() == whole[known].tobytes()
    assert fill(scorer, columns, cache).tolist() == pytest.approx(whole.tolist(), abs=1e-6)
    assert missing(columns, cache) == []


@pytest.mark.parametrize("stored", [b"", bytes(3), bytes(4), bytes(4000)])
def test_a_value_of_another_length_is_computed_anew(tmp_path: Path, stored: bytes) -> None:
    scorer, columns = Scorer(tiny_model()), pairs(3)
    cache = ReferenceCache(tmp_path, "a")
    values = fill(scorer, columns, cache)
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE token_logps SET logps = ?", (stored,))
    connection.close()
    assert missing(columns, cache) == [0, 1, 2]
    assert np.array_equal(fill(scorer, columns, cache), values)
    assert missing(columns, cache) == []


def test_more_keys_than_one_query_takes(tmp_path: Path) -> None:
    """Of 1,300 sequences, and without a forward pass: what is put comes back, what is not is missing."""
    rng = np.random.default_rng(0)
    examples = [
        TokenizedExample(str(number), (sequence([1, 2 + number, *rng.integers(2, 9, number % 5 + 1)], 2),), (CHOSEN,))
        for number in range(3 * reference.KEYS_AT_ONCE - 200)
    ]
    columns = TokenColumns.of(examples)
    values = rng.normal(size=columns.scored_starts[-1]).astype(np.float32)
    cache = ReferenceCache(tmp_path, "many")
    kept = [number for number in range(len(columns)) if number % 7]
    cache.put(columns, kept, values)
    joined, lacking = cache.join(columns)
    assert lacking.tolist() == [number for number in range(len(columns)) if number % 7 == 0]
    for number in range(len(columns)):
        own = part(joined, columns, number)
        assert np.isnan(own).all() if number % 7 == 0 else own.tobytes() == part(values, columns, number).tobytes()


def test_nothing_to_join_is_nothing_missing(tmp_path: Path) -> None:
    values, lacking = ReferenceCache(tmp_path, "empty").join(TokenColumns.of([]))
    assert (len(values), len(lacking)) == (0, 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_pass_keeps_what_it_did(
    tmp_path: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, columns = Scorer(tiny_model()), pairs(9)
    address = reference_address(scorer, torch.float32)
    cache = ReferenceCache(tmp_path, address)
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        if done >= 4:
            raise error("enough")

    with pytest.raises(error, match="enough"):
        fill_cache(scorer, columns, cache, torch.float32, 60, advance)
    again = ReferenceCache(tmp_path, address)  # as another process would
    _, still = again.join(columns)
    assert len(still) == 9 - done
    computed: list[int] = []
    fill_cache(scorer, columns, again, torch.float32, 60, computed.append)
    assert sum(computed) == 9 - done
    kept, still = again.join(columns)
    assert len(still) == 0
    assert (
        kept.tobytes() == fill(scorer, columns, ReferenceCache(tmp_path / "never interrupted", address), 60).tobytes()
    )


@given(cut=st.integers(1, 12), seed=st.integers(0, 5), again=st.lists(st.integers(0, 11), max_size=6))
@settings(max_examples=15, deadline=None)
def test_a_pass_that_goes_on_keeps_the_bits_of_one_that_was_not_interrupted(
    cut: int, seed: int, again: list[int]
) -> None:
    """Also where sequences stand in several examples, and where an earlier run left some values."""
    scorer, columns = Scorer(tiny_model()), pairs(12, seed)
    columns = columns.take([*range(12), *again])
    earlier = columns.take(again[:2])

    def stop_at(done: int) -> None:
        nonlocal cut
        cut -= done
        if cut <= 0:
            raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as folder:
        caches = [ReferenceCache(Path(folder) / name, "a") for name in ("whole", "stopped")]
        for cache in caches:
            reference_values(scorer, earlier, cache, torch.float32, 60)
        whole = reference_values(scorer, columns, caches[0], torch.float32, 60)
        with contextlib.suppress(KeyboardInterrupt):
            fill_cache(scorer, columns, caches[1], torch.float32, 60, stop_at)
        assert reference_values(scorer, columns, caches[1], torch.float32, 60).tobytes() == whole.tobytes()
        for cache in caches:
            cache.close()


def test_the_address_is_content_alone(tmp_path: Path) -> None:
    """Ids, order, labels and companions do not matter; tokens and where scoring starts do."""
    scorer, columns = Scorer(tiny_model()), pairs(4)
    cache = ReferenceCache(tmp_path, reference_address(scorer, torch.float32))
    fill(scorer, columns, cache)
    renamed = [TokenizedExample.pair("another name", e.rejected, e.chosen) for e in reversed(list(columns))]
    assert missing(TokenColumns.of(renamed), cache) == []
    one = columns[0].chosen
    later = TokenizedSequence(one.ids, one.first_scored + 1)
    other = TokenizedSequence(np.concatenate([one.ids[:-1], [5]]).astype(np.int32), one.first_scored)
    alone = TokenColumns.of([TokenizedExample("x", (changed,), (CHOSEN,)) for changed in (one, later, other)])
    assert missing(alone, cache) == [1, 2]


def test_fingerprint_follows_weights_and_configuration() -> None:
    model = tiny_model()
    before = fingerprint(model)
    assert fingerprint(tiny_model()) == before
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-6
    assert fingerprint(model) != before
    other = tiny_model()
    other.config.rms_norm_eps *= 2
    assert fingerprint(other) != before


def test_arithmetics_do_not_mix(tmp_path: Path) -> None:
    scorer, columns = Scorer(tiny_model()), pairs(2)
    fill(scorer, columns, ReferenceCache(tmp_path, reference_address(scorer, torch.float32)))
    narrow = ReferenceCache(tmp_path, reference_address(scorer, torch.bfloat16))
    assert missing(columns, narrow) == [0, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_reference_is_named_and_not_kept(tmp_path: Path, value: float) -> None:
    """In a pass of their own, others are kept."""
    scorer = Scorer(tiny_model())
    sound, broken = sequence([1, 8, 9, 10, 11, 2], 2), sequence([1, 7, 9, 2], 2)  # the longest come first
    examples = [TokenizedExample(name, (one,), (CHOSEN,)) for name, one in (("sound", sound), ("broken", broken))]
    with torch.no_grad():
        scorer.model.model.embed_tokens.weight[7] = value
    cache, columns = ReferenceCache(tmp_path, "x"), TokenColumns.of(examples)
    with pytest.raises(NonFiniteError, match=r"log-probabilities for broken\. .*model\.precision"):
        fill(scorer, columns, cache, budget=1)
    assert missing(columns, cache) == [1]


def test_the_address_covers_what_computes_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(tiny_model())
    addresses = {reference_address(scorer, torch.float32), reference_address(scorer, torch.bfloat16)}
    assert reference_address(Scorer(tiny_model()), torch.float32) in addresses
    with monkeypatch.context() as changed:
        changed.setattr(reference, "SCORER_REVISION", SCORER_REVISION + 1)
        addresses.add(reference_address(scorer, torch.float32))
    with monkeypatch.context() as changed:
        changed.setattr(Scorer, "device", torch.device("cuda"))
        addresses.add(reference_address(scorer, torch.float32))
    scorer.unshared_because = "of a reason"
    addresses.add(reference_address(scorer, torch.float32))
    eager = tiny_model()
    eager.set_attn_implementation("eager")
    addresses.add(reference_address(Scorer(eager), torch.float32))
    assert len(addresses) == 6
    assert all(re.fullmatch(r"[\w.-]+", address) for address in addresses)


def test_an_attention_from_the_hub_makes_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(tiny_model())
    monkeypatch.setattr(scorer.model.config, "_attn_implementation_internal", "kernels-community/flash-attn")
    assert "/" not in reference_address(scorer, torch.float32)


def _not_sqlite(path: Path) -> None:
    path.write_text("no database at all" * 100)


def _a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("damage", [_not_sqlite, _a_folder])
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(tmp_path / "address.sqlite")
    with pytest.raises(ModelError, match=r"address\.sqlite cannot be used .*--clear reference"):
        ReferenceCache(tmp_path, "address")
