"""What each arithmetic does to log-probabilities, gradients, a training step, a whole run, and a saved model.

    python benchmarks/numerics.py                               measure everything, and write the page
    python benchmarks/numerics.py --parts gradients runs        measure these parts alone
    python benchmarks/numerics.py --parts logps --data FILE     log-probabilities and steps on other pairs
    python benchmarks/numerics.py --parts                       write the page from the figures that are there

Figures go to benchmarks/results/numerics/, and docs/numerics.md is made of them. Everything is on the CPU. Where the
processor has no units for bfloat16 PyTorch computes it all the same, slowly: the roundings are the same, the figures
nearly so.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
)

from gradient_errors import GradientRecord, measured_gradients
from machine import Circumstances, circumstances, write_record
from numerics_tables import gradient_section, number, runs_section, table
from precision_runs import RunsRecord, measured_runs
from tiltlm.config import Config, DataConfig
from tiltlm.data.preparation import DEMO, prepare_data, read_data
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.model.dither import add_dither
from tiltlm.model.loading import autocast
from tiltlm.model.saving import round_weights
from tiltlm.model.scorer import Scorer, sequence_logps
from tiltlm.model.scoring import score_sequences
from tiltlm.model.weights import load_model
from tiltlm.objectives.interface import CHOSEN, sides
from tiltlm.pipeline.setup import set_up
from tiltlm.plan.batches import MicroBatch
from tiltlm.plan.layouts import DENSE
from tiltlm.plan.packing import plan
from tiltlm.runs.schema import from_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "numerics"
LOGPS, GRADIENTS, RUNS = RESULTS / "logps", RESULTS / "gradients.json", RESULTS / "runs.json"
PAGE = ROOT / "docs" / "numerics.md"
CPU = torch.device("cpu")
TOGETHER = 1 << 30
"""A budget of tokens that puts everything into one forward pass."""
STEPS = (2e-8, 1e-6, 1e-5)
PAIRS = 20
"""Pairs for the step, and as many held out."""
GRADIENT_PAIRS = 4
"""Pairs of the embedded model's gradient, which is taken in float64 too."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What to measure on."""

    data: str = DEMO
    """Preference pairs, or `demo` (--data.train)."""
    name: str = "demo"
    """Name of the file of figures about these pairs."""
    parts: tuple[Literal["logps", "gradients", "runs"], ...] = ("logps", "gradients", "runs")
    """What to measure; nothing, to write docs/numerics.md from the figures that are there."""


@dataclass(frozen=True, slots=True)
class Error:
    """Log-probabilities against an oracle: absolute values but for the bias, in nats.

    token, worst_token: of one token. completion, worst_completion, bias: of a completion, the sum over its tokens.
    """

    arithmetic: str
    token: float
    worst_token: float
    completion: float
    worst_completion: float
    bias: float


@dataclass(frozen=True, slots=True)
class FamilyError:
    """One architecture with random weights, at one length, against stock transformers in float64."""

    family: str
    tokens: int
    float32_token: float
    bfloat16_token: float
    bfloat16_completion: float


@dataclass(frozen=True, slots=True)
class Step:
    """What became of held-out log-probabilities after one sign step, as bfloat16 and float32 arithmetic see it.

    shown, true: mean change of a completion's log-probability towards its sign in the loss, nats; standard error of the
    difference.
    """

    weights: str
    dithered: bool
    step: float
    shown: float
    true: float
    error: float


@dataclass(frozen=True, slots=True)
class Saved:
    """Share of a change's effect that is left in bfloat16 files of a model that was stored in bfloat16."""

    step: float
    true: float
    nearest: float
    stochastic: float


@dataclass(frozen=True, slots=True)
class Record:
    """Everything measured."""

    circumstances: Circumstances
    data: str
    completions: int
    tokens: float
    arithmetics: list[Error]
    families: list[FamilyError]
    steps: list[Step]
    saved: list[Saved]


def main() -> None:
    """Measures, unless told not to, and writes the page."""
    arguments = tyro.cli(Arguments, description=__doc__)
    if "logps" in arguments.parts:
        write_record(measured(arguments), LOGPS / f"{arguments.name}.json")
    if "gradients" in arguments.parts:
        where = circumstances("float64, float32 and bfloat16")
        model, pairs = embedded_model_and_pairs(GRADIENT_PAIRS)
        write_record(measured_gradients(where, FAMILIES, model, pairs), GRADIENTS)
    if "runs" in arguments.parts:
        for runs in measured_runs(circumstances("float32 and bfloat16")):
            write_record(runs, RUNS)
    text = page(
        [from_json(Record, path.read_bytes()) for path in sorted(LOGPS.glob("*.json"))],
        from_json(GradientRecord, GRADIENTS.read_bytes()),
        from_json(RunsRecord, RUNS.read_bytes()) if RUNS.is_file() else None,
    )
    PAGE.write_text(text, encoding="utf-8")
    print(f"written: {PAGE}")


def embedded_model_and_pairs(count: int) -> tuple[PreTrainedModel, list[TokenizedExample]]:
    """The demo's model, and some of the pairs it is trained on."""
    config = Config(data=DataConfig(train=DEMO, eval=DEMO, max_train_pairs=count, max_length=256))
    setup = set_up(config)
    data = prepare_data(read_data(config), setup.tokenizer, lambda done: None)
    return load_model(setup.source, CPU), list(data.train)


def measured(arguments: Arguments) -> Record:
    """All figures for one file of pairs."""
    where = circumstances("float32 and bfloat16")
    limits = DataConfig(train=arguments.data, max_train_pairs=PAIRS, max_eval_pairs=PAIRS, max_length=256)
    config = Config(data=limits if arguments.data != DEMO else dataclasses.replace(limits, eval=DEMO))
    setup = set_up(config)
    data = prepare_data(read_data(config), setup.tokenizer, lambda done: None)
    model = load_model(setup.source, CPU)
    held_out = [sequence for pair in data.eval for sequence in (pair.chosen, pair.rejected)]
    errors = arithmetic_errors(model, held_out)
    steps = list(step_effects(model, list(data.train), list(data.eval)))
    saved = list(saved_shares(model, list(data.train), list(data.eval)))
    return Record(
        circumstances=where,
        data=arguments.data if arguments.data == DEMO else Path(arguments.data).name,
        completions=len(held_out),
        tokens=float(np.mean([sequence.scored_tokens for sequence in held_out])),
        arithmetics=errors,
        families=list(family_errors()),
        steps=steps,
        saved=saved,
    )


@torch.no_grad()
def token_logps_of(
    model: PreTrainedModel, sequences: Sequence[TokenizedSequence], precision: torch.dtype
) -> list[Tensor]:
    """This project's log-probabilities of each sequence's scored tokens, packed with shared prompts."""
    scored = score_sequences(Scorer(model), sequences, precision, TOGETHER)
    return [torch.from_numpy(values).double() for values in scored]


@torch.no_grad()
def stock_logps_of(
    model: PreTrainedModel, sequences: Sequence[TokenizedSequence], precision: torch.dtype
) -> list[Tensor]:
    """Stock transformers, one sequence at a time, with the logits as it gives them."""
    found = []
    for sequence in sequences:
        ids = torch.from_numpy(sequence.ids).long()
        with autocast(CPU, precision):
            logits = model(input_ids=ids[None, :-1], use_cache=False).logits[0, sequence.first_scored - 1 :]
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        found.append(wide.gather(-1, ids[sequence.first_scored :, None]).squeeze(-1).double())
    return found


def arithmetic_errors(model: PreTrainedModel, sequences: Sequence[TokenizedSequence]) -> list[Error]:
    """Every arithmetic against float32, one sequence at a time."""
    oracle = stock_logps_of(model, sequences, torch.float32)
    dithered = copy.deepcopy(model)
    add_dither(dithered)
    own_oracle = stock_logps_of(dithered, sequences, torch.float32)
    stock = stock_logps_of(model, sequences, torch.bfloat16)
    trained_in = token_logps_of(dithered, sequences, torch.bfloat16)
    return [
        _error("float32, packed with shared prompts", token_logps_of(model, sequences, torch.float32), oracle),
        _error("bfloat16 layers and logits (stock transformers under autocast)", stock, oracle),
        _error("bfloat16 layers, float32 logits", token_logps_of(model, sequences, torch.bfloat16), oracle),
        _error("the same with dithered weights: training", trained_in, oracle),
        _error("training against its own dithered weights in float32", trained_in, own_oracle),
    ]


def _error(name: str, found: Sequence[Tensor], oracle: Sequence[Tensor]) -> Error:
    tokens = torch.cat([one - other for one, other in zip(found, oracle, strict=True)])
    sums = torch.stack([(one - other).sum() for one, other in zip(found, oracle, strict=True)])
    return Error(
        arithmetic=name,
        token=tokens.abs().mean().item(),
        worst_token=tokens.abs().max().item(),
        completion=sums.abs().mean().item(),
        worst_completion=sums.abs().max().item(),
        bias=sums.mean().item(),
    )


_SIZES: dict[str, Any] = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4}
_HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
_POSITIONS: dict[str, Any] = {"max_position_embeddings": 1024}
FAMILIES: dict[str, Callable[[], Any]] = {
    "GPT-2": lambda: GPT2Config(vocab_size=512, n_embd=128, n_layer=4, n_head=4, n_positions=1024),
    "Llama": lambda: LlamaConfig(**_SIZES, **_HEADS, **_POSITIONS),
    "Qwen3": lambda: Qwen3Config(**_SIZES, **_HEADS, **_POSITIONS),
    "Gemma 3": lambda: Gemma3TextConfig(**_SIZES, **_HEADS, **_POSITIONS, sliding_window=64),
    "GPT-NeoX": lambda: GPTNeoXConfig(**_SIZES, num_attention_heads=4, **_POSITIONS),
}


def family_errors() -> Iterable[FamilyError]:
    """Packed trees of random models against stock transformers in float64, one sequence at a time."""
    rng = np.random.default_rng(0)
    for name, config in FAMILIES.items():
        for length in (32, 256, 1024):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config()).float().eval()
            prompt = rng.integers(3, 512, length // 2)
            sequences = [
                TokenizedSequence(
                    np.concatenate([prompt, rng.integers(3, 512, length - len(prompt))]).astype(np.int32), len(prompt)
                )
                for _ in range(4)
            ]
            oracle = stock_logps_of(copy.deepcopy(model).double(), sequences, torch.float32)
            exact = _error("", token_logps_of(model, sequences, torch.float32), oracle)
            add_dither(model)
            rounded = _error("", token_logps_of(model, sequences, torch.bfloat16), oracle)
            yield FamilyError(name, length, exact.token, rounded.token, rounded.completion)


def step_effects(
    model: PreTrainedModel, train: Sequence[TokenizedExample], held_out: Sequence[TokenizedExample]
) -> Iterable[Step]:
    """One sign step of the DPO loss, seen in bfloat16 and in float32."""
    signs = gradient_signs(model, train)
    batch = _batch(held_out)
    direction = torch.where(batch.labels_N == CHOSEN, 1.0, -1.0).double()
    for weights, stored in (("as dequantised", torch.float32), ("stored in bfloat16", torch.bfloat16)):
        for dithered in (False, True):
            base = _copy(model, stored, dithered)
            before = {precision: _logps(base, batch, precision) for precision in (torch.bfloat16, torch.float32)}
            for step in STEPS:
                moved = _copy(model, stored, dithered)
                _move(moved, signs, step)
                shown, true = (
                    direction * (_logps(moved, batch, precision) - before[precision])
                    for precision in (torch.bfloat16, torch.float32)
                )
                error = (shown - true).std().item() / len(shown) ** 0.5
                yield Step(weights, dithered, step, shown.mean().item(), true.mean().item(), error)


def saved_shares(
    model: PreTrainedModel, train: Sequence[TokenizedExample], held_out: Sequence[TokenizedExample]
) -> Iterable[Saved]:
    """What is left of a change of a model stored in bfloat16, once it is saved in bfloat16 again; in float32."""
    signs = gradient_signs(model, train)
    batch = _batch(held_out)
    direction = torch.where(batch.labels_N == CHOSEN, 1.0, -1.0).double()
    before = _logps(_copy(model, torch.bfloat16, dithered=False), batch, torch.float32)
    for step in (1e-6, 1e-5, 1e-4):
        trained, nearest, stochastic = (_copy(model, torch.bfloat16, dithered=False) for _ in range(3))
        for one in (trained, nearest, stochastic):
            _move(one, signs, step)
        for parameter in nearest.parameters():
            parameter.data = parameter.data.bfloat16()
        round_weights(stochastic, torch.bfloat16)
        true, rounded, dithered = (
            (direction * (_logps(one.float(), batch, torch.float32) - before)).mean().item()
            for one in (trained, nearest, stochastic)
        )
        yield Saved(step, true, rounded / true, dithered / true)


def gradient_signs(model: PreTrainedModel, train: Sequence[TokenizedExample]) -> dict[str, Tensor]:
    """Signs of the DPO loss's gradient at its start: that of minus the mean difference of log-probabilities."""
    batch = _batch(train)
    chosen_P, rejected_P = sides(sequence_logps(Scorer(model)(batch), batch))
    (rejected_P - chosen_P).mean().backward()
    signs = {name: weight.grad.sign() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return signs


def _copy(model: PreTrainedModel, stored: torch.dtype, dithered: bool) -> PreTrainedModel:
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.data = parameter.data.to(stored).float()
    if dithered:
        add_dither(copied)
    return copied


@torch.no_grad()
def _move(model: PreTrainedModel, signs: dict[str, Tensor], step: float) -> None:
    for name, parameter in model.named_parameters():
        parameter.sub_(step * signs[name])


@torch.no_grad()
def _logps(model: PreTrainedModel, batch: MicroBatch, precision: torch.dtype) -> Tensor:
    with autocast(CPU, precision):
        sums_N: Tensor = sequence_logps(Scorer(model)(batch), batch)
    return sums_N.double()


def _batch(pairs: Sequence[TokenizedExample]) -> MicroBatch:
    """All pairs in one micro-batch."""
    columns = TokenColumns.of(pairs)
    (batch,) = plan(columns, range(len(columns)), TOGETHER, DENSE).micro_batches
    return batch


def page(records: Sequence[Record], gradients: GradientRecord, runs: RunsRecord | None) -> str:
    """docs/numerics.md."""
    parts = [INTRODUCTION, *(_section(record) for record in records), FAMILY_TEXT, _families(records[0])]
    return "\n".join([*parts, gradient_section(gradients), runs_section(runs, RESULTS.parent), REPETITION_TEXT])


def _section(record: Record) -> str:
    where = record.circumstances.environment
    errors = [
        [
            e.arithmetic,
            number(e.token),
            number(e.worst_token),
            number(e.completion),
            number(e.worst_completion),
            f"{e.bias:+.3f}",
        ]
        for e in record.arithmetics
    ]
    steps = [
        [s.weights, "yes" if s.dithered else "no", f"{s.step:.0e}", f"{s.shown:+.3f} ± {s.error:.3f}", f"{s.true:+.4f}"]
        for s in record.steps
    ]
    saved = [[f"{s.step:.0e}", f"{s.true:+.4f}", f"{s.nearest:.0%}", f"{s.stochastic:.0%}"] for s in record.saved]
    about = (
        f"{record.completions} held-out completions of `{record.data}`, {record.tokens:.0f} tokens on average; "
        f"SmolLM2-135M-Instruct; {where.device}; PyTorch {where.versions['torch']}."
    )
    return "\n".join(
        [
            f"## Measured on {record.data}\n",
            about + "\n",
            table("arithmetic | nats a token | worst | nats a completion | worst | bias", errors),
            STEP_TEXT,
            table("weights | dithered | step | change shown in bfloat16 | in float32, the truth", steps),
            SAVED_TEXT,
            table("step | change | left, rounded to the nearest | left, as saved here", saved),
        ]
    )


def _families(record: Record) -> str:
    rows = [
        [f.family, str(f.tokens), number(f.float32_token), number(f.bfloat16_token), number(f.bfloat16_completion)]
        for f in record.families
    ]
    header = "family | tokens | float32, nats a token | bfloat16, nats a token | bfloat16, nats a completion"
    return table(header, rows)


INTRODUCTION = """\
# Numerics: what each arithmetic does

Made by `python benchmarks/numerics.py`; raw figures are in
[`benchmarks/results/numerics/`](../benchmarks/results/numerics).

The weights are always float32. Where the processor has units for it the forward and backward passes run in bfloat16,
under autocast, which rounds weights and activations to 8 significant bits wherever they are multiplied. Three things
keep that from being wrong:

- **Logits are never rounded** ([`model/head.py`](../src/tiltlm/model/head.py)): bfloat16 factors, float32 results.
- **Weights are dithered** ([`model/dither.py`](../src/tiltlm/model/dither.py); theory.pdf, Proposition 20 (dither)):
  before training a fixed random number, uniform within half a bfloat16 unit, is added to each weight that is multiplied
  with, the same for policy and reference, and it is taken off before the model is saved. Without it a weight in the
  middle of a rounding cell hides every small step, and one on the border of two cells shows a whole unit for the
  smallest.
- **What is said of the saved model is measured on the saved model**: its files are read back, and the last held-out
  figures, the answers and their log-probabilities are taken in float32. The model is saved in the type of the source's
  files; rounded to bfloat16 it is rounded at random, with the same numbers as the dither, so that small changes survive
  on average. How much did is said at the end of a run.

A run says at its start what bfloat16 does to the log-probabilities of its own first batch, and to an implicit reward
margin; the layout of the batch is proven in float32, where it must be exact. In the tables errors are means of absolute
values but for the bias, against stock transformers in float32, one sequence at a time.
"""

STEP_TEXT = """
One sign step of the DPO loss on 20 pairs, and what became of the held-out completions: mean change of a log-probability
in the direction that the loss wants, nats a completion. `±` is the standard error of the difference of the two columns,
from the noise that rounding activations leaves.
"""

SAVED_TEXT = """
The same step made to a model whose files are bfloat16, which is then saved in bfloat16: what is left of its effect when
the files are read back, in float32.
"""

FAMILY_TEXT = """
## Families and lengths

Random models (4 layers of 128), four completions of a shared prompt, packed, against stock transformers in float64, one
sequence at a time. bfloat16 is as in training: float32 logits, dithered weights.
"""

REPETITION_TEXT = """
## The same bits twice

The same settings, data and seed give the same weights, metrics and answers to the last bit on one machine with one set
of versions and one number of threads: in another process, from another folder, with another `PYTHONHASHSEED`, after
other runs. `tests/training/test_repetition.py` holds that for whole runs in both arithmetics, with one thread and two.
On the CPU it takes no setting. Another number of threads, another processor or another version of PyTorch adds up in
another order, and the last digits differ.

Of a step's operations PyTorch names one that is not repeatable on a CPU, the backward pass of an index: where several
answers share a prompt, all of them send their gradient to its last token, and several threads add it up as they come
by. The scorer looks hidden states up as in a table of embeddings instead, whose backward pass has one order. It costs
nothing: of 1,200 states of 576 numbers, forwards and backwards, 6.8 ms of one thread against 7.5 ms by index (medians
of 60, in turns).

On a CUDA GPU PyTorch has two kinds of kernels for sums by index (`index_add`, `scatter_add_`, and `gather` backwards)
and for the backward pass of memory-efficient attention, which packed rows with a mask of their own take.
`training.deterministic` chooses those that give the same bits (`torch.use_deterministic_algorithms`, with a cuBLAS
workspace of fixed size), and names the operation if a model uses one that has no such kernel. **This was not run on a
GPU: neither that the bits are the same nor what it costs was measured here.** PyTorch's own manual says that such
operations are mostly slower. The option is off unless it is set.

What lies in the cache belongs to the data of a run. Reference values are computed in batches, and the batch decides the
last digits: values that another run left there, computed beside other pairs, may differ in these from values computed
anew. With an empty cache, or one that the same run filled, they are the same.
"""


if __name__ == "__main__":
    main()
