"""Do the latents depend on the question, or have they collapsed to what they would be without one?"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from latentplan.evaluation.diagnosis import findings as thresholds
from latentplan.evaluation.diagnosis.evaluated_model import EvaluatedModel
from latentplan.evaluation.diagnosis.findings import FAILED, SOUND, Figure, Finding, not_applicable
from latentplan.modeling.latent_heads import standard_normal_kl
from latentplan.modeling.thinking import LatentChain

NAME = "posterior_collapse"
_FEWEST = 30
_SAME = 1e-6


def posterior_collapse(evaluated: EvaluatedModel) -> Finding:
    """Measures what varies with the question, slot by slot, over the questions whose chain uses it."""
    if not evaluated.has_latents:
        return not_applicable(NAME, f"{evaluated.model.reasoner.config.method} has no latents")
    chain = _in_units(
        evaluated.distributions, getattr(evaluated.model.reasoner.latent_head, "output_scale", 1.0)
    )
    used = [slot for slot in range(chain.mask.shape[1]) if int(chain.mask[:, slot].sum()) >= _FEWEST]
    if not used:
        return not_applicable(NAME, f"no slot is used by {_FEWEST} questions, too few to compare")
    groups = {slot: _slot_figures(chain, slot) for slot in used}
    collapsed = [slot for slot, found in groups.items() if _has_collapsed(found)]
    return Finding(
        NAME,
        FAILED if collapsed else SOUND,
        _verdict(collapsed, used, chain.log_variance is not None),
        _threshold(chain.log_variance is not None),
        [figure for found in groups.values() for figure in found.values()],
    )


def _in_units(chain: LatentChain, scale: float) -> LatentChain:
    """Returns the chain in the units that the head computes in: CoLaR's latents are as small as
    embeddings.
    """
    log_variance = None if chain.log_variance is None else chain.log_variance - 2 * math.log(scale)
    return replace(chain, latents=chain.latents / scale, mean=chain.mean / scale, log_variance=log_variance)


def _slot_figures(chain: LatentChain, slot: int) -> dict[str, Figure]:
    """Returns what is known of one slot, by a short name."""
    rows = chain.mask[:, slot].bool()
    means = chain.mean[rows, slot].double()
    count, where = len(means), f"slot {slot + 1}"
    variance = means.var(dim=0)
    size = means.square().mean()
    spread = math.sqrt(float(variance.mean() / size)) if size > 0 else 0.0
    found = {
        "spread": Figure(f"{where}: deviation between questions / size", spread, count=count),
        "rank": Figure(f"{where}: effective rank", effective_rank(means), count=count),
    }
    if chain.log_variance is None:
        return found
    log_variance = chain.log_variance[rows, slot].double()
    noise = log_variance.exp().mean(dim=0)
    active = (variance > thresholds.ACTIVE_VARIANCE).double().mean()
    kl = standard_normal_kl(means, log_variance).sum(dim=1).mean()
    bits = 0.5 * torch.log2(1 + variance / noise).sum()
    return found | {
        "active": Figure(f"{where}: active units", float(active), unit="share", count=count),
        "kl": Figure(f"{where}: KL to the prior, nats", float(kl), count=count),
        "signal": Figure(
            f"{where}: deviation between questions / σ",
            float((variance.mean() / noise.mean()).sqrt()),
            count=count,
        ),
        "bits": Figure(f"{where}: information, bits at most", float(bits), count=count),
    }


def effective_rank(rows: torch.Tensor) -> float:
    """Computes exp of the entropy of the normalised singular values of centred rows `[n, width]`; 0 if all
    equal.

    Roy & Vetterli (2007), 'The effective rank: a measure of effective dimensionality', EUSIPCO.
    """
    values = torch.linalg.svdvals(rows - rows.mean(dim=0))
    scale = float(rows.abs().max()) or 1.0
    values = values[values > _SAME * scale * math.sqrt(len(rows))]
    if not len(values):
        return 0.0
    weights = values / values.sum()
    return float(torch.exp(-(weights * weights.log()).sum()))


def _has_collapsed(found: dict[str, Figure]) -> bool:
    if found["spread"].estimate <= _SAME:  # type: ignore[operator]
        return True
    if "bits" not in found:
        return False
    active, bits = found["active"].estimate, found["bits"].estimate
    assert active is not None
    assert bits is not None
    return active == 0 or bits < thresholds.INFORMATION_BITS


def _threshold(gaussian: bool) -> str:
    if not gaussian:
        return (
            "the latents are points, without σ or KL: collapsed are those that are the same for all questions"
        )
    return (
        f"a slot has collapsed if no unit is active (variance of μ over {thresholds.ACTIVE_VARIANCE}) or if "
        f"it can carry less than {thresholds.INFORMATION_BITS:g} bit about the question "
        "(½ Σ log₂(1 + variance of μ / σ²))"
    )


def _verdict(collapsed: list[int], used: list[int], gaussian: bool) -> str:
    if not collapsed:
        return f"all {len(used)} slots depend on the question"
    names = ", ".join(str(slot + 1) for slot in collapsed)
    what = "collapsed to the prior, or to a constant" if gaussian else "the same whatever the question is"
    return f"{len(collapsed)} of {len(used)} slots are {what}: {names}"
