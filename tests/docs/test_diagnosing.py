"""The model of docs/diagnosing.md whose latents are noise is what the page says."""

import re
import sys
from pathlib import Path

import torch

PAGE = Path(__file__).parents[2] / "docs" / "diagnosing.md"


def test_noise_stays_and_all_steps_are_written(
    tmp_path, monkeypatch, make_system, make_batch, mixed_problems, overfit, clock_tokenizer
):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL).group(1)
    (tmp_path / "fixed_noise.py").write_text(code)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    system = make_system("fixed_noise:FixedNoise")
    before = system.reasoner.latent_head.embedding.clone()
    overfit(system, mixed_problems[:2], bound=0.0, steps=2)
    assert torch.equal(system.reasoner.latent_head.embedding, before)
    assert float(before.norm()) > 0
    batch = make_batch(system, mixed_problems[:2])
    assert batch["slot_mask"].tolist() == [[1] * 6] * 2  # 3 steps of 2 latents
    text = clock_tokenizer.decode(batch["text_ids"][1], skip_special_tokens=True)
    assert text.count("<<") == len(mixed_problems[1].steps)
    sys.modules.pop("fixed_noise", None)
