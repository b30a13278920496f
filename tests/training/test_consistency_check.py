"""What a method trains is what its rollouts compute, or training does not start."""

import pytest
import torch

from latentplan.methods.atp_latent import ATPLatent
from latentplan.methods.base import methods
from latentplan.training.consistency_check import InconsistentMethodError, check_method

LATENT = sorted(name for name, method in methods().items() if method.latent_head)


class Shifted(ATPLatent):
    """A method in one file that trains on latents that its rollouts never make."""

    name = "shifted"

    def forward(self, reasoner, batch):
        """Latents that are larger than those of the thinking process."""
        passed = super().forward(reasoner, batch)
        passed.chain.latents = 1.5 * passed.chain.latents
        return passed


class OtherText(ATPLatent):
    """A method whose text is read after another token."""

    name = "other_text"

    def forward(self, reasoner, batch):
        """The text states of other text."""
        return super().forward(reasoner, {**batch, "text_ids": batch["text_ids"].clamp(max=20)})


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", LATENT)
@pytest.mark.parametrize("stage", [1, 3])
def test_every_method_of_ours_is_consistent(method, stage, family, make_system, make_batch, mixed_problems):
    system = make_system(method, family=family).eval()
    found = check_method(system.reasoner, system.method, make_batch(system, mixed_problems, stage))
    assert found
    assert max(found.values()) < 1e-3


@pytest.mark.parametrize(
    ("method", "what"), [(Shifted, "latents from the same noise"), (OtherText, "text states")]
)
def test_a_forward_pass_of_its_own_is_refused(method, what, make_system, make_batch, mixed_problems):
    system = make_system("atp_latent").eval()
    with pytest.raises(InconsistentMethodError, match=f"different {what}.* at index .* ThinkingProcess"):
        check_method(system.reasoner, method(), make_batch(system, mixed_problems))


def test_training_does_not_start(run_sft, tmp_path, monkeypatch):
    own = ATPLatent.forward

    def shifted(self, reasoner, batch):
        passed = own(self, reasoner, batch)
        passed.chain.latents = 1.5 * passed.chain.latents
        return passed

    monkeypatch.setattr(ATPLatent, "forward", shifted)
    with pytest.raises(InconsistentMethodError, match="training and rollouts compute different latents"):
        run_sft(tmp_path)


def test_nothing_random_is_moved(make_system, make_batch, mixed_problems):
    system = make_system("atp_latent").eval()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    check_method(system.reasoner, system.method, make_batch(system, mixed_problems))
    assert torch.equal(torch.get_rng_state(), before)


def test_nan_is_no_agreement(make_system, make_batch, mixed_problems, monkeypatch):
    system = make_system("atp_latent").eval()
    own = ATPLatent.forward

    def spoilt(self, reasoner, batch):
        passed = own(self, reasoner, batch)
        passed.chain.mean = passed.chain.mean * float("nan")
        return passed

    monkeypatch.setattr(ATPLatent, "forward", spoilt)
    with pytest.raises(InconsistentMethodError, match="different means"):
        check_method(system.reasoner, system.method, make_batch(system, mixed_problems))
