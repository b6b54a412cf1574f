"""What of ours is compared with what of whom: losses of the same name or meaning, and where definitions differ, how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from halos_losses import halos, halos_kto
from peer_losses import (
    Batch,
    Loss,
    each,
    liger_cpo,
    liger_dpo,
    liger_kto,
    liger_orpo,
    liger_simpo,
    ours,
    trl_cpo,
    trl_dpo,
    trl_kto,
    trl_orpo,
)
from torch import Tensor

from tiltlm.objectives import OBJECTIVES

EXACT = 1e-9
FLOAT32 = 1e-5


@dataclass(frozen=True, slots=True)
class Comparison:
    """One of our objectives beside a peer's.

    peer, call: whose, and what of theirs is run. ours, theirs: losses that are to be equal, or that differ as said.
    within: how near they are to be, relative to 1 or to the value, whichever is larger.
    differs: where definitions differ, the difference; and `mended` gives theirs with that difference undone.
    note: what else is to be known, such as why they are less near than float64 would have them.
    """

    objective: str
    peer: str
    call: str
    ours: Loss
    theirs: Loss
    within: float = EXACT
    differs: str = ""
    mended: Loss | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """For tests and records."""
        return f"{self.objective}: {self.peer}, {self.call}"

    @property
    def there(self) -> bool:
        """Whether this version has the objective."""
        return self.objective in OBJECTIVES


def _ours(name: str, **settings: Any) -> Loss:
    return lambda batch, beta: ours(name, batch, beta=beta, **settings)


def _ours_mean(name: str, **settings: Any) -> Loss:
    return lambda batch, beta: ours(name, batch, beta=beta, **settings).mean()


def _trl(*kinds: str, **arguments: Any) -> Loss:
    """TRL's DPOTrainer, pair by pair."""
    return each(lambda pair, beta: trl_dpo(pair, loss_type=list(kinds), beta=beta, **arguments))


def _trl_mean(*kinds: str, **arguments: Any) -> Loss:
    return lambda batch, beta: trl_dpo(batch, loss_type=list(kinds), beta=beta, **arguments)


def _micro_batches(loss: Loss) -> Loss:
    """The mean over two micro-batches, each computed by itself, as by gradient accumulation."""

    def halves(batch: Batch, beta: float) -> Tensor:
        middle = len(batch) // 2
        return (loss(batch.part(0, middle), beta) + loss(batch.part(middle, 2 * middle), beta)) / 2

    return halves


def _whole(loss: Loss) -> Loss:
    """The loss of as many pairs as both micro-batches have."""
    return lambda batch, beta: loss(batch.part(0, 2 * (len(batch) // 2)), beta)


def _float32(loss: Loss) -> Loss:
    return lambda batch, beta: loss(batch.to(torch.float32), beta).double()


def _twice(loss: Loss) -> Loss:
    return lambda batch, beta: loss(batch, beta) / 2


_LOGARITHMS = "theirs takes the logarithm of label_smoothing in float32"
_SORTS = "sorts the pairs of a micro-batch; ours those of the whole step"
_SAME_NAMES = ("hinge", "ipo", "nca_pair", "bco_pair", "apo_zero", "apo_down", "sigmoid_norm")

TRL = [
    Comparison("sigmoid", "TRL", "DPOTrainer, sigmoid", _ours("sigmoid"), _trl("sigmoid")),
    Comparison(
        "sigmoid",
        "TRL",
        "DPOTrainer, sigmoid with label_smoothing",
        _ours("sigmoid", label_smoothing=0.125),
        _trl("sigmoid", label_smoothing=0.125),
        differs="does not read label_smoothing, and says nothing; ours is conservative DPO",
        mended=lambda batch, beta: (
            0.875 * _trl("sigmoid")(batch, beta) + 0.125 * _trl("sigmoid")(batch.swapped(), beta)
        ),
    ),
    Comparison(
        "sigmoid",
        "TRL",
        "DPOTrainer, sigmoid with forward_kl",
        _ours("sigmoid", divergence="forward_kl"),
        _trl("sigmoid", f_divergence_type="forward_kl"),
        note="compared where log-ratios lie above -20, from where on ours goes on as the tangent",
    ),
    Comparison(
        "sigmoid",
        "TRL",
        "DPOTrainer, sigmoid with js_divergence",
        _ours("sigmoid", divergence="js"),
        _trl("sigmoid", f_divergence_type="js_divergence"),
    ),
    Comparison(
        "sigmoid",
        "TRL",
        "DPOTrainer, sigmoid with alpha_divergence",
        _ours("sigmoid", divergence="alpha", divergence_alpha=0.25),
        _float32(_trl("sigmoid", f_divergence_type="alpha_divergence", f_alpha_divergence_coef=0.25)),
        differs="its coefficient is 1 less the paper's α",
        mended=_float32(_trl("sigmoid", f_divergence_type="alpha_divergence", f_alpha_divergence_coef=0.75)),
        within=FLOAT32,
        note="theirs computes it in float32 and fails on float64",
    ),
    *(Comparison(name, "TRL", f"DPOTrainer, {name}", _ours(name), _trl(name)) for name in _SAME_NAMES),
    Comparison(
        "exo_pair",
        "TRL",
        "DPOTrainer, exo_pair",
        _ours("exo_pair", label_smoothing=0.001),
        _trl("exo_pair", label_smoothing=0.001),
        within=1e-6,
        note=_LOGARITHMS,
    ),
    Comparison(
        "robust",
        "TRL",
        "DPOTrainer, robust",
        _ours("robust", label_smoothing=0.125),
        _trl("robust", label_smoothing=0.125),
    ),
    Comparison(
        "discopop", "TRL", "DPOTrainer, discopop", _ours("discopop", tau=0.05), _trl("discopop", discopop_tau=0.05)
    ),
    Comparison(
        "sppo_hard",
        "TRL",
        "DPOTrainer, sppo_hard",
        _ours("sppo_hard"),
        _trl("sppo_hard"),
        differs="is twice ours: it does not take the mean over a pair's answers, as the paper does",
        mended=_twice(_trl("sppo_hard")),
    ),
    *(
        comparison
        for name in ("aot", "aot_unpaired")
        for comparison in (
            Comparison(name, "TRL", f"DPOTrainer, {name}, one micro-batch", _ours_mean(name), _trl_mean(name)),
            Comparison(
                name,
                "TRL",
                f"DPOTrainer, {name}, two micro-batches",
                _whole(_ours_mean(name)),
                _micro_batches(_trl_mean(name)),
                differs=_SORTS,
                mended=_whole(_trl_mean(name)),
            ),
        )
    ),
    Comparison("ld_dpo", "TRL", "DPOTrainer, ld_alpha", _ours("ld_dpo", alpha=0.25), _trl("sigmoid", ld_alpha=0.25)),
    Comparison(
        "wpo",
        "TRL",
        "DPOTrainer, use_weighting",
        _ours("wpo"),
        _trl("sigmoid", use_weighting=True),
        differs="does not bound the product of the two weights by 1, as the authors' code does",
        mended=lambda batch, beta: _trl("sigmoid")(batch, beta) * _weights(batch, beta).clamp(max=1),
    ),
    Comparison(
        "tr_dpo",
        "TRL",
        "DPOTrainer, sync_ref_model, between two moves",
        _ours("tr_dpo"),
        _trl("sigmoid"),
        note="when and how far the reference moves is compared by no figure here",
    ),
    Comparison(
        "rpo",
        "TRL",
        "DPOTrainer, sigmoid and sft, pair by pair",
        _ours("rpo", nll_weight=0.5),
        _trl("sigmoid", "sft", loss_weights=[1.0, 0.5]),
    ),
    Comparison(
        "rpo",
        "TRL",
        "DPOTrainer, sigmoid and sft, a micro-batch",
        _ours_mean("rpo", nll_weight=0.5),
        _trl_mean("sigmoid", "sft", loss_weights=[1.0, 0.5]),
        differs="divides the imitation by the micro-batch's tokens; ours each answer by its own, as the paper",
        mended=lambda batch, beta: _trl("sigmoid", "sft", loss_weights=[1.0, 0.5])(batch, beta).mean(),
    ),
    Comparison(
        "mpo",
        "TRL",
        "DPOTrainer, sigmoid, bco_pair and sft, pair by pair",
        _ours("mpo"),
        _trl("sigmoid", "bco_pair", "sft", loss_weights=[0.8, 0.2, 1.0]),
        differs="has no shift δ in BCO's part",
        mended=lambda batch, beta: (
            _trl("sigmoid", "sft", loss_weights=[0.8, 1.0])(batch, beta) + 0.2 * _shifted(batch, beta)
        ),
    ),
    Comparison(
        "sft",
        "TRL",
        "DPOTrainer, sft, one micro-batch",
        lambda batch, beta: ours("sft", batch).mean(),
        _trl_mean("sft"),
    ),
    Comparison(
        "sft",
        "TRL",
        "DPOTrainer, sft, two micro-batches",
        _whole(lambda batch, beta: ours("sft", batch).mean()),
        _micro_batches(_trl_mean("sft")),
        differs="divides by the tokens of a micro-batch; ours by those of the whole step",
        mended=_whole(_trl_mean("sft")),
    ),
    Comparison(
        "kto",
        "TRL",
        "KTOTrainer, one micro-batch",
        _ours_mean("kto", desirable_weight=1.25, undesirable_weight=0.75),
        lambda batch, beta: trl_kto(batch, beta, 1.25, 0.75),
    ),
    Comparison(
        "kto",
        "TRL",
        "KTOTrainer, two micro-batches",
        _whole(_ours_mean("kto")),
        _micro_batches(trl_kto),
        differs="takes z over a micro-batch; ours over the whole step",
        mended=_whole(trl_kto),
    ),
    Comparison(
        "simpo",
        "TRL",
        "CPOTrainer.cpo_loss, simpo",
        _ours("simpo", gamma_beta_ratio=0.5),
        lambda batch, beta: trl_cpo(batch, "simpo", beta, simpo_gamma=0.5 * beta),
        note="CPOTrainer adds cpo_alpha, 1 by default, times the imitation of the chosen answer: SimPO has none",
    ),
    Comparison(
        "cpo",
        "TRL",
        "CPOTrainer.cpo_loss, sigmoid",
        _ours("cpo", nll_weight=0.0),
        lambda batch, beta: trl_cpo(batch, "sigmoid", beta),
        note="the imitation apart: CPOTrainer's is the mean over the micro-batch's tokens, the paper's the sum",
    ),
    Comparison(
        "slic",
        "TRL",
        "CPOTrainer.cpo_loss, hinge",
        lambda batch, beta: ours("slic", batch, delta=1 / beta, nll_weight=0.0),
        lambda batch, beta: trl_cpo(batch, "hinge", beta),
        differs="is β times ours, with a margin of 1/β nats",
        mended=lambda batch, beta: trl_cpo(batch, "hinge", beta) / beta,
        note="the imitation apart",
    ),
    Comparison(
        "orpo",
        "TRL",
        "ORPOTrainer.odds_ratio_loss",
        lambda batch, beta: ours("orpo", batch, odds_weight=beta) - ours("orpo", batch, odds_weight=0.0),
        lambda batch, beta: -trl_orpo(batch, beta).double(),
        within=FLOAT32,
        note="the comparison of odds alone; theirs computes it in float32",
    ),
]


def _weights(batch: Batch, beta: float) -> Tensor:
    """The product of WPO's weights in TRL's loss, by which it is DPO's loss there."""
    return (_trl("sigmoid", use_weighting=True)(batch, beta) / _trl("sigmoid")(batch, beta)).detach()


def _shifted(batch: Batch, beta: float) -> Tensor:
    """BCO's loss of pairs with δ, the mean reward of the batch, from TRL's without: rewards moved by δ."""
    answers = [*batch.chosen, *batch.rejected]
    delta = torch.stack([(one.policy - one.reference).sum() for one in answers]).mean().detach()

    def moved(side: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(type(one)(one.policy, one.reference + delta / len(one.policy), one.squares) for one in side)

    return _trl("bco_pair")(Batch(moved(batch.chosen), moved(batch.rejected), batch.mismatched), beta)


def _liger(kind: str, **arguments: Any) -> Loss:
    return lambda batch, beta: liger_dpo(batch, loss_type=kind, beta=beta, **arguments)


_PLAIN = ("sigmoid", "hinge", "nca_pair", "bco_pair", "apo_zero", "apo_down")
_LIGER = "LigerFusedLinearDPOFunction"

LIGER = [
    *(Comparison(name, "Liger", f"{_LIGER}, {name}", _ours_mean(name), _liger(name)) for name in _PLAIN),
    Comparison(
        "sigmoid",
        "Liger",
        f"{_LIGER}, sigmoid with label_smoothing",
        _ours_mean("sigmoid", label_smoothing=0.125),
        _liger("sigmoid", label_smoothing=0.125),
        differs="does not read label_smoothing, as TRL; ours is conservative DPO",
        mended=lambda batch, beta: (
            0.875 * _liger("sigmoid")(batch, beta) + 0.125 * _liger("sigmoid")(batch.swapped(), beta)
        ),
    ),
    Comparison(
        "exo_pair",
        "Liger",
        f"{_LIGER}, exo_pair",
        _ours_mean("exo_pair", label_smoothing=0.001),
        _liger("exo_pair", label_smoothing=0.001),
        within=1e-6,
        note=_LOGARITHMS,
    ),
    Comparison(
        "robust",
        "Liger",
        f"{_LIGER}, robust",
        _ours_mean("robust", label_smoothing=0.125),
        _liger("robust", label_smoothing=0.125),
    ),
    Comparison(
        "discopop",
        "Liger",
        f"{_LIGER}, discopop",
        _ours_mean("discopop", tau=0.05),
        _liger("discopop", discopop_tau=0.05),
    ),
    Comparison(
        "sppo_hard",
        "Liger",
        f"{_LIGER}, sppo_hard",
        _ours_mean("sppo_hard"),
        _liger("sppo_hard"),
        differs="is twice ours, as TRL's",
        mended=_twice(_liger("sppo_hard")),
    ),
    Comparison(
        "simpo",
        "Liger",
        "LigerFusedLinearSimPOFunction",
        _ours_mean("simpo", gamma_beta_ratio=0.5),
        lambda batch, beta: liger_simpo(batch, beta=beta, gamma=0.5 * beta),
    ),
    Comparison(
        "cpo",
        "Liger",
        "LigerFusedLinearCPOFunction",
        _ours_mean("cpo", nll_weight=0.0),
        lambda batch, beta: liger_cpo(batch, beta=beta),
        note="the imitation apart",
    ),
    Comparison(
        "orpo",
        "Liger",
        "LigerFusedLinearORPOFunction",
        lambda batch, beta: (ours("orpo", batch, odds_weight=beta) - ours("orpo", batch, odds_weight=0.0)).mean(),
        lambda batch, beta: liger_orpo(batch, beta=beta),
        note="the comparison of odds alone",
    ),
    Comparison("kto", "Liger", "LigerFusedLinearKTOFunction", _ours_mean("kto"), liger_kto, note="theirs is given z"),
]

HALOS = [
    Comparison(
        "sigmoid", "HALOs", "DPOTrainer", _ours("sigmoid"), lambda batch, beta: halos("DPOTrainer", batch, beta=beta)
    ),
    Comparison(
        "sigmoid",
        "HALOs",
        "CDPOTrainer, with label smoothing",
        _ours("sigmoid", label_smoothing=0.125),
        lambda batch, beta: halos("CDPOTrainer", batch, beta=beta, epsilon=0.125),
    ),
    Comparison(
        "ipo",
        "HALOs",
        "IPOTrainer",
        _ours("ipo"),
        lambda batch, beta: halos("IPOTrainer", batch, tau=beta),
        note="where no log-ratio is 0: theirs counts those that are not, so that it is 0/0 at the start",
    ),
    Comparison(
        "simpo",
        "HALOs",
        "SimPOTrainer",
        _ours("simpo", gamma_beta_ratio=0.5),
        lambda batch, beta: halos("SimPOTrainer", batch, beta=beta, gamma_beta_ratio=0.5),
    ),
    Comparison(
        "slic",
        "HALOs",
        "SLiCTrainer, pair by pair",
        lambda batch, beta: ours("slic", batch, delta=1 / beta, nll_weight=0.5),
        each(lambda pair, beta: halos("SLiCTrainer", pair, beta=1 / beta, lambda_coef=0.5).mean()),
        differs="has the mean over the tokens of a padded row for the imitation; ours, as the paper, the sum",
        mended=each(
            lambda pair, beta: halos(
                "SLiCTrainer", pair, beta=1 / beta, lambda_coef=0.5 * len(pair.chosen[0].policy)
            ).mean()
        ),
    ),
    Comparison(
        "kto",
        "HALOs",
        "KTOTrainer",
        _ours("kto", desirable_weight=1.25, undesirable_weight=0.75),
        lambda batch, beta: halos_kto(batch, beta=beta, desirable_weight=1.25, undesirable_weight=0.75),
        within=FLOAT32,
        note="theirs takes z in float32, over all processes",
    ),
]

COMPARISONS = [*TRL, *LIGER, *HALOS]
WITHOUT_PEER = {
    "dpop": "no peer has it",
    "cal_dpo": "no peer has it",
    "beta_dpo": "no peer has it",
    "bco": "TRL's BCOTrainer is no longer part of it; its `bco_pair` has no shift δ",
    "odpo": "no peer has it",
    "margin": "no peer has it",
    "sppo": "peers have it with certain labels alone, `sppo_hard`",
    "tdpo1": "no peer has it",
    "tdpo2": "no peer has it",
    "tr_ipo": "TRL's sync_ref_model is of DPOTrainer: as `ipo`",
    "tr_kto": "TRL's KTOTrainer has no moving reference",
}
"""Objectives that are compared with no code but the plain Python of their tests, and why."""
