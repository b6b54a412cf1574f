"""Times TRL's DPOTrainer on tokenized pairs: a script for the interpreter of an environment that has TRL.

It imports nothing of this program, which that environment need not have: a job comes as a JSON file, and what was
measured goes into another. Gradient checkpointing, which TRL turns on by default and which costs it about a fifth of
its speed, is on only where our training recomputes too.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main(job_file: str, result_file: str) -> None:
    """Trains as the job says, and writes what it took."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    Path(result_file).write_text(json.dumps({"timed": measured(job)}), encoding="utf-8")


def measured(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds and loss of each step, peak memory, and the versions of the environment."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOTrainer

    class OfTokens(DPOTrainer):  # type: ignore[misc]
        """Takes pairs that are tokenized already: the very tokens of the other systems."""

        def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
            return dataset

    source = {"local_files_only": job["local_files_only"], "trust_remote_code": job["trust_remote_code"]}
    tokenizer = AutoTokenizer.from_pretrained(job["model"], **source)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32, use_safetensors=True, **source)
    pairs = [json.loads(line) for line in Path(job["pairs"]).read_text(encoding="utf-8").splitlines()]
    rows = [{f"{part}_ids": pair[part] for part in ("prompt", "chosen", "rejected")} for pair in pairs]
    clock = clock_for(torch)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = OfTokens(
            model=model,
            args=arguments(job, scratch),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
    on_gpu = job["device"] == "cuda"
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else peak_resident_gib()
    return {
        "step_seconds": [end - start for start, end in zip(clock.ends, clock.ends[1:], strict=False)],
        "losses": clock.losses,
        "peak_gib": peak,
        "versions": {name: importlib.metadata.version(name) for name in ("trl", "torch", "transformers")},
    }


def arguments(job: dict[str, Any], scratch: str) -> Any:
    """TRL's settings for the job."""
    from trl import DPOConfig

    return DPOConfig(
        output_dir=scratch,
        per_device_train_batch_size=job["batch"],
        max_steps=job["steps"],
        beta=job["beta"],
        learning_rate=job["learning_rate"],
        weight_decay=job["weight_decay"],
        max_grad_norm=job["gradient_clip"],
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        bf16=job["precision"] == "bfloat16",
        use_cpu=job["device"] == "cpu",
        gradient_checkpointing=job["recompute"],
        max_length=None,  # the pairs were fitted already
        precompute_ref_log_probs=job["precompute"],
        train_sampling_strategy="sequential",
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        seed=job["seed"],
    )


def clock_for(torch: Any) -> Any:
    """A callback that keeps when each step ended, and its loss."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []
            self.losses: list[float] = []

        def on_train_begin(self, *_: object, **__: object) -> None:
            self.ends.append(time.perf_counter())

        def on_step_end(self, *_: object, **__: object) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

        def on_log(self, *_: object, logs: dict[str, Any] | None = None, **__: object) -> None:
            if logs and "loss" in logs:
                self.losses.append(float(logs["loss"]))

    return Clock()


def peak_resident_gib() -> float:
    """The program's largest resident memory."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    import resource  # which Windows lacks

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


if __name__ == "__main__":
    main(*sys.argv[1:])
