"""Models that go from their files into the ranks' shares: the numbers of one process, none of which a rank has all."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import share_work
import torch
from several_ranks import on_ranks
from share_work import Held, Numbers, Wanted
from tiny_folders import change_weights, save_tiny
from tiny_models import SHAREABLE, UNSHAREABLE, build

from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.errors import ModelError
from tiltlm.model.frozen import Base
from tiltlm.model.pages import model_of_pages, scratch_tensors
from tiltlm.model.weight_files import type_in_files
from tiltlm.model.weights import load_model
from tiltlm.pipeline.ranks_at_work import require_same_models

FAMILIES = {**SHAREABLE, **{name: made[0] for name, made in UNSHAREABLE.items()}}


def saved(folder: Path, name: str, dtype: torch.dtype) -> Path:
    build(FAMILIES[name](), torch.float32).save_pretrained(folder)
    narrow(folder, dtype)
    return folder


def narrow(folder: Path, dtype: torch.dtype) -> None:
    """Saves a model's weights once more, in a type."""
    model = load_model(share_work.source(folder), share_work.CPU)
    for weights in model.parameters():
        weights.data = weights.data.to(dtype)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def every_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[torch.dtype], list[Wanted]]:
    def folders(dtype: torch.dtype) -> list[Wanted]:
        root = tmp_path_factory.mktemp("families")
        return [Wanted(saved(root / str(number), name, dtype)) for number, name in enumerate(FAMILIES)]

    return folders


def assert_same(found: Numbers, wanted: Numbers, what: str) -> None:
    assert found.keys() == wanted.keys(), what
    for name, own in wanted.items():
        assert found[name].dtype == own.dtype and found[name].shape == own.shape, f"{what}: {name}"
        assert found[name].tobytes() == own.tobytes(), f"{what}: {name}"


def assert_same_model(found: Held, wanted: Held, what: str) -> None:
    assert_same(found.weights, wanted.weights, what)
    assert_same(found.buffers, wanted.buffers, what)
    assert (found.trained, found.fingerprint) == (wanted.trained, wanted.fingerprint), what


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shares_are_the_numbers_of_one_process(
    every_family: Callable[[torch.dtype], list[Wanted]], dtype: torch.dtype
) -> None:
    """To the bit, buffers too, whatever type the files have; with the same address, so that caches are shared."""
    cases = every_family(dtype)
    found = on_ranks(2, share_work.all_held, cases)
    for number, (case, name) in enumerate(zip(cases, FAMILIES, strict=True)):
        wanted = share_work.held_alone(case)
        for own in found:
            assert_same_model(own[number], wanted, name)
            assert own[number].fused == wanted.fused, name
        assert sum(own[number].own for own in found) == wanted.own, name
        assert all(own[number].own <= 0.6 * wanted.own for own in found), name


@pytest.mark.parametrize(("ranks", "shard"), [(3, 0), (4, 2), (2, 1)], ids=["3", "4 by 2", "2 replicas"])
def test_other_ways_of_sharing_give_the_same(tmp_path: Path, ranks: int, shard: int) -> None:
    cases = [Wanted(saved(tmp_path / name, name, torch.bfloat16), shard=shard) for name in ("llama", "gpt2")]
    for own in on_ranks(ranks, share_work.all_held, cases):
        for number, case in enumerate(cases):
            assert_same_model(own[number], share_work.held_alone(case), f"{case}")


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_so_it_is_beside_an_adapter(tmp_path: Path, stored: torch.dtype) -> None:
    pytest.importorskip("peft")
    folder = save_tiny(tmp_path / "model")
    narrow(folder, stored)
    kinds = [("none", torch.float32), ("lora", torch.float32), ("lora", torch.bfloat16), ("dora", torch.bfloat16)]
    cases = [Wanted(folder, Base("none", dtype), adapter=kind) for kind, dtype in [*kinds, ("dora", torch.float32)]]
    for own in on_ranks(2, share_work.all_held, cases):
        for number, case in enumerate(cases):
            assert_same_model(own[number], share_work.held_alone(case), f"{case}")


@pytest.mark.parametrize(("ranks", "shard"), [(2, 0), (3, 0), (2, 1)], ids=["2", "3", "2 replicas"])
def test_dither_and_rounding_of_shares_are_those_of_the_whole(tmp_path: Path, ranks: int, shard: int) -> None:
    wanted = Wanted(saved(tmp_path / "model", "llama", torch.bfloat16), shard=shard)
    alone = share_work.dithered_and_rounded(ALONE, wanted)
    for own in on_ranks(ranks, share_work.dithered_and_rounded, wanted):
        for found, expected, what in zip(own, alone, ("dithered", "without", "bfloat16", "float16"), strict=True):
            assert_same(found, expected, what)


def test_pages_take_no_memory_of_the_process(tmp_path: Path) -> None:
    """Linux counts what a process has of its own apart from pages of files."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("memory of its own is told by Linux alone")
    folder = save_tiny(tmp_path / "model", num_hidden_layers=4, vocab_size=2_000_000)
    narrow(folder, torch.bfloat16)
    size = (folder / "model.safetensors").stat().st_size

    def own_memory() -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
        return 1024 * int(line.split()[1])

    before = own_memory()
    model = model_of_pages(share_work.source(folder))
    # By pieces: a copy of a whole weight in float32 would be memory of its own, which an allocator may keep.
    total = sum(float(piece.float().sum()) for weights in model.parameters() for piece in weights.detach().split(4096))
    assert math.isfinite(total) and own_memory() - before < 0.5 * size, (own_memory() - before, size)


def test_files_of_several_types_are_read_as_float32(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    assert type_in_files(share_work.source(folder)) is torch.float32
    narrow(folder, torch.bfloat16)
    assert type_in_files(share_work.source(folder)) is torch.bfloat16
    change_weights(folder, lambda weights: {**weights, "model.norm.weight": weights["model.norm.weight"].float()})
    assert type_in_files(share_work.source(folder)) is torch.float32


def test_tensors_of_a_scratch_file_do_not_overlap() -> None:
    shapes = [torch.Size([3, 5]), torch.Size([]), torch.Size([0]), torch.Size([7])]
    tensors = scratch_tensors(shapes, torch.bfloat16)
    for number, one in enumerate(tensors):
        one.fill_(number)
    assert [tuple(one.shape) for one in tensors] == [tuple(shape) for shape in shapes]
    assert all(bool((one == number).all()) for number, one in enumerate(tensors))


class Two(Ranks):
    """Ranks whose second one has something else."""

    def gathered(self, own: str, group: object = None) -> list[str]:  # type: ignore[override]
        return [own, "other"]


def test_another_model_on_another_machine_is_refused() -> None:
    with pytest.raises(ModelError, match="rank 1 has another model than rank 0"):
        require_same_models(Two(0, 2), "own")
