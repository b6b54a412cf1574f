"""The naive loop, timed: `naive_loop.py` with an optimizer and a clock around it."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import torch

from tiltlm.bench.job import Job, read_pairs
from tiltlm.bench.matrix_peak import wait_for
from tiltlm.bench.naive_loop import naive_loss
from tiltlm.bench.own_training import peak_gib
from tiltlm.bench.speed_record import Timed
from tiltlm.model.loading import autocast, checkpoint_activations
from tiltlm.model.weights import load_model
from tiltlm.pipeline.setup import set_up


def naive_training(job: Job) -> Timed:
    """Times the naive loop."""
    setup = set_up(job.config)
    training, beta = setup.config.training, setup.config.loss.beta
    policy = load_model(setup.source, setup.device)
    reference = copy.deepcopy(policy).requires_grad_(False)
    if training.activation_checkpointing:
        checkpoint_activations(policy)
    columns = read_pairs(Path(job.pairs))
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
    )
    assert beta is not None
    seconds, losses = [], []
    start = time.perf_counter()
    for step in range(job.steps):
        with autocast(setup.device, setup.precision, keep=True):
            loss = naive_loss(policy, reference, [columns[int(number)] for number in job.examples(step)], beta)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), training.gradient_clip or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        wait_for(setup.device)
        end = time.perf_counter()
        seconds.append(end - start)
        start = end
    return Timed(tuple(seconds), tuple(losses), 0.0, peak_gib(setup.device))
