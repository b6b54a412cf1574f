"""Freed memory is kept, and lies in large pages where the system has them; asked of a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_folders import save_tiny

from tiltlm.config import HubConfig
from tiltlm.model.finding import find_model
from tiltlm.model.weights import load_model

SOURCES = Path(__file__).parents[2] / "src"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")

ASKED = """
import re, resource
import torch
from tiltlm.model.kept_memory import keep_memory

torch.set_num_threads(1)
keep_memory()
def faults(elements):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(elements)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(50_000_000)
print(faults(50_000_000))
tensor = torch.ones(50_000_000)
place = tensor.data_ptr() + 100_000_000
flags = ""
for part in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", open("/proc/self/smaps").read())[1:]:
    first, last = (int(end, 16) for end in part.split(" ")[0].split("-"))
    if first <= place < last:
        flags = part[part.index("VmFlags:"):]
print("hg" in flags.split())
"""


def asked(**environment: str) -> list[str]:
    given = {**os.environ, "PYTHONPATH": str(SOURCES), **environment}
    done = subprocess.run([sys.executable, "-c", ASKED], env=given, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_what_is_freed_is_kept_in_large_pages() -> None:
    faults, large = asked()
    assert int(faults) < 1000, "200 MB are 50,000 pages of 4 KiB"
    choice = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    assert large == str(choice.exists()), "the system is asked for large pages where it has them"


def test_where_the_environment_says_how_malloc_behaves_nothing_is_done() -> None:
    faults, large = asked(MALLOC_TRIM_THRESHOLD_="1000000")
    assert int(faults) > 10_000
    assert large == "False"


def test_loaded_weights_are_not_pages_of_their_file(tmp_path: Path) -> None:
    model = load_model(find_model(str(save_tiny(tmp_path / "model")), HubConfig()), torch.device("cpu"))
    for line in Path("/proc/self/maps").read_text().splitlines():
        ends, name = line.split(" ", 1)
        first, last = (int(end, 16) for end in ends.split("-"))
        if name.endswith(".safetensors"):
            assert not any(first <= own.data_ptr() < last for own in model.parameters())
