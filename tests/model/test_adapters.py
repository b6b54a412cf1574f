"""Adapters on a frozen model: they start at nothing, train as plain peft does, merge to what they are, and resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import SHAREABLE, build
from tiny_runs import bound, packed, pairs, referenced, tiny_model, trainer
from torch import Tensor
from transformers import PreTrainedModel

from tiltlm.config import AdapterConfig, HubConfig, TrainingConfig
from tiltlm.config.adapter_config import AdapterKind
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.errors import ConfigError, ModelError
from tiltlm.model.adapters import load_scorer, merged, new_adapter, trained_parameters
from tiltlm.model.dither import add_dither, remove_dither
from tiltlm.model.finding import ModelSource, find_model
from tiltlm.model.frozen import Base, freeze
from tiltlm.model.loading import autocast, checkpoint_activations
from tiltlm.model.scorer import Scorer
from tiltlm.plan.row_layout import DENSE
from tiltlm.training.loop import Trainer
from tiltlm.training.losses import backward
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

CPU = torch.device("cpu")
KINDS: list[AdapterKind] = ["lora", "rslora", "dora"]
FAMILIES = ["llama", "gpt2", "qwen3"]


def frozen(family: str = "llama", dtype: torch.dtype = torch.float32) -> Scorer:
    model = build(SHAREABLE[family](), dtype)
    freeze(model, Base())
    return Scorer(model)


def adapted(
    kind: AdapterKind = "lora", family: str = "llama", dtype: torch.dtype = torch.float32, **more: Any
) -> Scorer:
    return new_adapter(frozen(family, dtype), AdapterConfig(kind=kind, rank=4, **more), 0)


def moved(scorer: Scorer, by: float = 0.1) -> Scorer:
    """The scorer after a random step of what is trained of it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for own in scorer.trained().values():
            own.add_(by * torch.randn(own.shape, generator=generator, dtype=own.dtype))
    return scorer


def batch_of(columns: TokenColumns) -> Any:
    return packed([sequence for example in range(len(columns)) for sequence in columns[example].sequences])


# It starts at nothing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_new_adapter_changes_no_bit(kind: AdapterKind, family: str, precision: torch.dtype) -> None:
    """Dithered too: what is zero stays zero, so policy and reference agree exactly."""
    batch = batch_of(pairs(3))
    bare = frozen(family)
    with torch.no_grad(), autocast(CPU, precision):
        before = bare(batch)
        policy = new_adapter(bare, AdapterConfig(kind=kind, rank=4), 0)
        assert torch.equal(policy(batch), before)
        add_dither(policy.model)
        assert torch.equal(policy(batch), before)


@pytest.mark.parametrize("base", [Base("none", torch.bfloat16), Base("nf4"), Base("int8")], ids=lambda b: b.in_words)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_nor_does_one_on_a_model_kept_in_fewer_bits(base: Base, precision: torch.dtype, tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    bare = load_scorer(ModelSource(str(tmp_path), True, False), CPU, base)
    batch = batch_of(pairs(3))
    with torch.no_grad(), autocast(CPU, precision):
        before = bare(batch)
        assert torch.equal(new_adapter(bare, AdapterConfig(kind="lora"), 0)(batch), before)


def test_the_seed_decides_the_first_matrices_and_leaves_other_random_numbers_alone() -> None:
    one, same = adapted(), adapted()
    other = new_adapter(frozen(), AdapterConfig(kind="lora", rank=4), 1)
    assert all(torch.equal(a, b) for a, b in zip(one.trained().values(), same.trained().values(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.trained().values(), other.trained().values(), strict=True))
    bare, state = frozen(), torch.get_rng_state()
    new_adapter(bare, AdapterConfig(kind="lora"), 0)
    assert torch.equal(torch.get_rng_state(), state)


# It is what the papers say


@pytest.mark.parametrize(("kind", "scaling"), [("lora", 32 / 4), ("rslora", 32 / math.sqrt(4)), ("dora", 32 / 4)])
def test_scaling(kind: AdapterKind, scaling: float) -> None:
    """LoRA, arXiv 2106.09685: alpha / r; rsLoRA, arXiv 2312.03732: alpha / sqrt(r)."""
    found = [getattr(module, "scaling", None) for module in adapted(kind).model.modules()]
    scalings = [own["default"] for own in found if isinstance(own, dict)]
    assert scalings and set(scalings) == {scaling}


@pytest.mark.parametrize("kind", KINDS)
def test_merged_weights_are_those_of_the_equations(kind: AdapterKind) -> None:
    """W + s B A; DoRA, arXiv 2402.09353, eq. 5: m (W + s B A) / ||W + s B A||, row by row. In float64."""
    scorer = moved(adapted(kind, "llama", torch.float64))
    layer: Any = scorer.model.get_submodule("model.layers.0.self_attn.q_proj")
    weight = (
        layer.base_layer.weight
        + layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    )
    if kind == "dora":
        weight = layer.lora_magnitude_vector["default"].weight[:, None] * weight / weight.norm(dim=1, keepdim=True)
    batch = batch_of(pairs(4))
    with torch.no_grad():
        before = scorer(batch)
        whole = merged(scorer)
        torch.testing.assert_close(whole.get_submodule("model.layers.0.self_attn.q_proj").weight, weight)
        torch.testing.assert_close(Scorer(whole)(batch), before, atol=1e-10, rtol=0)
    assert not any("lora" in name for name, _ in whole.named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_that_of_plain_peft_one_sequence_at_a_time(kind: AdapterKind, family: str) -> None:
    """In float64: DPO's loss by stock transformers on the peft model, no trees, no packing, no own head."""
    columns = pairs(5, seed=3)
    scorer = moved(adapted(kind, family, torch.float64), 0.02)
    values = -1 - torch.arange(int(columns.scored_starts[-1])).remainder(8).float().numpy() / 4  # sums are exact
    plan = Referenced(columns, values).plan(range(len(columns)), 64, scorer.layout)
    backward(scorer, plan, bound(beta=0.3), torch.float32, lambda losses: None)
    found = {name: own.grad.clone() for name, own in scorer.trained().items() if own.grad is not None}
    assert found.keys() == scorer.trained().keys()
    scorer.model.zero_grad()
    _oracle(scorer.model, columns, torch.from_numpy(values).double()).backward()
    close = 1e-12 if family == "gpt2" else 3e-7  # others have tables of positions in float32
    for name, own in scorer.trained().items():
        torch.testing.assert_close(found[name], own.grad, atol=close, rtol=1e-6)


def _oracle(model: PreTrainedModel, columns: TokenColumns, reference: Tensor) -> Tensor:
    losses = []
    for example in range(len(columns)):
        ratios = []
        first = columns.members[example]
        for number, sequence in enumerate(columns[example].sequences):
            ids = torch.from_numpy(sequence.ids).long()
            logps = model(input_ids=ids[None], use_cache=False).logits[0].log_softmax(-1)
            own = logps[:-1].gather(-1, ids[1:, None])[sequence.first_scored - 1 :].sum()
            start, end = columns.scored_starts[first + number : first + number + 2]
            ratios.append(own - reference[start:end].sum())
        losses.append(-torch.nn.functional.logsigmoid(0.3 * (ratios[0] - ratios[1])))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations_give_the_same_gradient(kind: AdapterKind) -> None:
    columns = pairs(4)
    values = Referenced(columns, torch.full((int(columns.scored_starts[-1]),), -3.0).numpy())
    gradients = []
    for again in (False, True):
        scorer = moved(adapted(kind))
        if again:
            checkpoint_activations(scorer.model)
        plan = values.plan(range(4), 64, DENSE)
        backward(scorer, plan, bound(), torch.float32, lambda losses: None)
        gradients.append([own.grad for own in scorer.trained().values()])
    torch.testing.assert_close(*gradients)


# What is frozen


def trained_for(scorer: Scorer, steps: int, folder: Path, state: Any = None) -> Trainer:
    columns = pairs(12)
    bare = referenced(frozen(), columns, folder)
    training = TrainingConfig(batch_pairs=3, learning_rate=1e-2, max_steps=4)
    made = trainer(scorer, bare, training=training)
    if state is not None:
        made.restore(state)
    for _ in range(steps):
        made.step(made.plan_of(made.progress.step), StopRequest())
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_training_leaves_the_model_itself_to_the_bit(kind: AdapterKind, tmp_path: Path) -> None:
    scorer = adapted(kind)
    before = {name: own.detach().clone() for name, own in scorer.model.named_parameters()}
    made = trained_for(scorer, 3, tmp_path)
    names = scorer.trained().keys()
    for name, own in scorer.model.named_parameters():
        assert torch.equal(own, before[name]) != (name in names), name
        assert name in names or own.grad is None
    assert made.state().model.keys() == names
    assert sum(len(group["params"]) for group in made.state().optimizer["param_groups"]) == len(names)
    assert trained_parameters(scorer) == sum(own.numel() for own in scorer.trained().values())


def test_a_frozen_head_and_frozen_embeddings_cost_no_gradient() -> None:
    scorer = moved(adapted())
    scorer(batch_of(pairs(2))).sum().backward()
    for layer in (scorer.model.get_output_embeddings(), scorer.model.get_input_embeddings()):
        assert not layer.weight.requires_grad and layer.weight.grad is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_training_has_the_same_bits(kind: AdapterKind, tmp_path: Path) -> None:
    whole = trained_for(adapted(kind), 4, tmp_path)
    half = trained_for(adapted(kind), 2, tmp_path).state().copy()
    resumed = trained_for(new_adapter(frozen(), AdapterConfig(kind=kind, rank=4), 9), 2, tmp_path, half)
    for name, own in whole.scorer.trained().items():
        assert torch.equal(own, resumed.scorer.trained()[name])


def test_dither_is_for_what_is_trained_alone_and_comes_off_again() -> None:
    scorer = moved(adapted())
    before = {name: own.detach().clone() for name, own in scorer.model.named_parameters()}
    add_dither(scorer.model)
    changed = {name for name, own in scorer.model.named_parameters() if not torch.equal(own, before[name])}
    assert changed == scorer.trained().keys()
    remove_dither(scorer.model)
    assert all(torch.equal(own, before[name]) for name, own in scorer.model.named_parameters())


# Its files


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("kind", KINDS)
def test_stock_peft_reads_what_is_written_and_we_what_it_wrote(kind: AdapterKind, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "base")
    scorer = moved(
        new_adapter(load_scorer(ModelSource(str(tmp_path / "base"), True, False), CPU, Base()), _of(kind), 0)
    )
    assert scorer.adapter is not None
    batch = batch_of(pairs(3))
    with torch.no_grad():
        wanted = scorer(batch)
        for name in ("one", "two"):
            scorer.adapter.save(tmp_path / name, str(tmp_path / "base"))
        stock = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "one").get_base_model()
        # Its norms are not computed as one function.
        torch.testing.assert_close(Scorer(stock)(batch), wanted, rtol=0, atol=1e-5)
        again = load_scorer(find_model(str(tmp_path / "one"), HubConfig()), CPU)
        assert torch.equal(again(batch), wanted)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]
    assert again.trained().keys() == scorer.trained().keys()


def _of(kind: AdapterKind) -> AdapterConfig:
    return AdapterConfig(kind=kind, rank=4)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of a tiny model in the folder `adapter`, its model in `base`."""
    folder = tmp_path_factory.mktemp("written")
    tiny_model("llama").save_pretrained(folder / "base")
    source = ModelSource(str(folder / "base"), True, False)
    scorer = moved(new_adapter(load_scorer(source, CPU, Base()), AdapterConfig(kind="lora", rank=4), 0))
    assert scorer.adapter is not None
    scorer.adapter.save(folder / "adapter", str(folder / "base"))
    return folder


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pissa": ({"init_lora_weights": "pissa"}, "began as `pissa`.*changed its model's own weights"),
    "pissa with steps": ({"init_lora_weights": "pissa_niter_16"}, "began as `pissa_niter_16`"),
    "olora": ({"init_lora_weights": "olora"}, "began as `olora`"),
    "loftq": ({"init_lora_weights": "loftq"}, "began as `loftq`"),
    "biases": ({"bias": "all"}, "trained biases.*stay when the adapter is off"),
    "whole layers": ({"modules_to_save": ["lm_head"]}, "modules_to_save set.*whole layers"),
    "tokens": ({"trainable_token_indices": [1, 2]}, "trainable_token_indices set"),
    "activated": ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens set"),
    "unknown": ({"of_next_year": True}, "of_next_year set.*not known here"),
    "prefix": ({"peft_type": "PREFIX_TUNING"}, "of the kind PREFIX_TUNING"),
    "ia3": ({"peft_type": "IA3"}, "of the kind IA3"),
    "classifier": ({"task_type": "SEQ_CLS"}, "made for the task SEQ_CLS"),
    "no base": ({"base_model_name_or_path": None}, "does not say of which model it is"),
    "base is gone": ({"base_model_name_or_path": "/nowhere/at/all"}, "model `/nowhere/at/all` of the adapter"),
    "damaged": ({"r": "many"}, "is damaged: its rank is 'many'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_adapters_that_cannot_be_gone_on_with_are_refused_by_name(name: str, written: Path, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    _with(written, tmp_path, change)
    with pytest.raises(ModelError, match=message):
        find_model(str(tmp_path / "adapter"), HubConfig())


def _with(written: Path, folder: Path, change: dict[str, Any]) -> None:
    (folder / "adapter").mkdir()
    for path in (written / "adapter").iterdir():
        (folder / "adapter" / path.name).write_bytes(path.read_bytes())
    file = folder / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def test_an_adapter_on_an_adapter_is_refused(written: Path, tmp_path: Path) -> None:
    _with(written, tmp_path, {"base_model_name_or_path": str(written / "adapter")})
    with pytest.raises(ModelError, match="it is an adapter itself, and only one at a time"):
        find_model(str(tmp_path / "adapter"), HubConfig())


def test_an_adapter_of_another_model_is_refused(written: Path, tmp_path: Path) -> None:
    tiny_model("gpt2").save_pretrained(tmp_path / "other")
    _with(written, tmp_path, {"base_model_name_or_path": str(tmp_path / "other")})
    with pytest.raises(ModelError, match=r"does not fit the model|is not one of the model"):
        load_scorer(find_model(str(tmp_path / "adapter"), HubConfig()), CPU)
    _with(written, tmp_path / "other", {"r": 8, "base_model_name_or_path": str(written / "base")})
    with pytest.raises(
        ModelError, match=r"is not one of the model.*has the shape \(4, 48\) in its files, and .*\(8, 48\)"
    ):
        load_scorer(find_model(str(tmp_path / "other" / "adapter"), HubConfig()), CPU)


def test_an_adapter_without_safetensors_is_refused(written: Path, tmp_path: Path) -> None:
    _with(written, tmp_path, {})
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(
        ModelError, match=r"has no adapter_model\.safetensors: an adapter is read from safetensors alone"
    ):
        load_scorer(find_model(str(tmp_path / "adapter"), HubConfig()), CPU)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("lm_head",), "lm_head is the output layer.*merging would corrupt"),
        (("embed_tokens",), "embed_tokens is embeddings.*merging would corrupt"),
        (("q_proj", "lm_head"), "lm_head is the output layer"),
        (("wq",), "no layer of a LlamaForCausalLM is called `wq`. Its layers are q_proj, k_proj"),
        (("q_proj", "v_prj"), "is called `v_prj`. Did you mean `v_proj`"),
        (("input_layernorm",), "cannot be had in a LlamaForCausalLM"),
    ],
)
def test_targets_that_cannot_be_merged_are_refused(targets: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        new_adapter(frozen(), AdapterConfig(kind="lora", targets=targets), 0)


def test_named_targets_are_the_only_ones() -> None:
    scorer = adapted(targets=("q_proj", "v_proj"))
    assert {name.split(".")[-4] for name in scorer.trained()} == {"q_proj", "v_proj"}
