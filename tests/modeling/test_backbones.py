"""What must hold on every family of backbones: causal attention, a cache that agrees with one pass."""

import pytest
import torch

from latentplan.modeling.configuration import LatentReasonerConfig, StepDecoderConfig
from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.step_decoder import StepDecoder
from latentplan.rollout.engine import generate

FAMILIES = ["llama", "gpt2", "qwen2", "mistral", "gemma2"]
WRAPPERS = [(LatentReasoner, LatentReasonerConfig), (StepDecoder, StepDecoderConfig)]


def assert_causal(language_model, vocab_size):
    """Changing the last token changes nothing before it, and changing the first changes everything after."""
    torch.manual_seed(0)
    ids = torch.randint(5, vocab_size, (2, 7))
    last, first = ids.clone(), ids.clone()
    last[:, -1] = (last[:, -1] - 4) % vocab_size
    first[:, 0] = (first[:, 0] - 4) % vocab_size
    with torch.no_grad():
        logits, changed_last, changed_first = (language_model(part).logits for part in (ids, last, first))
    torch.testing.assert_close(changed_last[:, :-1], logits[:, :-1])
    assert not torch.allclose(changed_last[:, -1], logits[:, -1])
    assert not torch.allclose(changed_first[:, -1], logits[:, -1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "wrapper", [(LatentReasoner, LatentReasonerConfig), (StepDecoder, StepDecoderConfig)]
)
def test_attention_is_causal_however_the_model_was_built(family, wrapper, make_backbone, tmp_path):
    """Regression: transformers resets the attention of sub-configurations; the mask was silently lost."""
    model_class, config_class = wrapper
    backbone = make_backbone(family).eval()
    vocab_size = backbone.config.vocab_size
    around = model_class(config_class(backbone_config=backbone.config), backbone).eval()
    assert_causal(around.backbone, vocab_size)
    # Built anew from a configuration object, from plain values, and from a folder.
    assert_causal(model_class(config_class(backbone_config=backbone.config)).eval().backbone, vocab_size)
    values = backbone.config.to_dict()
    assert_causal(model_class(config_class(backbone_config=values)).eval().backbone, vocab_size)
    around.save_pretrained(tmp_path)
    assert_causal(model_class.from_pretrained(tmp_path).eval().backbone, vocab_size)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_chosen_attention_is_kept(attention, make_backbone, tmp_path):
    backbone = make_backbone(attn_implementation=attention)
    assert backbone.config._attn_implementation == attention
    reasoner = LatentReasoner(LatentReasonerConfig(backbone_config=backbone.config), backbone)
    assert reasoner.backbone.config._attn_implementation == attention
    assert_causal(reasoner.eval().backbone, backbone.config.vocab_size)


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_in_pieces_equals_reading_at_once(family, make_backbone):
    backbone = make_backbone(family).eval()
    torch.manual_seed(0)
    embeds = torch.randn(2, 9, 32)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 0, 1, 1], [1] * 9])
    with torch.no_grad():
        whole = DecodingState(backbone, embeds, mask).read()
        context = DecodingState(backbone, embeds[:, :4], mask[:, :4])
        pieces = [context.read()]
        context.append(embeds[:, 4:5], mask[:, 4:5])
        pieces.append(context.read())
        context.append(embeds[:, 5:7], mask[:, 5:7])
        context.append(embeds[:, 7:], mask[:, 7:])
        pieces.append(context.read())
        # The plain backbone on row 0 without its masked columns.
        kept = mask[0].bool()
        alone = backbone.base_model(inputs_embeds=embeds[:1, kept]).last_hidden_state
    torch.testing.assert_close(torch.cat(pieces, dim=1)[mask.bool()], whole[mask.bool()])
    torch.testing.assert_close(whole[:1, kept], alone)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        *((family, {}) for family in FAMILIES),
        ("mistral", {"sliding_window": 3}),
        ("gemma2", {"sliding_window": 3}),
    ],
)
def test_a_repeated_context_goes_on_as_the_original_would(family, settings, make_backbone):
    """Also where the cache keeps a window of fewer tokens than were read."""
    backbone = make_backbone(family, **settings).eval()
    torch.manual_seed(0)
    question, mask = torch.randn(2, 5, 32), torch.tensor([[0, 1, 1, 1, 1], [1] * 5])
    more, one = torch.randn(6, 2, 32), torch.ones(6, 2, dtype=torch.long)

    def after_reading():
        context = DecodingState(backbone, question, mask)
        context.read()
        # Something that waits is repeated too.
        context.append(question[:, :1], torch.ones(2, 1, dtype=torch.long))
        return context

    with torch.no_grad():
        original = after_reading()
        repeated = original.repeat(3)
        repeated.append(more, one)
        together = repeated.read()
        for row in range(6):
            single = after_reading()
            keep = row // 3
            single.append(more[row].expand(2, -1, -1), one[:2])
            torch.testing.assert_close(together[row], single.read()[keep])
        # The original is as it was: it has read nothing of what its copy read.
        assert original.mask.shape[1] == 5
        torch.testing.assert_close(original.read(), after_reading().read())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_the_backbone_s_own(family, make_backbone):
    """Some families cap their logits."""
    backbone = make_backbone(family).eval()
    reasoner = LatentReasoner(LatentReasonerConfig(backbone_config=backbone.config), backbone)
    ids = torch.arange(5, 15)[None]
    hidden = DecodingState(backbone, reasoner.embed(ids), torch.ones_like(ids)).read()
    torch.testing.assert_close(reasoner.logits(hidden), backbone(ids).logits)


def test_a_context_can_be_repeated_before_anything_was_read(make_backbone):
    backbone = make_backbone().eval()
    embeds = torch.randn(2, 3, 32)
    context = DecodingState(backbone, embeds, torch.ones(2, 3, dtype=torch.long)).repeat(2)
    with torch.no_grad():
        hidden = context.read()
    assert hidden.shape == (4, 3, 32)
    torch.testing.assert_close(hidden[0], hidden[1])
    assert not torch.allclose(hidden[0], hidden[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_rolls_out_and_learns(family, make_system, make_batch, mixed_problems):
    system = make_system("atp_latent", family=family)
    batch = make_batch(system, mixed_problems)
    optimizer = torch.optim.SGD(system.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        outputs = system(**batch)
        losses.append(outputs["loss"].item())
        optimizer.zero_grad()
        outputs["loss"].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    missing = [name for name, weight in system.named_parameters() if weight.grad is None]
    assert missing == []
    rolled = generate(
        system.reasoner.eval(),
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(len(mixed_problems)),
        seed=0,
        sampling=Sampling(max_new_tokens=5),
        draws=2,
    )
    assert rolled.answer_ids.shape == (2 * len(mixed_problems), 5)
    assert bool(torch.isfinite(rolled.answer_log_probs).all())
    assert system.step_decoder.decode(rolled.latents[:, :2], max_new_tokens=4).shape[0] == 12
