"""Several sources as one: so much of each as its weight says, told apart in every account."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_level

from tiltlm.cli import main
from tiltlm.cli.command_line import parse_config
from tiltlm.config import Config, DataConfig, config_from_dict, load_config, settings_table
from tiltlm.config.data_sources import SourceConfig
from tiltlm.config.recipes import recipe_from_dict
from tiltlm.config.validation import places_read, validate
from tiltlm.data.preparation import PreparedData, prepare_data, read_data
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import ConfigError, DataError
from tiltlm.objectives import OBJECTIVES


def pairs(prefix: str, count: int) -> list[dict[str, str]]:
    return [{"prompt": f"{prefix} {n}?", "chosen": f" yes {n}", "rejected": " no"} for n in range(count)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def prepared(config: Config, cache: Path | None = None) -> PreparedData:
    tokenizer = ExampleTokenizer(byte_level(), config.data)
    needs = OBJECTIVES[config.loss.name].needs
    return prepare_data(read_data(config, needs), tokenizer, lambda done: None, cache)


def mixed(*sources: SourceConfig, **data: Any) -> Config:
    return validate(Config(data=DataConfig(source=sources, max_length=200, **data)))


def times(data: PreparedData) -> Counter[str]:
    return Counter(data.train.names)


@settings(max_examples=30, deadline=None)
@given(first=st.floats(0.1, 3), second=st.sampled_from([0.5, 1.0, 2.0]))
def test_each_example_is_there_as_often_as_its_weight_says(
    first: float, second: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sources")
    sources = [
        SourceConfig(write(folder / f"{name}.jsonl", pairs(name, count)), weight)
        for name, count, weight in (("a", 20, first), ("b", 11, second))
    ]
    evaluation = write(folder / "eval.jsonl", pairs("e", 3))
    data = prepared(mixed(*sources, eval=evaluation))
    found = times(data)
    for name, count, weight in (("a", 20, first), ("b", 11, second)):
        number = "ab".index(name) + 1
        own = [found[f"source {number}, {name}.jsonl:{line}"] for line in range(1, count + 1)]
        assert set(own) <= {int(weight), int(weight) + 1}
        assert sum(own) == int(weight) * count + round((weight % 1) * count)
    report = {source.name: source for source in data.report.sources}
    for source in sources:
        own_report = report[source.path]
        assert own_report.weight == source.weight and own_report.rows == own_report.pairs
        assert own_report.rows_used == sum(f", {Path(source.path).name}:" in name for name in found)
        assert (own_report.rows_used or 0) + (own_report.rows_left_out or 0) == own_report.rows


def test_a_larger_weight_adds_some_and_takes_none_away(tmp_path: Path) -> None:
    path, evaluation = write(tmp_path / "a.jsonl", pairs("a", 40)), write(tmp_path / "e.jsonl", pairs("e", 3))
    before: Counter[str] = Counter()
    for weight in (0.2, 0.5, 1.0, 1.3, 2.0, 2.7):
        found = times(prepared(mixed(SourceConfig(path, weight), eval=evaluation)))
        assert not before - found and found != before
        before = found


def test_one_source_of_weight_1_is_the_source_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", pairs("a", 40))
    alone = prepared(Config(data=DataConfig(train=path, max_length=200)))
    one = prepared(mixed(SourceConfig(path)))
    assert list(one.train.names) == list(alone.train.names) and list(one.eval.names) == list(alone.eval.names)
    assert np.array_equal(one.train.ids, alone.train.ids)


def test_held_out_prompts_are_drawn_from_all_sources_and_are_no_one_s_training(tmp_path: Path) -> None:
    common = pairs("both", 30)
    sources = [SourceConfig(write(tmp_path / name / "train.jsonl", [*common, *pairs(name, 30)]), 2.0) for name in "ab"]
    data = prepared(mixed(*sources, eval_fraction=0.3))
    trained, asked = (
        {bytes(sequence.ids[: sequence.first_scored].tolist()) for example in part for sequence in example.sequences}
        for part in (data.train, data.eval)
    )
    assert not trained & asked and asked
    assert set(times(data).values()) == {2} and set(Counter(data.eval.names).values()) == {1}
    # Two files of one name are told apart.
    assert {name.partition(", ")[0] for name in data.train.names} == {"source 1", "source 2"}


@pytest.mark.parametrize("limit", [None, 150])
@pytest.mark.parametrize("given", [False, True])
def test_shares_survive_the_split_and_the_limits(tmp_path: Path, limit: int | None, given: bool) -> None:
    """What a weight leaves out has nothing to do with what is held out, nor with what limits draw."""
    sources = [
        SourceConfig(write(tmp_path / "a.jsonl", pairs("a", 1000)), 1.0),
        SourceConfig(write(tmp_path / "b.jsonl", pairs("b", 1000)), 0.3),
        SourceConfig(write(tmp_path / "c.jsonl", pairs("c", 600)), 1.5),
    ]
    evaluation = write(tmp_path / "e.jsonl", pairs("e", 3)) if given else None
    data = prepared(mixed(*sources, eval=evaluation, max_train_pairs=limit, max_eval_pairs=None))
    trained, once = times(data), set(data.train.names)
    of = [{name for name in once if name.startswith(f"source {number}, ")} for number in (1, 2, 3)]
    taken = len(once) / 1900
    for own, expected in zip(of, (1000, 300, 600), strict=True):
        # Drawn without putting back: three standard deviations of a binomial are more than enough.
        assert abs(len(own) - taken * expected) <= 3 * (taken * (1 - taken) * expected) ** 0.5 + 1
    again = sum(trained[name] == 2 for name in of[2])
    assert abs(again - len(of[2]) / 2) <= 3 * (len(of[2]) / 4) ** 0.5 + 1
    if not given:
        held_out = Counter(name.partition(", ")[0] for name in data.eval.names)
        assert {"source 1", "source 2", "source 3"} == set(held_out)


def test_each_source_has_its_own_format_and_columns(tmp_path: Path) -> None:
    asked = [{"q": f"q {n}?", "good": " yes", "bad": " no"} for n in range(9)]
    chats = [
        {
            "prompt": [{"role": "user", "content": f"c {n}"}],
            "chosen": [{"role": "assistant", "content": "yes"}],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
        for n in range(9)
    ]
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    write(tmp_path / "set" / "part" / "train.jsonl", chats)
    config = mixed(
        SourceConfig(write(tmp_path / "q.jsonl", asked), columns=columns),
        SourceConfig(str(tmp_path / "set"), subset="part", format="chat"),
    )
    data = prepared(config)
    assert [source.format for source in data.report.sources] == ["preference", "chat"]
    assert len(data.train) + len(data.eval) == 18


def test_weights_are_part_of_what_tokens_are_found_by(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", pairs("a", 20))
    first, second = (prepared(mixed(SourceConfig(path, weight)), tmp_path / "tokens") for weight in (1.0, 2.0))
    again = prepared(mixed(SourceConfig(path, 2.0)), tmp_path / "tokens")
    assert len(second.train) == 2 * len(first.train) == len(again.train)


def test_objectives_with_answers_to_other_prompts_take_repeated_examples(tmp_path: Path) -> None:
    rows = [{"prompt": f"p {n}?", "completion": " yes", "label": n % 2 == 0} for n in range(12)]
    path = write(tmp_path / "a.jsonl", rows)
    data_table = {"source": [{"path": path, "weight": 2}], "eval_fraction": 0.4}
    config = config_from_dict({"data": data_table, "loss": {"name": "kto"}})
    data = prepared(config)
    assert set(times(data).values()) == {2}


# Settings


def test_sources_are_read_from_a_file_and_come_back_from_a_run_s_record(tmp_path: Path) -> None:
    file = tmp_path / "mix.toml"
    file.write_text(
        '[data]\nmax_length = 99\n[[data.source]]\npath = "hh.jsonl"\n[[data.source]]\npath = "owner/name"\n'
        'weight = 0.5\nsplit = "train_prefs"\nformat = "chat"\ncolumns = { prompt = "question" }\n'
    )
    config = validate(load_config(file))
    assert [one.path for one in config.data.source] == ["hh.jsonl", "owner/name"]
    assert config.data.source[1].weight == 0.5 and config.data.source[1].columns == {"prompt": "question"}
    again = config_from_dict(json.loads(json.dumps(settings_table(config))))
    assert again.data == config.data
    assert places_read(config)["data.source 1"] == Path("hh.jsonl") and "data.train" not in places_read(config)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"source": [{"weight": 2}]}, "1. table .* names no `path`"),
        ({"source": [{"path": "a", "wieght": 2}]}, "Did you mean `weight`"),
        ({"source": [{"path": "a", "weight": 0}]}, "data.source.weight must be above 0"),
        ({"source": [{"path": "a", "weight": 1e19}]}, "at most 1000"),
        ({"source": [{"path": "a", "format": "chatt"}]}, "Did you mean `chat`"),
        ({"source": [{"path": "a"}], "train": "b"}, "data.train .* no effect beside data.source"),
        ({"source": [{"path": "a"}], "format": "chat"}, "write `format` into the table"),
        ({"source": [{"path": "a"}], "train_split": "x"}, "write `split` into the table"),
        ({"source": "a.jsonl"}, "data.source"),
    ],
)
def test_what_is_wrong_is_said(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        validate(config_from_dict({"data": table}))


def test_what_is_wrong_with_a_source_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", pairs("a", 20))
    with pytest.raises(DataError, match=r"data\.source 2: there is no file or folder"):
        prepared(mixed(SourceConfig(path), SourceConfig(str(tmp_path / "b.jsonl"))))
    with pytest.raises(DataError, match=r"a weight of 0\.01 takes none of its 20 examples"):
        prepared(mixed(SourceConfig(path, 0.01)))
    with pytest.raises(ConfigError, match=r"`split` of data\.source 1 has no effect on the file"):
        prepared(mixed(SourceConfig(path, split="x")))
    with pytest.raises(ConfigError, match="no effect on rows in memory"):
        read_data(mixed(SourceConfig(path)), train=pairs("a", 3))


# The command line


def test_words_are_paths_with_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lang=en").mkdir()
    write(tmp_path / "lang=en" / "x.jsonl", pairs("x", 1))
    (tmp_path / "year=2024").mkdir()
    config = parse_config(["--data.source", "hh.jsonl", "ours.csv=3", "lang=en/x.jsonl", "year=2024", "year=2024=0.5"])
    assert [(one.path, one.weight) for one in config.data.source] == [
        ("hh.jsonl", 1.0),
        ("ours.csv", 3.0),
        ("lang=en/x.jsonl", 1.0),
        ("year=2024", 1.0),
        ("year=2024", 0.5),
    ]
    for words, says in (([], "needs at least one"), (["a=b"], "`b` no weight")):
        with pytest.raises(ConfigError, match=says):
            parse_config(["--data.source", *words])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sweep", "sweep.toml"], "cannot be swept"),
        (["bench", "--data.source", "a.jsonl", "b.jsonl"], "not for tiltlm bench"),
        (["inspect", "a.jsonl", "--data.source", "b.jsonl"], "leave --data.source out"),
    ],
)
def test_where_several_sources_make_no_sense_they_are_refused(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.toml").write_text('[sweep.options]\n"data.source" = [[{ path = "a" }], [{ path = "b" }]]\n')
    assert main(words) == 2
    assert says in capsys.readouterr().err


def test_a_stage_may_have_sources_where_the_others_have_one_place() -> None:
    common = {"train": "demo.jsonl", "format": "preference", "max_length": 99}
    recipe = recipe_from_dict(
        {
            "data": common,
            "stage": [{"loss": {"name": "sft"}, "data": {"source": [{"path": "a"}, {"path": "b"}]}}, {"name": "two"}],
        }
    )
    first, second = (validate(recipe.settings(number)).data for number in range(2))
    assert [one.path for one in first.source] == ["a", "b"] and first.train == "demo" and first.max_length == 99
    assert second.train == "demo.jsonl" and second.format == "preference" and not second.source
    turned = recipe_from_dict(
        {"data": {"source": [{"path": "a"}]}, "stage": [{"name": "one"}, {"name": "two", "data": {"train": "c"}}]}
    )
    assert validate(turned.settings(0)).data.source and not validate(turned.settings(1)).data.source
