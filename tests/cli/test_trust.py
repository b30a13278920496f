"""Code that a model folder names runs only where the user says so; code that the user names runs."""

from __future__ import annotations

import json
import shutil
import textwrap

import pytest
import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from typer.testing import CliRunner

from latentplan.cli.app import app
from latentplan.common.plugins import CodeSource, UntrustedCodeError, import_named
from latentplan.experiments.comparison_runs import Benchmark, Evaluations, Runs
from latentplan.experiments.comparison_spec import Entry
from latentplan.modeling.backbones import UnsupportedBackboneError
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.folders.damage import DamagedModelError
from latentplan.modeling.loading import load_model
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.training.configs import ModelArguments, SFTConfig
from latentplan.training.model_init import initialise_system
from latentplan.training.trainable_model import LatentModelForTraining

BACKBONE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
QUESTION = "the dial starts at 7 . it moves on by 3 . where is it ?"
PROBLEMS = ["--benchmark", "minigsm:clock", "--num_problems", "2"]
TRAINING = ["--dataset_size", "4", "--use_cpu", "true", "--per_device_train_batch_size", "4"]
SHORT = ["--max_latent_steps", "2", "--curriculum_stages", "1", "--curriculum_steps", "1"]
RL = ["--max_steps", "1", "--num_generations", "2", "--signal_problems", "0", "--max_completion_length", "8"]
COMMANDS = {
    "ask": lambda model, out: ["ask", model, QUESTION],
    "evaluate": lambda model, out: ["evaluate", model, *PROBLEMS, "--output", out],
    "diagnose": lambda model, out: ["diagnose", model, *PROBLEMS, "--output", out],
    "attribute": lambda model, out: ["attribute", model, model, *PROBLEMS, "--output", out],
    "select": lambda model, out: ["select", model, *PROBLEMS, "--num_generations", "2", "--output", out],
    "visualize": lambda model, out: ["visualize", model, *PROBLEMS, "--output", out],
    "serve": lambda model, out: ["serve", model, "--port", "0"],
    "lm_eval": lambda model, out: [
        "lm_eval",
        "--model_args",
        f"pretrained={model}",
        "--tasks",
        "latentplan_svamp",
    ],
    "sft": lambda model, out: ["sft", "--model_name_or_path", model, *TRAINING, *SHORT, "--output_dir", out],
    "grpo": lambda model, out: ["grpo", "--model_name_or_path", model, *TRAINING, *RL, "--output_dir", out],
    "estimate": lambda model, out: [
        "estimate",
        "--model_name_or_path",
        model,
        "--output_dir",
        out,
        "--num_generations",
        "8",
    ],
}
RAN = "code of the folder ran"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random ATP-Latent model."""
    folder = tmp_path_factory.mktemp("trust")
    problems = list(generate(PRESETS["clock"], split="train", count=400, seed=0))
    torch.manual_seed(0)
    config = SFTConfig(output_dir=str(folder), method="atp_latent", max_latent_steps=2, use_cpu=True)
    system, tokenizer = initialise_system(ModelArguments(backbone_config=BACKBONE), config, problems)
    system.save_pretrained(folder / "model", tokenizer)
    return folder / "model"


@pytest.fixture
def payload(tmp_path, monkeypatch, request):
    """A module in the current folder that leaves a file when it is imported; its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"payload_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(
        textwrap.dedent(
            f"""
            from pathlib import Path
            from latentplan.methods.atp_latent import ATPLatent
            from latentplan.modeling.latent_heads import GaussianHead
            Path({str(tmp_path / RAN)!r}).touch()

            class Head(GaussianHead):
                pass

            class OwnMethod(ATPLatent):
                name = "own"
                latent_head = "{name}:Head"
            """
        )
    )
    return name


@pytest.fixture
def edited(model, tmp_path):
    """A copy of the model with values of one of its JSON files changed."""

    def edit(file="config.json", **values):
        folder = tmp_path / "downloaded"
        if not folder.exists():
            shutil.copytree(model, folder)
        path = folder / file
        content = json.loads(path.read_text())
        for name, value in values.items():
            part, _, key = name.rpartition("/")
            (content[part] if part else content)[key] = value
        path.write_text(json.dumps(content))
        return folder

    return edit


def invoke(arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "300"})


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_code_that_a_model_folder_names(command, edited, payload, tmp_path):
    if command == "lm_eval":
        pytest.importorskip("lm_eval")
    folder = edited(latent_head=f"{payload}:Head", method=f"{payload}:OwnMethod")
    edited(_code_source=None)  # a file cannot give itself trust either
    done = invoke(COMMANDS[command](folder, tmp_path / "out"))
    assert done.exit_code == 2, done.output
    assert f"{payload}:" in done.output
    assert "--trust_remote_code true" in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / RAN).exists()


@pytest.mark.parametrize("command", ["ask", "grpo", "estimate"])
def test_with_the_flag_it_runs_and_says_so(command, edited, payload, tmp_path, caplog):
    folder = edited(latent_head=f"{payload}:Head", method=f"{payload}:OwnMethod")
    done = invoke([*COMMANDS[command](folder, tmp_path / "out"), "--trust_remote_code", "true"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / RAN).exists()
    assert f"running code that {folder} names: the latent_head '{payload}:Head'" in caplog.text


def test_python_asks_for_trust_too(edited, payload, tmp_path):
    folder = edited(latent_head=f"{payload}:Head", method=f"{payload}:OwnMethod")
    from_file = LatentReasonerConfig.from_json_file(folder / "config.json")
    for load in (
        lambda: load_model(folder),
        lambda: LatentModelForTraining.from_pretrained(folder),
        lambda: LatentReasoner.from_pretrained(folder),
        lambda: LatentReasoner(LatentReasonerConfig.from_pretrained(folder)),
        lambda: LatentReasoner(from_file),
    ):
        with pytest.raises(UntrustedCodeError, match=payload):
            load()
    assert not (tmp_path / RAN).exists()
    system, _ = LatentModelForTraining.from_pretrained(folder, trust_remote_code=True)
    assert type(system.method).__name__ == "OwnMethod"
    # What is saved says nothing of who was trusted where it was loaded.
    system.save_pretrained(tmp_path / "again")
    assert "code_source" not in (tmp_path / "again" / "config.json").read_text()


@pytest.mark.parametrize("setting", ["latent_head", "thinking", "input_rule"])
@pytest.mark.parametrize("command", ["ask", "estimate"])
def test_no_setting_of_a_checkpoint_runs_code(setting, command, edited, payload, tmp_path):
    """`estimate` makes the model from settings that it has copied from the checkpoint."""
    done = invoke(COMMANDS[command](edited(**{setting: f"{payload}:Head"}), tmp_path / "out"))
    assert f"the {setting} '{payload}:Head'" in done.output
    assert not (tmp_path / RAN).exists()


def test_a_method_alone_is_refused_where_it_would_be_used(edited, payload, tmp_path):
    folder = edited(method=f"{payload}:OwnMethod")
    load_model(folder)  # asks no method
    assert not (tmp_path / RAN).exists()
    with pytest.raises(UntrustedCodeError, match=f"the method '{payload}:OwnMethod'"):
        LatentModelForTraining.from_pretrained(folder)
    assert not (tmp_path / RAN).exists()


def test_what_the_user_names_runs_as_before(edited, payload, tmp_path):
    """Training with one's own method, and what comes of it in the same process, needs no flag."""
    out = tmp_path / "run"
    arguments = [
        "sft",
        "--method",
        f"{payload}:OwnMethod",
        "--backbone_config",
        json.dumps(BACKBONE),
        *TRAINING,
        *SHORT,
    ]
    done = invoke([*arguments, "--output_dir", out])
    assert done.exit_code == 0, done.output
    load_model(out)
    # The user's recipe names the code that the starting model names.
    again = ["sft", "--method", f"{payload}:OwnMethod", "--model_name_or_path", out, *TRAINING, *SHORT]
    assert invoke([*again, "--output_dir", tmp_path / "more"]).exit_code == 0


def test_a_comparison_trusts_the_models_of_its_own_recipes(payload, tmp_path):
    """Its evaluations, and the runs that start from others, may come in another process than the training."""
    own, plain = (
        Entry("own", "", "", {"method": f"{payload}:OwnMethod"}),
        Entry("cot", "", "", {"method": "cot"}),
    )
    rl = Entry("rl", "", "", {"learning_rate": 1e-5}, start="own")
    minigsm = Benchmark("minigsm:clock", "clock", "", 4)
    runs = Runs(tmp_path, [own, plain, rl], Evaluations([minigsm]))
    assert [runs.names_code(name) for name in ("own", "cot", "rl")] == [True, False, True]
    assert runs.evaluations.pending(tmp_path, trusted=True)[0][-2:] == ["--trust_remote_code", "true"]
    assert "--trust_remote_code" not in runs.evaluations.pending(tmp_path)[0]


KERNEL = "somebody/kernel"


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("config.json", "attn_implementation"),
        ("config.json", "_attn_implementation"),
        ("config.json", "backbone_config/attn_implementation"),
        ("step_decoder/config.json", "attn_implementation"),
        ("step_decoder/config.json", "backbone_config/_attn_implementation"),
    ],
)
def test_attention_kernels_of_the_hub_are_code(file, key, edited):
    folder = edited(file, **{key: KERNEL})
    with pytest.raises(UntrustedCodeError, match=KERNEL):
        load_model(folder)


def test_an_attention_implementation_of_the_users_takes_the_place_of_the_kernel(edited):
    folder = edited(attn_implementation=KERNEL)
    model = LatentReasoner.from_pretrained(folder, attn_implementation="eager")
    assert model.backbone.config._attn_implementation == "eager"


def test_a_plain_backbone_that_names_a_kernel_is_refused(model, tmp_path):
    start = load_model(model)
    start.reasoner.backbone.save_pretrained(tmp_path / "plain")
    start.tokenizer.save_pretrained(tmp_path / "plain")
    path = tmp_path / "plain" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attn_implementation": KERNEL}))
    done = invoke(COMMANDS["sft"](tmp_path / "plain", tmp_path / "out"))
    assert done.exit_code == 2
    assert f"the attention kernel '{KERNEL}'" in done.output


def test_a_tokenizer_of_its_own_is_code(edited, payload, tmp_path):
    folder = edited("tokenizer_config.json", auto_map={"AutoTokenizer": [None, f"{payload}.Head"]})
    shutil.copy(tmp_path / f"{payload}.py", folder)
    with pytest.raises(UntrustedCodeError, match=rf"the tokenizer .*{payload}\.Head"):
        load_model(folder)
    assert not (tmp_path / RAN).exists()


@pytest.mark.parametrize("name", [":Head", "a b:Head", "..:Head", "module:", "module:a.b", "module"])
def test_what_names_no_code_is_refused_as_a_name(name):
    from latentplan.methods.base import get_method

    with pytest.raises(ValueError, match="method must be one of"):
        get_method(name)


def test_trust_is_of_one_checkpoint(payload, tmp_path):
    assert import_named(f"{payload}:Head", "latent_head", CodeSource("mine", trusted=True)) is not None
    with pytest.raises(UntrustedCodeError, match="other names code"):
        import_named(f"{payload}:Head", "latent_head", CodeSource("other"))


@pytest.mark.parametrize("command", ["ask", "sft", "grpo", "estimate"])
@pytest.mark.parametrize("setting", ["latent_head", "thinking", "input_rule"])
def test_every_setting_that_can_name_code_is_refused(setting, command, edited, payload, tmp_path):
    folder = edited(**{setting: f"{payload}:Head"})
    done = invoke(COMMANDS[command](folder, tmp_path / "out"))
    assert not (tmp_path / RAN).exists()
    if (setting, command) != ("input_rule", "estimate"):  # which reads no text and asks no rule
        assert done.exit_code == 2, done.output
        assert "--trust_remote_code true" in done.output


NESTING = sorted(name for name, each in CONFIG_MAPPING.items() if getattr(each, "sub_configs", None))


def test_no_model_of_ours_stands_inside_another(edited, payload, tmp_path, model):
    """Built by transformers inside another configuration, it would pass for the user's own."""
    inner = json.loads((model / "config.json").read_text())
    inner["latent_head"] = f"{payload}:Head"
    assert len(NESTING) > 50
    for number, name in enumerate(NESTING):
        for part in CONFIG_MAPPING[name].sub_configs:
            folder = edited(backbone_config={"model_type": name, part: inner})
            with pytest.raises((DamagedModelError, UnsupportedBackboneError)):
                LatentReasoner.from_pretrained(folder)
        if number == 0:
            assert invoke(["ask", folder, QUESTION]).exit_code == 2
    assert not (tmp_path / RAN).exists()


def test_nor_inside_the_model_that_a_run_starts_from(payload, tmp_path, model):
    inner = json.loads((model / "config.json").read_text())
    inner["latent_head"] = f"{payload}:Head"
    folder = tmp_path / "plain"
    shutil.copytree(model, folder)
    nested = {"model_type": "fuyu", "text_config": inner, "vocab_size": 60}
    text = json.dumps(nested).replace("latent_reasoner", "latent\\u005freasoner")
    (folder / "config.json").write_text(text)
    done = invoke(
        ["sft", "--model_name_or_path", folder, *TRAINING, *SHORT, "--output_dir", tmp_path / "out"]
    )
    assert done.exit_code == 2, done.output
    assert not (tmp_path / RAN).exists()
