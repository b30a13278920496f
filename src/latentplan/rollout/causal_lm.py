"""`LatentReasonerForCausalLM`: a latent reasoner behind transformers' `generate`.

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    tokenizer.decode(model.generate(**ids)[0])

It reasons in latents, which no token shows, and then writes. With `import latentplan.rollout.causal_lm` the
flag is not needed.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, GenerationMixin

from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import generate

_DEFAULTS = {"max_new_tokens": 128, "do_sample": False, "temperature": 1.0, "num_return_sequences": 1}
# What others may pass as long as it asks for nothing: beams, penalties and filters are not supported.
_NEUTRAL: dict[str, tuple] = {
    "num_beams": (1,),
    "top_k": (0, 50),  # 50 is transformers' default, which its pipelines pass along
    "top_p": (1.0,),
    "repetition_penalty": (1.0,),
    "use_cache": (True, False),
    "return_dict_in_generate": (False,),
}
_IGNORED = {"pad_token_id", "eos_token_id", "bos_token_id", "tokenizer", "logits_to_keep", "max_length"}


class LatentReasonerForCausalLM(LatentReasoner, GenerationMixin):
    """`LatentReasoner` with the signature of `generate`."""

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        generation_config: GenerationConfig | None = None,
        latent_temperature: float | None = None,
        **settings: Any,
    ) -> torch.Tensor:
        """Returns questions with answers, as token ids; the latents between them are not shown.

        Args:
            input_ids: `[batch, question]`, left-padded, laid out as the saved tokenizer's chat template does;
                `<|start-latent|>` is added where it is missing.
            attention_mask: `[batch, question]`; everything but padding where it is None.
            generation_config: where settings come from that are not given here.
            latent_temperature: scale of σ; `temperature` where it is None. Without `do_sample`, 0.
            settings: `max_new_tokens` (128), `do_sample` (False), `temperature` (1) and
                `num_return_sequences` (1).

        Returns:
            `[batch · num_return_sequences, question + answer]`, padded after the answer's end.

        Raises:
            ValueError: a setting is not supported (beams, `top_k`, `top_p`, penalties, streaming), or rows
                are not padded on the left.
        """
        chosen = _settings(settings, generation_config)
        sampling = Sampling.greedy(chosen["max_new_tokens"])
        if chosen["do_sample"]:
            latent = chosen["temperature"] if latent_temperature is None else latent_temperature
            sampling = Sampling(chosen["temperature"], latent, chosen["max_new_tokens"])
        mask = self._question_mask(input_ids, attention_mask)
        framed_ids, framed_mask = self._frame(input_ids, mask)
        rolled = generate(
            self,
            framed_ids,
            framed_mask,
            torch.arange(len(input_ids), device=input_ids.device),
            seed=int(torch.randint(2**31, ())) if chosen["do_sample"] else 0,
            sampling=sampling,
            draws=chosen["num_return_sequences"],
        )
        questions = input_ids.repeat_interleave(chosen["num_return_sequences"], dim=0)
        return torch.cat([questions, rolled.answer_ids], dim=1)

    def _question_mask(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        if attention_mask is None:
            tokens = torch.ne(input_ids, cast(int, self.config.pad_token_id)).long()
            attention_mask = torch.cummax(tokens, dim=1).values  # only what comes first is padding
        if not bool(attention_mask[:, -1].all()):
            raise ValueError("pad questions on the left: tokenizer.padding_side = 'left'")
        return attention_mask.long()

    def _frame(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds what starts the latents unless the model has none or every question ends with it."""
        start = cast(int, self.config.start_latent_token_id)
        if not self.config.has_latents or bool(torch.eq(ids[:, -1], start).all()):
            return ids, mask
        columns = torch.full_like(ids[:, :1], start).expand(-1, self.config.num_start_tokens)
        return torch.cat([ids, columns], dim=1), torch.cat([mask, torch.ones_like(columns)], dim=1)


def _settings(given: dict[str, Any], config: GenerationConfig | None) -> dict[str, Any]:
    for name, value in given.items():
        fine = value is None or name in _DEFAULTS or name in _IGNORED or value in _NEUTRAL.get(name, ())
        if not fine:
            raise ValueError(
                f"generate does not take {name}={value!r}: a latent reasoner takes "
                f"{', '.join(_DEFAULTS)} and latent_temperature"
            )
    chosen = {}
    for name, default in _DEFAULTS.items():
        value = given.get(name)
        value = getattr(config, name, None) if value is None else value
        chosen[name] = default if value is None else value
    return chosen


AutoModelForCausalLM.register(LatentReasonerConfig, LatentReasonerForCausalLM)
