import math
from types import SimpleNamespace

import pytest

from latentplan.encoding.curriculum import Curriculum
from latentplan.training.parameter_groups import decay
from latentplan.training.sft_trainer import SFTTrainer, make_curriculum
from latentplan.training.trainer import LatentTrainer


def test_decays_by_hand():
    assert [decay("linear", progress) for progress in (0, 0.25, 1, 2)] == [1, 0.75, 0, 0]
    assert [decay("constant", progress) for progress in (0, 1)] == [1, 1]
    assert decay("cosine", 0) == 1
    assert decay("cosine", 0.5) == pytest.approx(0.5)
    assert decay("cosine", 0.25) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert decay("cosine", 1) == decay("cosine", 1.5) == 0
    # As an enumeration of transformers prints itself.
    assert decay("SchedulerType.LINEAR", 0.25) == 0.75


def test_an_unknown_decay_is_refused():
    with pytest.raises(ValueError, match=r"one of .*cosine.*got 'zigzag'"):
        decay("zigzag", 0.5)


def sft_rates(curriculum, steps, **settings):
    defaults = {"decay_stages": 1, "stage_warmup_steps": 0, "lr_scheduler_type": "linear"}
    trainer = SimpleNamespace(curriculum=curriculum, args=SimpleNamespace(**{**defaults, **settings}))
    return [round(SFTTrainer.learning_rate_scale(trainer, step), 6) for step in range(steps)]


def test_the_rate_is_constant_until_the_last_stage_and_decays_over_it():
    curriculum = Curriculum((1, 2, 3), (2, 2, 4))
    assert sft_rates(curriculum, 8) == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_decay_over_several_or_all_or_no_stages():
    curriculum = Curriculum((1, 2), (2, 2))
    assert sft_rates(curriculum, 4, decay_stages=2) == [1, 0.75, 0.5, 0.25]
    assert sft_rates(curriculum, 4, decay_stages=9) == [1, 0.75, 0.5, 0.25]
    assert sft_rates(curriculum, 4, decay_stages=0) == [1, 1, 1, 1]


def test_every_stage_warms_up():
    curriculum = Curriculum((1, 2), (4, 4))
    rates = sft_rates(curriculum, 8, stage_warmup_steps=3, lr_scheduler_type="constant")
    assert rates == [0.25, 0.5, 0.75, 1, 0.25, 0.5, 0.75, 1]


def test_warm_up_and_decay_multiply():
    rates = sft_rates(Curriculum((1,), (4,)), 4, stage_warmup_steps=1)
    assert rates == [0.5, 0.75, 0.5, 0.25]


def test_rl_warms_up_once_and_decays_over_the_run():
    arguments = SimpleNamespace(max_steps=4, lr_scheduler_type="linear", get_warmup_steps=lambda steps: 1)
    trainer = SimpleNamespace(args=arguments)
    rates = [LatentTrainer.learning_rate_scale(trainer, step) for step in range(4)]
    assert rates == [0.5, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("settings", "method", "expected"),
    [
        ({"max_latent_steps": 3, "curriculum_steps": [5]}, "coconut", ((1, 2, 3), (5, 5, 5))),
        ({"max_latent_steps": 3, "curriculum_steps": [5, 6, 7]}, "coconut", ((1, 2, 3), (5, 6, 7))),
        ({"max_latent_steps": 3, "curriculum_steps": [5]}, "cot", ((0,), (5,))),
        ({"curriculum_stages": [0, 2], "curriculum_steps": [4]}, "coconut", ((0, 2), (4, 4))),
    ],
)
def test_the_curriculum_of_a_configuration(settings, method, expected, sft_config, tmp_path):
    curriculum = make_curriculum(sft_config(tmp_path, method=method, **settings))
    assert (curriculum.stages, curriculum.steps) == expected


def test_stages_and_durations_must_match(sft_config, tmp_path):
    with pytest.raises(ValueError, match=r"3 stages .* and 2 durations"):
        make_curriculum(sft_config(tmp_path, curriculum_steps=[4, 5]))
