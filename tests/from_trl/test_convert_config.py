"""From the arguments of a TRL script to settings: what is translated is the same, what is not is named."""

from __future__ import annotations

import json
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiltlm.cli import main
from tiltlm.config import config_from_dict, option_types
from tiltlm.config.from_trl.argument import Argument
from tiltlm.config.from_trl.converting import Conversion, convert
from tiltlm.config.from_trl.given_arguments import ARGUMENTS, given_by, read_arguments
from tiltlm.config.from_trl.loss_translation import OF_OTHER_TRAINERS, OF_TRL
from tiltlm.config.from_trl.written import report, toml_text
from tiltlm.config.validation import ready
from tiltlm.errors import ConfigError
from tiltlm.objectives import OBJECTIVES

ROOT = Path(__file__).parents[2]


def converted(pairs: int | None = None, processes: int = 1, **arguments: Any) -> Conversion:
    return convert(given_by(arguments), pairs, processes)


def tables(pairs: int | None = None, processes: int = 1, **arguments: Any) -> dict[str, dict[str, Any]]:
    return converted(pairs, processes, **arguments).tables()


def lost(**arguments: Any) -> str:
    return "\n".join(f"{remark.argument}: {remark.says}" for remark in converted(**arguments).said("lost"))


def written(arguments: dict[str, Any]) -> str:
    """The file that is made of arguments, after a check that it loads to what was converted."""
    found = given_by(arguments)
    conversion = convert(found)
    text = toml_text(conversion, found, "dpo.yaml")
    read = tomllib.loads(text)
    assert read == conversion.tables()
    ready(config_from_dict(read))
    return text


# A whole script

SCRIPT = """\
# A recipe in the manner of the alignment handbook.
model_name_or_path: someone/base-sft
torch_dtype: null
dataset_name: someone/pairs
dataset_config: default
dataset_train_split: train_prefs
dataset_test_split: test_prefs
bf16: true
beta: 0.01
do_eval: true
evaluation_strategy: steps
eval_steps: 100
gradient_accumulation_steps: 2
gradient_checkpointing: true
gradient_checkpointing_kwargs: {use_reentrant: false}
learning_rate: 5e-7
logging_steps: 10
lr_scheduler_type: cosine
max_length: 1024
max_prompt_length: 512
num_train_epochs: 1
optim: adamw_torch
output_dir: data/base-dpo
per_device_train_batch_size: 8
push_to_hub: true
save_strategy: "steps"
save_steps: 100
save_total_limit: 1
seed: 7
warmup_ratio: 0.1
"""


def test_a_whole_script(tmp_path: Path) -> None:
    """8 x 2 x 4 = 64 pairs a step, 62 steps of 4000 pairs, of which a tenth, rounded up, is warm-up."""
    file = tmp_path / "dpo.yaml"
    file.write_text(SCRIPT)
    conversion = convert(read_arguments(file), pairs=4000, processes=4)
    assert conversion.tables() == {
        "run": {"name": "base-dpo", "directory": "data", "seed": 7},
        "model": {"path": "someone/base-sft", "precision": "bfloat16"},
        "data": {
            "train": "someone/pairs",
            "eval": "someone/pairs",
            "train_split": "train_prefs",
            "eval_split": "test_prefs",
            "subset": "default",
            "max_length": 1024,
            "max_prompt_length": 512,
            "long_completions": "truncate",
        },
        "loss": {"name": "sigmoid", "beta": 0.01},
        "training": {
            "epochs": 1,
            "batch_pairs": 64,
            "activation_checkpointing": True,
            "optimizer": "adamw",
            "learning_rate": 5e-7,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "warmup_steps": 7,
            "gradient_clip": 1.0,
            "eval_every": 100,
        },
        "checkpoint": {"every_steps": 100, "every_minutes": 0.0, "keep": 1},
    }
    assert [remark.argument for remark in conversion.said("lost")] == ["push_to_hub = True"]


QLORA: dict[str, Any] = {
    "model_name_or_path": "someone/base-sft",
    "torch_dtype": "bfloat16",
    "use_peft": True,
    "load_in_4bit": True,
    "lora_r": 64,
    "lora_alpha": 64,
    "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "dataset_mixer": {"someone/pairs": 1.0},
    "dataset_splits": ["train_prefs", "test_prefs"],
    "preprocessing_num_workers": 12,
    "evaluation_strategy": "steps",
    "eval_steps": 100,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "optim": "paged_adamw_32bit",
    "max_steps": 900,
    "warmup_ratio": 0.1,
    "report_to": ["tensorboard", "wandb"],
}
MIXTURE: dict[str, Any] = {
    "model_name_or_path": "someone/base-sft",
    "dataset_mixture": {
        "datasets": [
            {"id": "someone/pairs", "config": "default", "split": "train_prefs", "columns": ["chosen", "rejected"]},
            {"id": "other/pairs", "split": "train", "weight": 0.5},
        ],
        "test_split_size": 0.05,
        "seed": 0,
    },
    "loss_type": ["sigmoid", "bco_pair", "sft"],
    "loss_weights": [0.8, 0.2, 1.0],
    "eval_strategy": "epoch",
    "hub_model_id": "base-dpo",
    "deepspeed": "zero3.json",
}


@pytest.mark.skipif("adapter.kind" not in option_types(), reason="there are no adapters")
def test_a_recipe_with_adapters_has_a_counterpart_throughout() -> None:
    assert "run.trackers" not in option_types() or not lost(**QLORA)
    assert tables(**QLORA)["adapter"]["quantise"] == "nf4"
    assert tables(**QLORA)["training"]["warmup_steps"] == 90


def test_a_recipe_of_which_little_has_a_counterpart_names_each() -> None:
    assert [line.split(" = ")[0] for line in lost(**MIXTURE).splitlines()] == [
        "eval_strategy",  # in passes, of a number of pairs that is not known
        "dataset_mixture",  # two of them
        "deepspeed",
    ]
    assert tables(**MIXTURE)["data"]["eval_fraction"] == 0.05


def test_what_is_not_given_has_the_default_of_trl() -> None:
    found = tables(loss_type="sigmoid")
    assert found["training"]["batch_pairs"] == 8
    assert found["training"]["epochs"] == 3
    assert found["training"]["schedule"] == "linear"
    assert found["training"]["gradient_clip"] == 1.0
    assert found["data"]["max_length"] == 1024
    assert found["run"]["seed"] == 42


def test_where_no_model_and_no_data_are_named_none_is_made_up() -> None:
    """The defaults of ours are a demo."""
    found = converted(beta=0.2)
    assert found.tables()["model"]["path"] not in ("embedded", None)
    assert found.tables()["data"]["train"] != "demo"
    assert {"model_name_or_path", "dataset_name"} <= {remark.argument.split()[0] for remark in found.said("lost")}


# Numbers of steps


def test_shares_of_a_run_become_steps_where_the_run_is_known() -> None:
    assert tables(max_steps=200, warmup_ratio=0.1)["training"]["warmup_steps"] == 20
    assert tables(max_steps=200, warmup_steps=0.05)["training"]["warmup_steps"] == 10
    assert tables(pairs=100, num_train_epochs=1.5)["training"]["max_steps"] == 20  # of 13 each
    assert tables(pairs=100, eval_strategy="epoch")["training"]["eval_every"] == 13
    assert tables(pairs=100, eval_strategy="steps", eval_steps=0.25)["training"]["eval_every"] == 10  # of 39
    assert tables(pairs=100, save_strategy="epoch")["checkpoint"]["every_steps"] == 13


@pytest.mark.parametrize(
    "arguments",
    [
        {"warmup_ratio": 0.1},
        {"num_train_epochs": 0.5},
        {"eval_strategy": "epoch"},
        {"save_strategy": "epoch"},
        {"eval_strategy": "steps", "eval_steps": 0.1},
        {"save_steps": 0.1},
    ],
    ids=str,
)
def test_where_the_run_is_not_known_they_are_named(arguments: dict[str, Any]) -> None:
    assert "--pairs" in lost(**arguments)


def test_steps_win_over_passes_and_warm_up_ends_with_the_run() -> None:
    found = tables(max_steps=10, num_train_epochs=3, warmup_steps=50)
    assert "epochs" not in found["training"]
    assert found["training"]["warmup_steps"] == 10
    assert "longer than the run" in lost(max_steps=10, warmup_steps=50)


def test_evaluation_falls_back_on_logging_as_in_transformers() -> None:
    assert tables(eval_strategy="steps")["training"]["eval_every"] == 10
    assert tables(eval_strategy="steps", logging_steps=25)["training"]["eval_every"] == 25
    assert tables(eval_strategy=False)["training"]["eval_every"] == 0  # YAML's `no`


# Losses


@pytest.mark.parametrize("name", [*OF_TRL, *OF_OTHER_TRAINERS])
def test_a_loss_has_its_own_name_and_a_beta_that_is_said(name: str) -> None:
    if name not in OBJECTIVES:
        assert f"no objective {name}" in lost(loss_type=name)
        return
    arguments: dict[str, Any] = {"loss_type": [name], "beta": 0.25, "label_smoothing": 0.125, "cpo_alpha": 0}
    found = tables(**arguments)["loss"]
    assert found["name"] == name
    assert name == "sft" or found["beta"] == 0.25
    reads = name in ("robust", "exo_pair")
    assert found.get("label_smoothing") == (0.125 if reads else None)
    assert ("label_smoothing" in lost(**arguments)) == (name in ("sigmoid", "simpo", "aot", "aot_unpaired"))


def test_simpo_is_given_gamma_over_beta() -> None:
    assert tables(loss_type="simpo", beta=2.0, simpo_gamma=1.0, cpo_alpha=0)["loss"] == {
        "name": "simpo",
        "beta": 2.0,
        "gamma_beta_ratio": 0.5,
    }
    assert "cpo_alpha" in lost(loss_type="simpo")


@pytest.mark.parametrize(
    ("arguments", "name", "own"),
    [
        ({"ld_alpha": 0.25}, "ld_dpo", {"alpha": 0.25}),
        ({"use_weighting": True}, "wpo", {}),
        ({"sync_ref_model": True}, "tr_dpo", {"alpha": 0.6, "update_every": 512}),
        ({"rpo_alpha": 0.5}, "rpo", {"nll_weight": 0.5}),
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}, "rpo", {"nll_weight": 0.5}),
        ({"loss_type": ["sft", "sigmoid"], "loss_weights": [1.0, 2.0]}, "rpo", {"nll_weight": 0.5}),
        (
            {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
            "mpo",
            {"preference_weight": 0.8, "quality_weight": 0.2, "nll_weight": 1.0},
        ),
        ({"loss_type": "discopop", "discopop_tau": 0.1}, "discopop", {"tau": 0.1}),
        ({"f_divergence_type": "js_divergence"}, "sigmoid", {"divergence": "js"}),
        (
            {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.75},
            "sigmoid",
            {"divergence": "alpha", "divergence_alpha": 0.25},
        ),
        ({"f_divergence_type": "FDivergenceType.FORWARD_KL"}, "sigmoid", {"divergence": "forward_kl"}),
    ],
    ids=str,
)
def test_an_argument_that_changes_the_loss(arguments: dict[str, Any], name: str, own: dict[str, Any]) -> None:
    known = name in OBJECTIVES and own.keys() <= {option.rpartition(".")[2] for option in option_types()}
    found = tables(beta=0.25, **arguments)["loss"]
    if known:
        assert {"name": name, "beta": 0.25} | own == {**found, **own} and found.items() >= own.items()
    else:
        assert lost(beta=0.25, **arguments)


def test_what_cannot_be_put_together_is_named() -> None:
    assert "ld_alpha" in lost(loss_type="ipo", ld_alpha=0.5)
    assert "use_weighting" in lost(ld_alpha=0.5, use_weighting=True)
    assert "loss_type" in lost(loss_type=["hinge", "ipo"])
    assert "label_smoothing" in lost(label_smoothing=0.1)
    assert "f_divergence_type" in lost(loss_type="nca_pair", f_divergence_type="js_divergence")


# Values


def test_values_are_read_as_trl_reads_them() -> None:
    """YAML takes `5e-7` for text and `no` for false, and flags may be written with dashes."""
    arguments: dict[str, Any] = {"learning-rate": "5e-7", "--bf16": "false", "num_train_epochs": "2", "max_steps": None}
    found = tables(**arguments)
    assert found["training"]["learning_rate"] == 5e-7
    assert found["model"]["precision"] == "float32"
    assert found["training"]["epochs"] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"learning_rate": "fast"}, "learning_rate is a number"),
        ({"max_steps": 1.5}, "max_steps is a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate is a number"),
        ({"bf16": "maybe"}, "bf16 is true or false"),
        ({"loss_type": "dpo"}, "no loss `dpo`"),
        ({"f_divergence_type": "tv"}, "f_divergence_type cannot be"),
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}, "1 weights for 2"),
        ({"learning_rate": -1.0}, "training.learning_rate must be above 0"),
        ({"evaluation_strategy": "steps", "eval_strategy": "epoch"}, "one argument, and differ"),
        ({"datasets": "someone/pairs"}, "list of tables"),
        ({"learning_rates": 1e-6}, "none of its names"),
        ({"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU"}, "accelerate's launch"),
        ({"run_name": "\ud800"}, "run_name is text"),
    ],
    ids=str,
)
def test_an_impossible_value_is_refused_by_name(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        converted(**arguments)


def test_names_that_trl_does_not_have_are_named_with_what_was_meant() -> None:
    assert "Did you mean learning_rate?" in lost(beta=0.1, leaning_rate=1e-6)
    assert "no such argument" in lost(beta=0.1, my_own=3)


def test_arguments_for_loading_the_model_count_as_if_given_alone() -> None:
    found = tables(model_init_kwargs={"torch_dtype": "bfloat16", "trust_remote_code": True}, bf16=False)
    assert found["model"]["precision"] == "bfloat16"
    assert found["model"]["trust_remote_code"] is True
    assert "model_revision" in lost(model_init_kwargs={"revision": "v2"})
    assert "model_init_kwargs.max_memory" in lost(model_init_kwargs={"max_memory": {}})


def test_secrets_are_not_written_down() -> None:
    token = "hf_" + "aB3" * 12
    text = written({"hub_token": token, "env": {"WANDB_API_KEY": "12345678"}, "beta": 0.1, "project": token})
    assert token not in text and "12345678" not in text
    assert "env" in text


def test_trackers_that_both_know_are_kept() -> None:
    found = tables(report_to=["wandb", "comet_ml"])["run"]
    assert found.get("trackers", ["wandb"]) == ["wandb"]
    assert "comet_ml" in lost(report_to=["wandb", "comet_ml"])
    assert "report_to" in lost(report_to="all")
    assert lost(report_to="none") == lost(report_to=None) == lost(beta=0.1)


@pytest.mark.skipif("adapter.kind" not in option_types(), reason="there are no adapters")
def test_adapters() -> None:
    asked: dict[str, Any] = {"use_peft": True, "lora_r": 8, "lora_alpha": 16, "lora_target_modules": ["q_proj"]}
    assert tables(**asked)["adapter"] == {"kind": "lora", "rank": 8, "alpha": 16.0, "targets": ["q_proj"]}
    assert tables(**asked, use_rslora=True)["adapter"]["kind"] == "rslora"
    assert tables(**asked, use_dora=True, load_in_4bit=True)["adapter"]["quantise"] == "nf4"
    assert tables(**asked, load_in_8bit=True)["adapter"]["quantise"] == "int8"
    assert "lora_modules_to_save" in lost(**asked, lora_modules_to_save=["lm_head"])
    assert "lora_dropout" in lost(**asked, disable_dropout=False)
    assert "lora_dropout" not in lost(**asked)
    assert "adapter" not in tables(lora_r=8)
    assert "load_in_4bit" in lost(load_in_4bit=True)


def test_several_data_sets() -> None:
    one = {"path": "someone/pairs", "name": "helpful", "split": "train[:10%]", "columns": ["chosen", "rejected"]}
    found = tables(datasets=[one], test_split_size=0.05)
    assert found["data"]["train"] == "someone/pairs"
    assert found["data"]["subset"] == "helpful"
    assert found["data"]["train_split"] == "train"
    assert found["data"]["eval_fraction"] == 0.05
    assert "datasets" in lost(datasets=[one])
    assert "other/pairs" in lost(datasets=[one, {"path": "other/pairs"}])
    assert tables(datasets=[{"path": "json", "data_files": "pairs.jsonl"}])["data"]["train"] == "pairs.jsonl"
    assert tables(dataset_mixer={"someone/pairs": 1.0})["data"]["train"] == "someone/pairs"
    handbook = {"datasets": [{"id": "someone/pairs", "config": "default"}], "test_split_size": 2000}
    assert "test_split_size" in lost(dataset_mixture=handbook)


# Everything that is given comes up


def values_of(argument: Argument) -> st.SearchStrategy[Any]:
    """Values that TRL takes for an argument."""
    if argument.name in _WORDS:
        return st.sampled_from(_WORDS[argument.name])
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "number": st.floats(0.01, 0.99) | st.integers(1, 1000),
        "whole": st.integers(1, 4096),
        "switch": st.booleans(),
        "text": st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12).filter(
            lambda text: text.strip() not in ("", ".", "..", "None", "null") and text.isprintable()
        ),
        "texts": st.lists(st.sampled_from(["q_proj", "train_prefs", "test", "wandb"]), min_size=1, max_size=3),
        "numbers": st.just([1.0]),
        "table": st.dictionaries(st.sampled_from(["a", "b"]), st.integers(), max_size=2),
        "any": st.none() | st.integers() | st.text(max_size=5),
    }
    return kinds[argument.kind]


_WORDS: dict[str, list[Any]] = {
    "beta": [0.01, 0.1, 1.0],
    "learning_rate": [1e-6, "5e-7"],
    "label_smoothing": [0.01, 0.25],
    "ld_alpha": [0.0, 0.5, 1.0, None],
    "loss_type": [[name] for name in (*OF_TRL, *OF_OTHER_TRAINERS)],
    "loss_weights": [None, [1.0], [0.5]],
    "f_divergence_type": ["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"],
    "f_alpha_divergence_coef": [0.5, 0.25, 1.0, 0.0, 2.0],
    "ref_model_mixup_alpha": [0.25, 0.6, 0.75],
    "discopop_tau": [0.05, 0.5],
    "desirable_weight": [1.0, 1.5],
    "undesirable_weight": [1.0, 0.5],
    "eval_strategy": ["no", "steps", "epoch"],
    "evaluation_strategy": [None],
    "save_strategy": ["no", "steps", "epoch", "best"],
    "lr_scheduler_type": ["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "greedy"],
    "optim": ["adamw_torch", "rmsprop", "paged_adamw_8bit", "lion_32bit"],
    "dtype": ["float32", "bfloat16", "float16", "auto", None],
    "torch_dtype": [None],
    "no_cuda": [None],
    "per_gpu_train_batch_size": [None],
    "dataset_id_or_path": [None],
    "datasets": [[], [{"path": "someone/pairs"}], [{"path": "a", "split": "train"}, {"path": "b", "fraction": 0.5}]],
    "dataset_mixture": [{}, {"datasets": [{"id": "someone/pairs", "split": "train"}]}],
    "dataset_mixer": [{"someone/pairs": 1.0}, {"a": 0.5, "b": 1.0}],
    "model_init_kwargs": [{}, {"dtype": "bfloat16"}, {"revision": "main"}],
    "max_length": [1, 64, 2048, None],
    "model_name_or_path": ["someone/model"],
    "dataset_name": ["someone/pairs"],
    "lora_target_modules": [None, ["q_proj", "v_proj"], "all-linear", "model.*proj"],
}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_is_given_the_settings_load_and_nothing_is_lost_silently(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(ARGUMENTS)), unique=True, min_size=1, max_size=40))
    arguments = {name: data.draw(values_of(ARGUMENTS[name]), label=name) for name in names}
    text = written(arguments)
    for name, value in given_by(arguments).values.items():
        if ARGUMENTS[name].asks(value):
            assert name in text


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_a_value_is_it_is_used_or_refused_in_words(data: st.DataObject) -> None:
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=5,
    )
    arguments = data.draw(st.dictionaries(st.sampled_from(sorted(ARGUMENTS)), anything, min_size=1, max_size=3))
    try:
        written(arguments)
    except ConfigError as error:
        assert str(error)


def test_an_argument_that_is_not_translated_says_why() -> None:
    assert all(one.says for one in ARGUMENTS.values() if not one.ours)
    assert all(one.says.endswith(".") for one in ARGUMENTS.values() if one.says)


# The command


def test_the_command_writes_a_file_and_names_what_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, target = tmp_path / "dpo.yaml", tmp_path / "dpo.toml"
    file.write_text(SCRIPT)
    assert main(["convert-config", str(file), "--output", str(target), "--pairs", "4000", "--processes", "4"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "" and "push_to_hub = True" in shown.err
    assert tomllib.loads(target.read_text(encoding="utf-8"))["training"]["batch_pairs"] == 64
    assert "push_to_hub = True" in target.read_text(encoding="utf-8")
    assert main(["convert-config", str(file), "--output", str(target)]) == 2
    assert "is there" in capsys.readouterr().err


def test_the_command_prints_the_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "training_args.json"
    file.write_text(json.dumps({"beta": 0.3, "dataset_name": "someone/pairs", "model_name_or_path": "someone/model"}))
    assert main(["convert-config", str(file), "--strict"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["loss"]["beta"] == 0.3


def test_strict_fails_on_what_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "dpo.yaml"
    file.write_text(SCRIPT)
    assert main(["convert-config", str(file), "--strict", "--pairs", "4000"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "1 of its arguments" in shown.err


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.yaml", "beta: [", "not valid YAML"),
        ("a.json", "{", "not valid JSON"),
        ("a.yaml", "- beta", "a table"),
        ("a.yaml", "", "a table"),
        ("a.yaml", "beta: !!python/name:os.system", "not valid YAML"),
        ("a.yaml", "1: 2", "a table"),
        ("a.yaml", "a: &a [*a]", "none of its names"),
    ],
)
def test_a_file_that_is_none_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, says: str
) -> None:
    (tmp_path / name).write_text(text)
    assert main(["convert-config", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert-config", "nowhere.yaml"]) == 2
    assert "cannot read nowhere.yaml" in capsys.readouterr().err
    assert main(["convert-config"]) == 2
    assert "name the file" in capsys.readouterr().err


def test_the_report_is_short_where_nothing_is_lost() -> None:
    assert report(converted(beta=0.1, model_name_or_path="a", dataset_name="b", eval_strategy="steps")) == []


# The page


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_from_trl_table.py"))
    page = (ROOT / "docs" / "from-trl.md").read_text(encoding="utf-8")
    assert script["page"]() == page, "run `python scripts/make_from_trl_table.py`"
    rows = {row for table in script["TABLES"].values() for row in (one.name for one in table)}
    assert rows == set(ARGUMENTS)
