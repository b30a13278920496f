"""Settings of methods and thinking processes: honoured where they are chosen, else refused by name."""

import json
from dataclasses import dataclass, fields

import pytest
import torch
import yaml

from latentplan.common.plugins import setting
from latentplan.experiments.recipes import parse_recipe, trainer_of
from latentplan.methods.base import Method, get_method, methods
from latentplan.methods.colar import CoLaR
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.loading import load_model
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.thinking import process_class
from latentplan.problems.training_set import DataArguments
from latentplan.training.configs import ModelArguments, SFTConfig, flatten_recipe
from latentplan.training.model_init import reasoner_config
from latentplan.training.run_directory import differing_settings

SFT = (ModelArguments, DataArguments, SFTConfig)
OTHER_VALUES = {
    "compression_factor": 3,
    "removal_smoothing": 1.5,
    "iterations": 2,
    "block": "step",
    "placeholder": 7,
}
"""A value of each setting that is not its default."""
OF_METHODS = [
    (name, each.name) for name, method in methods().items() for each in fields(method.settings_class)
]
OF_PROCESSES = [
    (name, each.name)
    for name, method in methods().items()
    for each in fields(process_class(method.thinking).settings_class)
]
EVERY = [*OF_METHODS, *OF_PROCESSES]
WITHOUT = [
    (name, other)
    for other in dict.fromkeys(other for _, other in EVERY)
    for name in methods()
    if (name, other) not in EVERY
]


def parsed(*arguments: str) -> SFTConfig:
    """The configuration of a run from flags."""
    return parse_recipe(SFT, [*arguments, "--use_cpu", "true"])[2]


def file_of(folder, **settings):
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(settings))
    return str(file)


def test_every_setting_is_tried():
    assert {name for _, name in EVERY} == set(OTHER_VALUES)


@pytest.mark.parametrize(("method", "name"), EVERY)
def test_a_setting_is_honoured_for_its_method(method, name, make_backbone, tmp_path):
    """From a flag and a recipe, in what a run records, in the checkpoint, and in the method itself."""
    value = OTHER_VALUES[name]
    recipe = file_of(tmp_path, method=method, **{name: value})
    by_flag, by_recipe = parsed("--method", method, f"--{name}", str(value)), parsed("--config", recipe)
    owner = "method" if (method, name) in OF_METHODS else "thinking"
    for config in (by_flag, by_recipe):
        assert getattr(config, f"{owner}_settings")[name] == value
        recorded = flatten_recipe((ModelArguments(), DataArguments(), config))
        assert recorded[name] == value
        again = parsed("--config", file_of(tmp_path, **recorded))
        assert getattr(again, f"{owner}_settings")[name] == value
    assert trainer_of({"method": method, name: value}) == ("sft", SFT)
    backbone = make_backbone()
    tokens = {"start_latent_token_id": 1, "end_latent_token_id": 2, "pad_token_id": 0}
    saved = reasoner_config(by_flag, backbone, tokens, {"eos_token_id": 3})
    saved.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())[f"{owner}_settings"][name] == value
    read = LatentReasonerConfig.from_pretrained(tmp_path)
    made = (
        get_method(read.method, settings=read.method_settings)
        if owner == "method"
        else LatentReasoner(read, backbone).thinking
    )
    assert getattr(made.settings, name) == value


@pytest.mark.parametrize(("method", "name"), WITHOUT)
def test_a_setting_is_refused_by_name_for_every_other_method(method, name, tmp_path):
    value, owner = OTHER_VALUES[name], next(owner for owner, each in EVERY if each == name)
    kind = "method" if (owner, name) in OF_METHODS else "thinking"
    names = (owner, method) if kind == "method" else (methods()[owner].thinking, methods()[method].thinking)
    message = f"{name} is a setting of {kind} {names[0]}; this run's {kind} is {names[1]}"
    for refused in (
        lambda: parsed("--method", method, f"--{name}", str(value)),
        lambda: parsed("--config", file_of(tmp_path, method=method, **{name: value})),
        lambda: parsed("--config", file_of(tmp_path, method=owner, **{name: value}), "--method", method),
        lambda: trainer_of({"method": method, name: value}),
    ):
        with pytest.raises(Exception, match=message):
            refused()
    # In a recorded configuration of an earlier version it is null, and sets nothing.
    assert parsed("--config", file_of(tmp_path, method=method, **{name: None})).method == method


def test_a_wrong_value_is_refused():
    for flag, value, message in (
        ("--compression_factor", "0", "compression_factor must be a whole number from 1 to 1024, got 0"),
        ("--compression_factor", "many", "invalid int value: 'many'"),
    ):
        with pytest.raises(Exception, match=message):
            parsed("--method", "colar", flag, value)
    with pytest.raises(ValueError, match=r"compression_factor of method colar must be int, got 2\.5"):
        get_method("colar", settings={"compression_factor": 2.5})
    with pytest.raises(ValueError, match="method coconut has no setting 'compression_factor': it has none"):
        get_method("coconut", settings={"compression_factor": 2})


@dataclass(frozen=True)
class OwnSettings:
    """Settings of a method of the user's."""

    strength: float = setting(0.5, "of something")


class Own(Method):
    """A method of the user's."""

    name = "own"
    settings_class = OwnSettings


class Clash(Method):
    """A method whose setting has a name that is taken."""

    name = "clash"

    @dataclass(frozen=True)
    class Settings:
        """One of its settings is the run's."""

        learning_rate: float = setting(0.5, "of something")

    settings_class = Settings


def test_settings_of_a_method_of_the_user_s():
    config = parsed("--method", f"{__name__}:Own", "--strength", "2")
    assert config.method_settings == {"strength": 2.0}
    assert trainer_of({"method": f"{__name__}:Own", "strength": 1.0}) == ("sft", SFT)
    with pytest.raises(
        ValueError, match=f"learning_rate is a setting of method {__name__}:Clash and of every run"
    ):
        parsed("--method", f"{__name__}:Clash")


def test_flags_come_before_a_mapping_and_a_mapping_before_defaults(tmp_path):
    recipe = file_of(tmp_path, method="pccot", thinking_settings={"iterations": 5, "block": "step"})
    assert parsed("--config", recipe).thinking_settings == {
        "iterations": 5,
        "block": "step",
        "placeholder": None,
    }
    assert parsed("--config", recipe, "--iterations", "2").thinking_settings["iterations"] == 2
    given = parsed("--config", recipe, "--thinking_settings", "{iterations: 4}")
    assert given.thinking_settings["iterations"] == 4


def test_a_model_of_an_earlier_version_loads(make_system, clock_tokenizer, tmp_path, recwarn):
    """There `compression_factor` stood in config.json by itself, null for methods without it."""
    for method, factor in (("colar", 3), ("coconut", None)):
        folder = tmp_path / method
        make_system(method).save_pretrained(folder, clock_tokenizer)
        values = json.loads((folder / "config.json").read_text())
        del values["method_settings"], values["tokens_per_latent"]
        (folder / "config.json").write_text(json.dumps({**values, "compression_factor": factor}))
        config = load_model(folder).reasoner.config
        assert config.tokens_per_latent == factor
        assert config.method_settings == (None if factor is None else {"compression_factor": 3})
        assert (config.num_start_tokens, config.latents_are_steps) == (factor or 1, factor is None)
        assert "compression_factor" not in config.to_dict()
    assert not [each for each in recwarn if "compression_factor" in str(each.message)]


def test_a_run_of_an_earlier_version_is_resumed(tmp_path):
    """It recorded null where the default was meant."""
    (tmp_path / "config.yaml").write_text("compression_factor: null\nseed: 1\n")
    assert differing_settings(tmp_path, {"compression_factor": 5, "seed": 1}) == []
    (tmp_path / "config.yaml").write_text("compression_factor: 4\n")
    assert differing_settings(tmp_path, {"compression_factor": 5}) == ["compression_factor: 4 there, 5 now"]


def test_old_names_in_python_are_accepted_with_a_notice(tmp_path):
    with pytest.warns(FutureWarning, match="method_settings="):
        config = SFTConfig(output_dir=str(tmp_path), method="colar", compression_factor=3, use_cpu=True)
    assert config.method_settings == {"compression_factor": 3}
    with pytest.warns(FutureWarning, match="now tokens_per_latent"):
        saved = LatentReasonerConfig(method="colar", compression_factor=3)
    assert (saved.tokens_per_latent, saved.method_settings) == (3, {"compression_factor": 3})
    with pytest.warns(FutureWarning, match="now tokens_per_latent"):
        assert saved.compression_factor == 3
    with pytest.warns(FutureWarning, match="compression_factor is now a setting"):
        own = type("OwnCoLaR", (CoLaR,), {"compression_factor": 2})
    assert own().tokens_per_latent == own().settings.compression_factor == 2
    assert CoLaR().tokens_per_latent == 5


def test_what_configurations_say_of_their_latents(make_system):
    said = {}
    for name in methods():
        reasoner = make_system(name).reasoner
        config = reasoner.config
        said[name] = (config.has_latents, config.latents_are_steps, reasoner.is_gaussian)
    latent, gaussian = (True, True, False), (True, True, True)
    assert said == {
        **dict.fromkeys(("cot", "no_cot", "icot"), (False, False, False)),
        **dict.fromkeys(("pause", "coconut", "sim_cot", "codi", "pccot"), latent),
        "atp_latent": gaussian,
        "colar": (True, False, True),
    }
    assert not make_system("atp_latent", max_latent_steps=0).reasoner.config.has_latents


class Undeclared(torch.nn.Module):
    """A head of the user's that does not say whether it is Gaussian."""

    def __init__(self, hidden_size, initial_scale, initial_log_variance):
        super().__init__()

    def forward(self, hidden):
        from latentplan.modeling.latent_heads import LatentDistribution

        return LatentDistribution(hidden, self.log_variance_of(hidden))

    def log_variance_of(self, hidden):
        return None


class UndeclaredGaussian(Undeclared):
    """The same with a variance."""

    def log_variance_of(self, hidden):
        return torch.zeros_like(hidden)


def test_a_head_that_does_not_say_whether_it_is_gaussian_is_tried(make_system):
    for head, gaussian in ((Undeclared, False), (UndeclaredGaussian, True)):
        system = make_system("coconut", latent_head=f"{__name__}:{head.__name__}")
        assert system.reasoner.is_gaussian is gaussian
    with pytest.raises(ValueError, match="'kl' needs a gaussian latent_head"):
        make_system("coconut", latent_head=f"{__name__}:Undeclared", objectives={"kl": 1.0})
