"""A judge behind `transformers serve` with the embedded model: a server that tiltlm did not write."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.utils.import_utils import is_serve_available

from tiltlm.config.judge_words import judge_word
from tiltlm.judges.chat_requests import ChatAddress, Patience
from tiltlm.judges.judge_interface import Asked
from tiltlm.judges.language_model import Asking, LanguageModel
from tiltlm.model.embedded import embedded_model

pytestmark = pytest.mark.skipif(
    not is_serve_available(), reason='transformers serve needs fastapi and openai: pip install "transformers[serving]"'
)
_SERVE = "from transformers.cli.transformers import main; main()"
_STARTS_WITHIN = 120.0


@pytest.fixture(scope="module")
def model() -> Path:
    return embedded_model()


@pytest.fixture(scope="module")
def address(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    words = [sys.executable, "-c", _SERVE, "serve", str(model), "--port", str(port), "--host", "127.0.0.1"]
    with log.open("wb") as output:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen([*words, "--device", "cpu"], stdout=output, stderr=output, env=environment)
        try:
            begun = time.monotonic()
            while not _answers(f"http://127.0.0.1:{port}/health"):
                late = time.monotonic() - begun > _STARTS_WITHIN
                assert process.poll() is None and not late, log.read_text(errors="replace")[-2000:]
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # of another path, but it is there
    except OSError:
        return False


def test_it_judges_in_both_orders_and_counts_tokens(address: str, model: Path, tmp_path: Path) -> None:
    """What so small a model says is its own affair; that it is asked, understood or counted, and kept is ours."""
    pairs = [
        (Asked("What is 2 + 2?", None, "It is 4."), Asked("What is 2 + 2?", None, "No idea, leave me alone.")),
        (Asked("Name a colour.", None, "Blue."), Asked("Name a colour.", None, "Blue.")),
    ]
    outcomes = []
    for _ in range(2):
        place = ChatAddress(address, None, Patience(2, 120.0))
        judge = LanguageModel(judge_word(address), Asking(str(model), at_once=1), place, cache_folder=tmp_path)
        outcomes.append(judge.both_orders(pairs))
        if len(outcomes) == 1:
            assert judge.account.asked == 2 and judge.account.failed == 0
            assert judge.account.prompt_tokens > 100 and 2 <= judge.account.completion_tokens <= 32
            assert judge.account.uncounted == 0
    assert judge.account.asked == 0 and judge.account.cached == 2 and outcomes[0] == outcomes[1]
    asked, same = outcomes[0]
    assert same.verdict == 0.5
    assert (asked.verdict is None) == (judge.account.not_understood > 0) == (asked.why is not None)
