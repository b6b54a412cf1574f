"""The sections [run], [model] and [data]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from tiltlm.config.from_trl.draft import Draft
from tiltlm.config.from_trl.given_arguments import short
from tiltlm.config.sections import RunConfig
from tiltlm.errors import ConfigError

YOUR_MODEL, YOUR_DATA = "NAME-YOUR-MODEL", "NAME-YOUR-DATA"
"""What stands where a file names none, as one of a trainer's arguments alone: a run does not find it, and says so."""
TRACKERS = ("trackio", "wandb", "tensorboard", "mlflow", "swanlab")
"""Trackers that both know, by one name."""
_FILE_KINDS = ("json", "csv", "parquet", "arrow", "text")
"""Names under which the library datasets reads files."""


def run(draft: Draft) -> None:
    """Sets [run]."""
    given = draft.given
    if given.has("output_dir"):
        _folder(draft, "output_dir", PurePosixPath(given["output_dir"]))
        if given.has("run_name"):
            draft.remark("moot", "run_name", "Trackers know the run by run.name, which is its folder's.")
    elif given.has("run_name"):
        _folder(draft, "run_name", PurePosixPath(given["run_name"]))
    if given["overwrite_output_dir"]:
        draft.set("run.overwrite", True, "overwrite_output_dir")
    draft.set("run.seed", given["seed"], "seed", *(("data_seed",) if given["data_seed"] == given["seed"] else ()))
    _trackers(draft)


def _folder(draft: Draft, name: str, path: PurePosixPath) -> None:
    try:
        RunConfig(name=path.name, directory=str(path.parent))
    except ConfigError:
        draft.remark("lost", name, "No run can be called so: name it by run.name.")
        return
    draft.set("run.name", path.name, name)
    if name == "output_dir":
        draft.set("run.directory", str(path.parent), name)


def _trackers(draft: Draft) -> None:
    wanted = [one for one in draft.given["report_to"] or [] if one != "none"] if draft.given.has("report_to") else []
    known = [one for one in dict.fromkeys(wanted) if one in TRACKERS]
    unknown = [one for one in wanted if one not in known]
    if known:
        draft.set("run.trackers", known, "report_to")
    if unknown:
        draft.remark("lost", "report_to", f"{', '.join(unknown)}: name trackers in run.trackers one by one.")
    draft.seen.add("report_to")


def model(draft: Draft) -> None:
    """Sets [model]."""
    given = draft.given
    if given.has("model_name_or_path"):
        draft.set("model.path", given["model_name_or_path"], "model_name_or_path")
    else:
        draft.set("model.path", YOUR_MODEL, "model_name_or_path")
        draft.remark("lost", "model_name_or_path is not given", "Set model.path.")
    if given["trust_remote_code"]:
        draft.set("model.trust_remote_code", True, "trust_remote_code")
    if given["use_cpu"]:
        draft.set("model.device", "cpu", "use_cpu")
    _precision(draft)


def _precision(draft: Draft) -> None:
    """bf16 is TRL's default, but asks for a GPU: where it is not given, `auto` says the same and runs anywhere."""
    given = draft.given
    narrow = given["dtype"] in ("bfloat16", "float16", "auto")
    if given["fp16"] or (given["dtype"] == "float16" and given["bf16"] is False):
        draft.set("model.precision", "bfloat16", "fp16" if given["fp16"] else "dtype")
        draft.remark("differs", "fp16" if given["fp16"] else "dtype", "bfloat16 takes the place of float16.")
    elif given["bf16"]:
        draft.set("model.precision", "bfloat16", "bf16")
    elif given["bf16"] is False:
        wide = given["dtype"] != "bfloat16"
        draft.set("model.precision", "float32" if wide else "bfloat16", *(("bf16",) if wide else ("bf16", "dtype")))
    if narrow:
        draft.remark("differs", "dtype", "Weights are float32 here whatever they are multiplied in.")
    elif given["dtype"] not in (None, "float32"):
        draft.remark("lost", "dtype", "No such type: model.precision is auto, float32 or bfloat16.")


def data(draft: Draft) -> None:
    """Sets [data]."""
    given = draft.given
    mixed = _mixture(draft)
    name = mixed or given["dataset_name"]
    if name is None:
        draft.set("data.train", YOUR_DATA, "dataset_name")
        draft.remark("lost", "dataset_name is not given", "Set data.train.")
    else:
        source = "dataset_name" if mixed is None else _mixture_argument(draft)
        draft.set("data.train", name, source)
        _splits(draft, name, source)
    _length(draft)


def _splits(draft: Draft, name: str, source: str) -> None:
    """Sets which part of the data trains, and which is held out. source: the argument that names the data."""
    given = draft.given
    if given.has("dataset_config") and source != "datasets":  # beside those TRL ignores it
        draft.set("data.subset", given["dataset_config"], "dataset_config")
    named = given["dataset_splits"] or []
    train = next((split for split in named if split.startswith("train")), None)
    test = next((split for split in named if split.startswith(("test", "eval", "valid"))), None)
    if train is not None:
        _split(draft, "data.train_split", train, "dataset_splits")
    elif given.has("dataset_train_split"):
        _split(draft, "data.train_split", given["dataset_train_split"], "dataset_train_split")
    others = [split for split in named if split not in (train, test)]
    if others:
        draft.remark("lost", "dataset_splits", f"{', '.join(others)}: a split for training and one held out are read.")
    if given["eval_strategy"] != "no" and "data.eval_fraction" not in draft.settings:
        draft.set("data.eval", name, source)
        option = "dataset_splits" if test is not None else "dataset_test_split"
        _split(draft, "data.eval_split", test or given["dataset_test_split"], option)
    elif given["eval_strategy"] == "no":
        draft.remark("differs", "eval_strategy", "A tenth of the prompts is held out: data.eval names other data.")


def _split(draft: Draft, option: str, split: str, name: str) -> None:
    plain, bracket, _ = split.partition("[")
    if bracket:
        draft.remark(
            "lost", name, "A part of a split: data.max_train_pairs and data.max_eval_pairs draw some at random."
        )
    if "+" in plain:
        draft.remark("lost", name, "Several splits are put together beforehand.")
        plain = plain.partition("+")[0]
    draft.set(option, plain, name)


def _mixture_argument(draft: Draft) -> str:
    return next((one for one in ("datasets", "dataset_mixture", "dataset_mixer") if draft.given.has(one)), "datasets")


def _mixture(draft: Draft) -> str | None:
    """Sets what the first of several data sets says; returns its name, or None where there is no mixture."""
    given, argument = draft.given, _mixture_argument(draft)
    value = given[argument]
    if not value:
        return None
    mixture: Mapping[str, Any] = value if isinstance(value, Mapping) and argument == "dataset_mixture" else {}
    entries = mixture.get("datasets", value)
    if argument == "dataset_mixer" and isinstance(value, Mapping):
        entries = [{"path": name, "fraction": share} for name, share in value.items()]
    if not isinstance(entries, Sequence) or not all(isinstance(entry, Mapping) for entry in entries) or not entries:
        raise ConfigError(f"{argument} is a list of tables with a `path`, not {short(entries)}.")
    first: Mapping[str, Any] = entries[0]
    name = first.get("path") or first.get("id")
    if not isinstance(name, str):
        raise ConfigError(f"{argument}: its first entry names no `path`.")
    if len(entries) > 1:
        draft.remark("lost", argument, f"One data set is read, {name}: put the others' rows beside it beforehand.")
    for option, keys in (("data.subset", ("name", "config")), ("data.train_split", ("split",))):
        said = next((first[key] for key in keys if isinstance(first.get(key), str)), None)
        if said is None or said == "default":
            continue
        if option == "data.train_split":
            _split(draft, option, said, argument)
        else:
            draft.set(option, said, argument)
    if name in _FILE_KINDS and isinstance(first.get("data_files"), str):
        name = first["data_files"]
    elif first.get("data_files") or first.get("data_dir"):
        draft.remark("lost", argument, "data_files and data_dir: name the file or folder in data.train.")
    share = first.get("fraction", first.get("weight"))
    if len(entries) == 1 and isinstance(share, int | float) and 0 < share < 1:
        draft.remark("lost", argument, "A share of the rows: data.max_train_pairs draws some at random.")
    _test_size(draft, mixture.get("test_split_size"), argument)
    draft.seen.add(argument)
    return name


def _test_size(draft: Draft, of_mixture: object, argument: str) -> None:
    name = "test_split_size" if of_mixture is None else argument
    size = draft.given["test_split_size"] if of_mixture is None else of_mixture
    if not isinstance(size, int | float):
        return
    if 0 < size < 1:
        draft.set("data.eval_fraction", float(size), name)
    else:
        draft.remark("lost", name, "A number of rows: data.eval_fraction is a share of the prompts.")


def _length(draft: Draft) -> None:
    given = draft.given
    longest = given["max_length"]
    if "max_length" in given.values and given.values["max_length"] is None:
        draft.remark("lost", "max_length = null", "Write the length that the model allows in data.max_length.")
        return
    draft.set("data.max_length", longest, "max_length")
    prompt = given["max_prompt_length"]
    if prompt is not None and prompt < longest:
        draft.set("data.max_prompt_length", prompt, "max_prompt_length")
    elif prompt is not None:
        draft.remark("moot", "max_prompt_length", "max_length limits prompts as well.")
    draft.set("data.long_completions", "truncate", "truncation_mode")
    # With max_prompt_length, a former version's argument, truncation_mode was that of prompts alone.
    if given["truncation_mode"] == "keep_end" and prompt is None:
        draft.remark("differs", "truncation_mode", "Prompts lose their beginning, completions their end.")
