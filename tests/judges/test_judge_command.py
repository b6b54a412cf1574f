"""`tiltlm judge`: files of answers are judged line by line and gone on with, and judges are judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bad_server import Answered, completion, served, texts_of

from tiltlm.cli import main
from tiltlm.pipeline.own_answers import judging

KEY = "plain-words-of-a-key"
ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "Why?", "answers": ["long answer", "short", "mid one"], "tools": None},
    {
        "id": "b",
        "prompt": [{"role": "user", "content": "How?"}],
        "answers": [{"text": "so", "tokens": 2, "ended": True}, "thus"],
    },
    {"id": "c", "prompt": "When?", "answers": ["now"]},
]
OWN = "def of_both(prompt, answer):\n    return len(answer) + 100 * len(prompt)\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("own.py").write_text(OWN)
    return tmp_path


def lines(path: str = "judged.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def rewards(path: str = "judged.jsonl") -> list[list[float | None]]:
    return [[answer["reward"] for answer in row["answers"]] for row in lines(path)]


def judge(*words: str) -> int:
    return main(["judge", "answers.jsonl", "--output", "judged.jsonl", "--judge", *words])


def longer(body: dict[str, Any], number: int) -> Answered:
    first, second = map(len, texts_of(body))
    return completion("A" if first > second else "B")


def test_every_answer_gets_a_reward_and_keeps_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert judge("own.py:of_both") == 0
    # "Why?" is 4 characters, a chat is "Human: How?", "When?" is 5.
    assert rewards() == [[411.0, 405.0, 407.0], [1102.0, 1104.0], [503.0]]
    judged = lines()
    assert judged[1]["answers"][0] == {"text": "so", "tokens": 2, "ended": True, "reward": 1102.0}
    assert [row["prompt"] for row in judged] == [row["prompt"] for row in ROWS]
    assert judged[0]["judge"]["name"] == "own.py:of_both" and len(judged[0]["judge"]["source"]) == 64
    assert "6 of 6 answers in 3 rows have a reward" in capsys.readouterr().out


def test_it_goes_on_where_it_stopped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "CHUNK", 1)
    assert judge("own.py:of_both") == 0
    whole = Path("judged.jsonl").read_bytes()
    first, second, _ = whole.splitlines(keepends=True)
    # A line that a crash cut is judged again.
    Path("judged.jsonl").write_bytes(first + second[:30])
    capsys.readouterr()
    assert judge("own.py:of_both") == 0
    assert Path("judged.jsonl").read_bytes() == whole
    assert "1 of 3 rows are in judged.jsonl already" in capsys.readouterr().out
    assert judge("own.py:of_both") == 0 and Path("judged.jsonl").read_bytes() == whole


def test_what_was_written_before_a_failure_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "CHUNK", 1)
    Path("own.py").write_text("def f(answer):\n    return 1 / (answer != 'thus')\n")
    assert judge("own.py:f") == 1
    said = capsys.readouterr().err
    assert "own.py, line 2" in said and "'thus'" in said and "among the rows b to b" in said
    assert [row["id"] for row in lines()] == ["a"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: Path("own.py").write_text(OWN + "\n"), "was judged by `own.py:of_both` with"),
        (lambda: Path("answers.jsonl").write_text(json.dumps({**ROWS[0], "prompt": "Who?"})), "other answers than"),
        (lambda: Path("answers.jsonl").write_text(json.dumps(ROWS[1])), "no row in"),
    ],
)
def test_a_file_of_another_judge_or_of_other_answers_is_not_gone_on_with(
    change: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge("own.py:of_both") == 0
    before = Path("judged.jsonl").read_bytes()
    change()
    assert judge("own.py:of_both") == 2
    assert said in capsys.readouterr().err and Path("judged.jsonl").read_bytes() == before


def test_judged_answers_can_be_judged_anew_into_another_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert judge("own.py:of_both") == 0
    assert main(["judge", "judged.jsonl", "--output", "again.jsonl", "--judge", "vader"]) == 0
    assert "3 of 3 rows have been judged before" in capsys.readouterr().out
    assert {row["judge"]["name"] for row in lines("again.jsonl")} == {"vader"}
    assert main(["judge", "judged.jsonl", "--output", "judged.jsonl", "--judge", "vader"]) == 2
    assert "is the file of the answers itself" in capsys.readouterr().err


def test_a_language_model_compares_every_pair(capsys: pytest.CaptureFixture[str]) -> None:
    with served(longer) as server:
        words = [
            server.address,
            "--model",
            "m",
            "--price-prompt",
            "3",
            "--price-completion",
            "15",
            "--report",
            "r.json",
        ]
        assert judge(*words) == 0
        assert len(server.asked) == 2 * (3 + 1)
        account = json.loads(Path("r.json").read_text())
        Path("judged.jsonl").unlink()
        assert judge(*words) == 0, "and a second time it asks nothing"
        assert len(server.asked) == 8
    assert rewards() == [[1.0, 0.0, 0.5], [0.0, 1.0], [None]]
    judged = lines()
    assert judged[0]["compared"] == [
        {"first": 0, "second": 1, "wins": 1.0},
        {"first": 0, "second": 2, "wins": 1.0},
        {"first": 1, "second": 2, "wins": 0.0},
    ]
    assert judged[2]["answers"][0]["why"] == "there is no other answer to compare it with"
    assert judged[0]["judge"]["model"] == "m" and judged[0]["judge"]["address"] == server.address
    assert (account["failed"], account["comparisons"], account["disagreements"]) == (1, 4, 0)
    assert account["requests"]["asked"] == 8 and account["requests"]["prompt_tokens"] == 80
    out = capsys.readouterr().out
    assert "That cost 0.0005 by the prices given." in out and "1 answers have none" in out
    for path in Path().rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert KEY not in out


def test_failed_comparisons_are_told_and_all_of_them_failing_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def some(body: dict[str, Any], number: int) -> Answered:
        return (400, {}, "too long") if "short" in texts_of(body) else longer(body, number)

    with served(some) as server:
        assert judge(server.address, "--model", "m", "--report", "r.json") == 0
    # The mean of what is left would be of other opponents than those of the other answers.
    assert rewards()[0] == [None, None, None]
    assert {answer["why"] for answer in lines()[0]["answers"]} == {"HTTP 400 Bad Request: too long"}
    assert lines()[0]["compared"] == [{"first": 0, "second": 2, "wins": 1.0}]
    account = json.loads(Path("r.json").read_text())
    assert (account["failed_pairs"], account["comparisons"], account["disagreements"]) == (2, 2, 0)
    assert "2 comparisons failed" in capsys.readouterr().out
    Path("judged.jsonl").unlink()
    with served(lambda body, number: completion("both are good")) as server:
        assert judge(server.address, "--model", "m") == 1
    err = capsys.readouterr().err
    assert "could not judge a single answer: the reply is not understood: 'both are good'" in err


def test_only_answers_whose_comparisons_failed_have_no_reward() -> None:
    four = {"id": "d", "prompt": "Who?", "answers": ["one", "four", "three", "eleven"]}
    Path("answers.jsonl").write_text(json.dumps(four) + "\n")

    def some(body: dict[str, Any], number: int) -> Answered:
        return (400, {}, "no") if set(texts_of(body)) == {"one", "four"} else longer(body, number)

    with served(some) as server:
        assert judge(server.address, "--model", "m") == 0
    assert rewards() == [[None, None, 2 / 3, 1.0]]


def test_pairs_of_one_text_are_no_comparisons() -> None:
    Path("answers.jsonl").write_text(json.dumps({"id": "d", "prompt": "Who?", "answers": ["one", "one", "two"]}) + "\n")
    with served(lambda body, number: completion("A")) as server:
        assert judge(server.address, "--model", "m", "--report", "r.json") == 0
    account = json.loads(Path("r.json").read_text())
    assert (account["comparisons"], account["disagreements"], account["for_first_place"]) == (2, 2, 2)


def test_rows_with_comparisons_that_failed_are_judged_anew(capsys: pytest.CaptureFixture[str]) -> None:
    broken = [True]

    def some(body: dict[str, Any], number: int) -> Answered:
        return (400, {}, "no") if broken[0] and "short" in texts_of(body) else longer(body, number)

    with served(some) as server:
        assert judge(server.address, "--model", "m") == 0
        kept = Path("judged.jsonl").read_bytes().splitlines()[1:]
        broken[0] = False
        capsys.readouterr()
        assert judge(server.address, "--model", "m") == 0
        said, asked = capsys.readouterr().out, len(server.asked)
        assert "1 rows in judged.jsonl have comparisons that failed, and are judged anew" in said
        assert "2 of 3 rows are in judged.jsonl already" in said
        whole = Path("judged.jsonl").read_bytes()
        assert whole.splitlines()[:2] == kept, "the other lines stay as they are"
        assert rewards() == [[0.0, 1.0], [None], [1.0, 0.0, 0.5]]
        assert judge(server.address, "--model", "m") == 0
        assert len(server.asked) == asked and Path("judged.jsonl").read_bytes() == whole


def test_people_by_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    said = [
        {"id": "a", "first": 0, "second": 1, "winner": 0, "by": "ann"},
        {"id": "a", "first": 0, "second": 1, "winner": "tie", "by": "bob"},
        {"id": "b", "rewards": [1, None]},
        {"id": "z", "rewards": [1]},
    ]
    Path("said.jsonl").write_text("\n".join(map(json.dumps, said)))
    assert judge("labels:said.jsonl") == 0
    assert rewards() == [[0.75, 0.25, None], [1.0, None], [None]]
    assert lines()[0]["compared"] == [{"first": 0, "second": 1, "wins": 0.75}]
    out = capsys.readouterr().out
    assert "1 of 3 rows have no labels: c." in out and "1 ids in said.jsonl are of no row: z." in out


def test_a_judge_is_judged_by_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"p{n}", "chosen": "aa" if n % 4 else "a", "rejected": "b" * (1 + n % 2)} for n in range(8)]
    Path("pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    Path("own.py").write_text("def length(answer):\n    return len(answer)\n")
    assert main(["judge", "--pairs", "pairs.jsonl", "--judge", "own.py:length", "--report", "trust.json"]) == 0
    record = json.loads(Path("trust.json").read_text())
    found = record["trust"]
    # n even, not a fourth: 2 against 1, agreed (2); n a fourth: 1 against 1 (2 ties); n odd: 2 against 2 (4 ties).
    assert (found["pairs"], found["ties"], found["failed"]) == (8, 6, 0)
    assert found["agreement"]["mean"] == (2 + 3) / 8 and found["agreement"]["clusters"] == 8
    assert found["length"]["longer"] == 2 and found["length"]["shorter"] == 0 and found["position"] is None
    assert len(record["pairs"]) == 8 and record["read"] == 8
    out = capsys.readouterr().out
    assert "agrees with the labels: 62.5% (95% interval" in out and "where it is shorter (0): there are none" in out
    assert main(["judge", "--pairs", "pairs.jsonl", "--judge", "own.py:length", "--limit", "3"]) == 0
    assert "3 drawn" in capsys.readouterr().out


def test_a_judge_that_goes_by_place_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"p{n}", "chosen": f"yes {n}", "rejected": "no"} for n in range(4)]
    Path("pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with served(lambda body, number: completion("A")) as server:
        assert main(["judge", "--pairs", "pairs.jsonl", "--judge", server.address, "--model", "m"]) == 0
    out = capsys.readouterr().out
    assert "agrees with the labels: 50%" in out and "4 ties" in out
    assert "in both orders it says the same of 0 of 4 pairs" in out
    assert "of the others in favour of what stands first (4): 100% (95% interval" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name the answers, the judge and where to write"),
        (["answers.jsonl", "--output", "o.jsonl"], "say who judges: --judge WORD"),
        (["answers.jsonl", "--judge", "vader"], "say where the judged answers go"),
        (["--judge", "vader", "--output", "o.jsonl"], "name the answers"),
        (["answers.jsonl", "--pairs", "p", "--judge", "vader"], "answers (answers.jsonl) have no place beside --pairs"),
        (["--pairs", "p", "--judge", "vader", "--output", "o"], "--output (o) have no place"),
        (["answers.jsonl", "--judge", "vader", "--output", "o.jsonl", "--limit", "3"], "--limit has no effect"),
        (["answers.jsonl", "--judge", "vadr", "--output", "o.jsonl"], "Did you mean `vader`?"),
        (["answers.jsonl", "--judge", "vader", "--output", "o.jsonl", "--label", "x"], "--label has no effect"),
        (["answers.jsonl", "--judge", "vader", "--output", "o.jsonl", "--price-prompt", "1"], "belong together"),
        (["answers.jsonl", "--judge", "vader", "--outptu", "o.jsonl"], "there is no option `--outptu`"),
        (
            ["answers.jsonl", "--judge", "vader", "--output", "o.jsonl", "--report", "no/r.json"],
            "there is no folder no",
        ),
        (["--pairs", "demo", "--judge", "vader", "--limit", "0"], "--limit must be at least 1"),
        (["answers.jsonl", "--judge", "http://me:pw@host/v1", "--model", "m", "--output", "o"], "more than a place"),
    ],
)
def test_what_is_missing_or_has_no_effect_is_said(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["judge", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and ":pw@" not in err
    assert not Path("o.jsonl").exists()


def test_the_demos_pairs_agree_with_the_judge_that_they_were_made_by(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", "--pairs", "demo", "--judge", "vader"]) == 0
    assert "agrees with the labels: 100% (95% interval 97" in capsys.readouterr().out


def test_replies_are_listed_and_cleared(capsys: pytest.CaptureFixture[str]) -> None:
    with served(longer) as server:
        assert judge(server.address, "--model", "m") == 0
        assert main(["cache"]) == 0
        assert f"m at {server.address}: 8 replies" in capsys.readouterr().out
        assert main(["cache", "--clear", "replies"]) == 0
        assert not list(Path("cache/replies").iterdir())
