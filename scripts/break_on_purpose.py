"""Puts the faults that docs/reliability.md lists into a copy of the program, and has its tests find them.

    python scripts/break_on_purpose.py                 every fault: some minutes
    python scripts/break_on_purpose.py boundary eos    these alone

A test that passes on the broken copy proves nothing; the exit code is then 1. The checkout itself is not touched.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

IMPORTED_ONCE = (torch, AutoModelForCausalLM, AutoTokenizer)
"""What takes long to import, and is here so that each fork has it."""
ROOT = Path(__file__).resolve().parents[1]
SOURCES = Path("src") / "tiltlm"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: in `file`, `found` (which stands there once) becomes `broken`. Each of the tests must fail."""

    name: str
    file: str
    found: str
    broken: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "boundary",
        "data/tokens/token_ids.py",
        "next((i for i, (_, end) in enumerate(offsets) if end > len(example.prompt)), len(ids))",
        "len(self.tokenizer(example.prompt, add_special_tokens=False).input_ids)",
        (
            "tests/data/test_tokenization.py::test_a_text_is_tokenized_as_a_whole_and_a_token_across_the_border_is_scored",
        ),
    ),
    Fault(
        "first-token-lost",
        "data/tokens/token_ids.py",
        "starts.append(start + len(complete) - len(ids))",
        "starts.append(start + 1 + len(complete) - len(ids))",
        (
            "tests/data/test_tokenization.py::test_a_text_is_tokenized_as_a_whole_and_a_token_across_the_border_is_scored",
        ),
    ),
    Fault(
        "bos-twice",
        "data/tokens/token_ids.py",
        "if self.adds_bos and not self.starts_with_bos(ids):",
        "if self.adds_bos:",
        (
            "tests/data/test_tokenization.py::test_exactly_one_bos_where_the_model_wants_one",
            "tests/data/test_tokenization.py::test_exactly_one_bos_whether_or_not_the_template_writes_it",
        ),
    ),
    Fault(
        "bos-twice-when-asked",
        "data/tokens/token_ids.py",
        "return self._with_bos(self.tokenizer(text, add_special_tokens=False).input_ids)",
        "return self.tokenizer(text).input_ids",
        ("tests/data/test_tokenization.py::test_a_prompt_is_answered_as_it_was_trained",),
    ),
    Fault(
        "eos",
        "data/tokens/token_ids.py",
        "return [*ids, self._eos] if len(ids) > start else ids",
        "return ids",
        ("tests/data/test_tokenization.py::test_exactly_one_eos_ends_a_completion",),
    ),
    Fault(
        "pad-is-eos",
        "data/tokens/token_ids.py",
        "        if not self._appends_eos:\n",
        "        if not self._appends_eos or self.tokenizer.pad_token_id == self._eos:\n",
        ("tests/data/test_tokenization.py::test_a_padding_token_that_is_the_eos_changes_nothing",),
    ),
    Fault(
        "no-gradient-for-padding",
        "model/weights.py",
        "        embeddings.padding_idx = None\n",
        "        pass\n",
        (
            "tests/test_field_threads.py"
            "::test_the_end_of_an_earlier_answer_has_a_gradient_though_it_is_the_padding_token",
        ),
    ),
    Fault(
        "ipo-sums",
        "objectives/ipo.py",
        "sides(log_ratios_N / scored.tokens_N)",
        "sides(log_ratios_N)",
        ("tests/objectives/test_ipo.py::test_worked_by_hand", "tests/objectives/test_peers.py::test_ipo"),
    ),
    Fault(
        "ipo-over-the-row",
        "plan/packing.py",
        "tokens_N=torch.from_numpy(counts),",
        "tokens_N=torch.from_numpy(np.full_like(counts, counts.sum())),",
        ("tests/training/test_losses.py::test_the_gradient_is_that_of_the_oracle",),
    ),
    Fault(
        "sides-cut-apart",
        "data/tokens/fitting.py",
        "whole = [ids[: uncut.bos] + ids[uncut.bos + cut :] for ids in uncut.ids]",
        "whole = [ids if len(ids) <= self.config.max_length else ids[: uncut.bos] + ids[uncut.bos + cut :] "
        "for ids in uncut.ids]",
        ("tests/data/test_tokenization.py::test_one_long_side_cuts_both_alike",),
    ),
    Fault(
        "nothing-scored",
        "data/tokens/token_ids.py",
        "if any(len(ids) <= start for ids, start in zip(ids_of, starts, strict=True)):",
        "if False:",
        ("tests/data/test_tokenization.py::test_completions_without_tokens_are_dropped",),
    ),
    Fault(
        "accumulation-by-batches",
        "training/losses.py",
        "(losses.output.losses_U.sum() / units).backward()",
        "(losses.output.losses_U.mean() / len(plan.micro_batches)).backward()",
        (
            "tests/training/test_losses.py::test_micro_batches_have_the_gradient_of_one",
            "tests/test_field_threads.py::test_a_row_says_the_same_whatever_the_micro_batches",
        ),
    ),
    Fault(
        "metrics-summed",
        "training/metrics.py",
        "values = torch.cat([total / self.units, *scalars]).tolist()",
        "values = torch.cat([total / self.units * len(self._rows), *scalars]).tolist()",
        ("tests/test_field_threads.py::test_a_row_says_the_same_whatever_the_micro_batches",),
    ),
    Fault(
        "gradient-norm-scaled",
        "training/loop.py",
        "means, (gradient_norm,) = sums.means(norm)",
        "means, (gradient_norm,) = sums.means(norm * len(planned.micro_batches))",
        ("tests/test_field_threads.py::test_a_row_says_the_same_whatever_the_micro_batches",),
    ),
    Fault(
        "dropout",
        "model/weights.py",
        "    model.eval()\n",
        "    model.train()\n",
        ("tests/test_field_threads.py::test_dropout_is_off_for_policy_and_reference",),
    ),
    Fault(
        "reference-in-another-type",
        "pipeline/referencing.py",
        "own = _Pass(setup, reference, setup.precision, folder, reporter)",
        "own = _Pass(setup, reference, torch.float32, folder, reporter)",
        (
            "tests/test_field_threads.py::test_before_the_first_step_rewards_are_nothing_and_the_loss_is_ln_2[bfloat16-0.0002]",
        ),
    ),
    Fault(
        "adapter-off",
        "pipeline/referencing.py",
        "        require_vocabulary(setup, reference, data)\n    seen, float32 = ",
        "        require_vocabulary(setup, reference, data)\n"
        "    elif policy.adapter is not None:\n"
        "        import dataclasses\n        from tiltlm.model.adapters import load_scorer\n"
        "        bare = dataclasses.replace(setup.source, adapter=None)\n"
        "        reference = load_scorer(bare, setup.device, setup.base)\n"
        "    seen, float32 = ",
        ("tests/test_adapter_runs.py::test_an_adapter_is_gone_on_with_and_is_its_own_reference",),
    ),
    Fault(
        "reference-of-other-weights",
        "model/reference.py",
        'digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + own)\n',
        'digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())\n',
        ("tests/model/test_reference.py::test_fingerprint_follows_weights_and_configuration",),
    ),
    Fault(
        "cache-unused",
        "model/reference.py",
        "                    missing[number] = False\n",
        "",
        (
            "tests/model/test_reference.py::test_only_what_is_missing_is_computed_and_survives_the_process",
            "tests/test_field_threads.py::test_another_run_on_the_same_model_and_pairs_computes_no_reference_value_again",
        ),
    ),
    Fault(
        "held-out-cache-lost",
        "pipeline/referencing.py",
        "        joined = [cache.join(columns) for columns in parts]\n        lacking",
        "        if len(parts[-1]) == 4:\n            cache._connection.execute('DELETE FROM token_logps')\n"
        "        joined = [cache.join(columns) for columns in parts]\n        lacking",
        (
            "tests/test_field_threads.py::test_another_run_on_the_same_model_and_pairs_computes_no_reference_value_again",
        ),
    ),
    Fault(
        "logits-kept",
        "model/head.py",
        "            if room >= 0:\n",
        "            if True:\n",
        ("tests/model/test_head.py::test_what_is_kept_of_logits_is_bounded",),
    ),
    Fault(
        "two-models",
        "pipeline/referencing.py",
        "    reference = policy\n",
        "    reference = policy\n    policy.spare = load_model(setup.source, setup.device)\n",
        ("tests/test_field_threads.py::test_while_it_trains_there_is_one_model",),
    ),
    Fault(
        "evaluation-at-once",
        "training/losses.py",
        "        if not objective.needs.coupled:\n",
        "        if False:\n",
        ("tests/training/test_losses.py::test_held_out_examples_are_on_the_device_a_micro_batch_at_a_time",),
    ),
    Fault(
        "budget-burst",
        "plan/packing.py",
        "if len(group) == 1 or len(rows) * longest <= token_budget:",
        "if True:",
        ("tests/plan/test_packing.py::test_pairs_of_one_prompt_do_not_burst_the_budget",),
    ),
    Fault(
        "option-ignored",
        "training/optimization.py",
        "parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True",
        "parameters, lr=config.learning_rate, fused=True",
        ("tests/test_field_threads.py::test_every_option_is_read_by_the_program",),
    ),
    Fault(
        "effectless-option-taken",
        "config/validation.py",
        "    if not holds:\n",
        "    if False and not holds:\n",
        ("tests/test_config.py::test_an_option_without_effect_is_refused",),
    ),
    Fault(
        "seed-unused",
        "plan/steps.py",
        "np.random.default_rng([self.seed, epoch])",
        "np.random.default_rng()",
        (
            "tests/plan/test_steps.py::test_a_step_is_known_by_its_number_alone",
            "tests/training/test_loop.py::test_same_seed_same_trace",
        ),
    ),
    Fault(
        "order-after-resuming",
        "plan/steps.py",
        "            self._pass = epoch\n            self._permutation = np.random.default_rng([self.seed, epoch])",
        "            fresh, self._pass = self._pass == -1, epoch\n"
        "            self._permutation = np.random.default_rng([self.seed, 0 if fresh else epoch])",
        (
            "tests/plan/test_steps.py::test_a_step_is_known_by_its_number_alone",
            "tests/training/test_state.py::test_training_goes_on_as_if_it_had_never_stopped",
        ),
    ),
    Fault(
        "last-examples-dropped",
        "plan/steps.py",
        "        return math.ceil(self.examples / self.batch)",
        "        return self.examples // self.batch",
        ("tests/plan/test_steps.py::test_a_pass_uses_every_example_once",),
    ),
    Fault(
        "logits-rounded",
        "model/head.py",
        "        logits = product(hidden, weight.T, self.dtype)\n",
        "        logits = product(hidden, weight.T, self.dtype).to(self.dtype).float()\n",
        ("tests/model/test_head.py::test_bfloat16_factors_give_float32_logits",),
    ),
    Fault(
        "positions-by-column",
        "model/scorer.py",
        '"position_ids": batch.positions_RL}',
        '"position_ids": torch.arange(batch.positions_RL.shape[1])[None]}',
        ("tests/model/test_architectures.py::test_log_probabilities_and_gradients_equal_the_oracle",),
    ),
    Fault(
        "header-behind-answers",
        "data/tokens/rendering.py",
        "self.template.render((*prompt, *answer), example.tools) for answer in answers",
        "self.template.render((*prompt, *answer), example.tools, ask=True) for answer in answers",
        ("tests/data/test_templates.py::test_prompt_and_completion_are_what_the_template_writes",),
    ),
    Fault(
        "system-ignored",
        "data/formats/context.py",
        "    if is_empty(system):\n",
        "    if True:\n",
        ("tests/data/test_columns.py::test_a_system_column_becomes_a_system_turn",),
    ),
    Fault(
        "steps-by-epochs-alone",
        "training/loop.py",
        "return training.max_steps or training.epochs *",
        "return training.epochs *",
        ("tests/training/test_loop.py::test_max_steps_goes_round_the_data",),
    ),
    Fault(
        "same-bits",
        "model/scorer.py",
        "F.embedding(batch.score_at_S, hidden_RLD.flatten(0, 1))",
        "hidden_RLD.flatten(0, 1)[batch.score_at_S]",
        ("tests/training/test_repetition.py::test_a_gradient_has_the_same_bits_where_many_answers_share_a_prompt",),
    ),
)


def run_tests(copy: Path, test: str, output: Path) -> None:
    """Runs one test of the copy, in a process of its own, and exits as pytest does."""
    with output.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(copy)
    os._exit(int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", test])))


def survivors(fault: Fault, copy: Path) -> list[str]:
    """The tests that pass on a copy with the fault in it. The copy is mended again."""
    file = copy / SOURCES / fault.file
    text = file.read_text(encoding="utf-8")
    if text.count(fault.found) != 1:
        raise SystemExit(f"{fault.name}: the code to break is not in {fault.file} once, so change the fault.")
    file.write_text(text.replace(fault.found, fault.broken), encoding="utf-8")
    passed, output = [], copy / "output.txt"
    for test in fault.tests:
        # A fork has PyTorch already, but no module of the program's.
        process = multiprocessing.get_context("fork").Process(target=run_tests, args=(copy, test, output))
        process.start()
        process.join()
        if process.exitcode not in (0, 1):
            raise SystemExit(f"{fault.name}: {test} did not run: {output.read_text(encoding='utf-8')[-3000:]}")
        if process.exitcode == 0:
            passed.append(test)
    file.write_text(text, encoding="utf-8")
    return passed


def main(names: list[str]) -> int:
    """Says of every fault whether it was found."""
    code = 0
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for name in ("src", "tests", "theory", "configs"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(ROOT / "pyproject.toml", copy / "pyproject.toml")
        for fault in FAULTS:
            if names and fault.name not in names:
                continue
            passed = survivors(fault, copy)
            code |= bool(passed)
            print(f"{fault.name:28} {'found' if not passed else f'NOT FOUND by {passed}'}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
