"""Numbers and names as readers see them."""

from __future__ import annotations

from typing import Any

from latentplan.report.runs import is_number

ABSENT = "–"
_SPELLINGS = {
    "cot": "CoT",
    "icot": "iCoT",
    "atp": "ATP",
    "sim": "SIM",
    "codi": "CODI",
    "colar": "CoLaR",
    "sft": "SFT",
    "rl": "RL",
    "grpo": "GRPO",
    "kl": "KL",
}
_METRICS = {
    "loss": "Loss",
    "loss/text": "Written text",
    "loss/step_decoder": "Step decoder",
    "loss/stop": "Stop head",
    "loss/kl": "KL to the standard normal",
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm",
    "reward": "Reward",
    "eval_latents/drift": "Distance of the latents' means from the start, in σ",
    "reward_std": "Reward, spread within a group",
    "rewards/accuracy/mean": "Reward part: accuracy",
    "rewards/format/mean": "Reward part: format",
    "rewards/coherence_strict_if_correct/mean": "Reward part: coherence, if correct",
    "rewards/coherence_strict/mean": "Reward part: coherence",
    "rewards/coherence_natural_if_correct/mean": "Reward part: coherence of sentences, if correct",
    "rewards/coherence_natural/mean": "Reward part: coherence of sentences",
    "frac_reward_zero_std": "Groups without any contrast",
    "completions/mean_length": "Text tokens written",
    "entropy": "Entropy of the text tokens",
    "answers/log_likelihood": "Log-likelihood of the right answer",
    "kl": "KL to the starting policy",
    "clip_ratio/region_mean": "Share of clipped actions",
    "latents/mean_length": "Latent tokens used",
    "latents/sigma": "Noise of the latents, σ",
    "latents/spread": "Spread of the latents between questions",
    "eval_loss": "Validation: loss",
    "eval_accuracy": "Validation: accuracy, greedy",
    "eval_coherence": "Validation: coherence of plans",
    "eval_reconstruction": "Validation: steps read exactly",
    "eval_tokens": "Validation: tokens a problem",
}


def percent(value: Any) -> str:
    """`84.5%`."""
    return f"{100 * value:.1f}%" if is_number(value) else ABSENT


def decimal(value: Any, digits: int = 1) -> str:
    """A number with this many decimals."""
    return f"{value:.{digits}f}" if is_number(value) else ABSENT


def count(value: Any) -> str:
    """`1,234`, and `1.23M` from a million on."""
    if not is_number(value):
        return ABSENT
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:,.0f}"


def duration(seconds: Any) -> str:
    """`0.4 s`, `64 s`, `5 min 10 s`, `2 h 05 min`."""
    if not is_number(seconds):
        return ABSENT
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def p_value(p: float) -> str:
    """`p < 0.001`, `p = 0.03`."""
    shown = "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.01 else f"= {p:.2f}"
    return f"p {shown}".replace(" ", "\u00a0")


def short(value: float) -> str:
    """A number of a plot in as few characters as it takes: `0.02`, `1e-06`, `3000`."""
    return f"{value:.3g}" if abs(value) < 1000 or abs(value) >= 1e6 else f"{value:.0f}"


def metric_title(key: str) -> str:
    """What a metric is called in words."""
    if key in _METRICS:
        return _METRICS[key]
    parts = key.removesuffix("/mean").removeprefix("loss/").replace("rewards/", "Reward part: ").split("_")
    words = " ".join(parts).replace("/", ", ")
    return words[:1].upper() + words[1:]


def run_title(name: str) -> str:
    """A title for the name of a run directory: `No-CoT` for `no_cot`, `ATP-Latent RL` for `atp_latent_rl`."""
    words = [_SPELLINGS.get(word.lower(), word.capitalize()) for word in name.replace("-", "_").split("_")]
    if not any(words):
        return name
    stage = [words.pop()] if len(words) > 1 and words[-1] in ("SFT", "RL", "GRPO") else []
    return " ".join(["-".join(words), *stage])


def when(created: Any) -> str:
    """The date of an ISO timestamp."""
    return created[:16].replace("T", " ") if isinstance(created, str) else ABSENT
