"""The card says what was recorded, follows evaluations, and goes to the hub with a finished run."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub.errors import HTTPError
from typer.testing import CliRunner

from latentplan.cli.app import app
from latentplan.training import hub
from latentplan.training.configs import ModelArguments
from latentplan.training.hub import HubError, base_model, push_run, write_model_card


class StandIn:
    """What `HfApi` would be asked to do."""

    def __init__(self, error=None):
        self.calls, self.error = [], error

    def create_repo(self, repository, **options):
        if self.error is not None:
            raise self.error
        self.calls.append(("create", repository, options))

    def upload_folder(self, **options):
        files = {file.relative_to(options["folder_path"]) for file in options["folder_path"].rglob("*.*")}
        self.calls.append(("upload", options["repo_id"], {str(file) for file in files}))


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained("atp_latent"), tmp_path / "plans"))


def card_of(run):
    text = (run / "model" / "README.md").read_text()
    _, metadata, body = text.split("---\n", 2)
    return yaml.safe_load(metadata), body


def test_a_finished_run_has_a_card(run):
    metadata, body = card_of(run)
    record = json.loads((run / "run.json").read_text())
    assert metadata["library_name"] == "latentplan"
    assert metadata["tags"] == ["latent-reasoning", "atp-latent"]
    assert not {"license", "base_model", "datasets"} & set(metadata)
    for fact in ("llama, trained from scratch", "up to 6 continuous latent tokens", "Not evaluated yet"):
        assert fact in body
    for fact in (record["data"]["fingerprint"], "minigsm", "| `max_latent_steps` | `3` |"):
        assert fact in body
    assert f"torch {record['versions']['torch']}" in body


def test_the_card_of_an_rl_run_of_the_version_before_names_its_objective(run):
    config = run / "config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "estimator": "value"}))
    write_model_card(run)
    _, body = card_of(run)
    assert "| `objective` | `latent_value` |\n| `latent_gradient` | `pathwise` |" in body


def test_the_card_holds_the_evaluations(run):
    arguments = [
        "evaluate",
        str(run),
        "--benchmark",
        "minigsm:clock",
        "--num_problems",
        "8",
        "--no_latent_use",
    ]
    done = CliRunner().invoke(app, [*arguments, "--max_new_tokens", "4"])
    assert done.exit_code == 0, done.output
    (run / "evaluation" / "other.json").write_text("[]")
    write_model_card(run)
    _, body = card_of(run)
    result = json.loads((run / "evaluation" / "minigsm-clock.json").read_text())
    share = f"{result['accuracy']['estimate']:.1%}"
    assert f"| minigsm:clock | 8 | greedy | {share} |" in body


def test_an_evaluation_writes_the_card_again(run):
    (run / "model" / "README.md").unlink()
    CliRunner().invoke(
        app, ["evaluate", str(run), "--benchmark", "minigsm:clock", "--num_problems", "4", "--no_latent_use"]
    )
    assert "minigsm:clock" in card_of(run)[1]


def test_the_base_model_is_found_through_a_chain_of_runs(tmp_path):
    def make(name, start, **record):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(record))
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({"model_name_or_path": start}))
        return {"model_name_or_path": str(tmp_path / name)}

    sft = make("sft", "owner/model")
    rl = make("rl", str(tmp_path / "sft" / "model"))
    assert base_model({"model_name_or_path": "owner/model"}) == "owner/model"
    assert base_model(sft) == base_model(rl) == "owner/model"
    assert base_model(make("recorded", "gone/since", base_model="owner/other")) == "owner/other"
    assert base_model(make("scratch", None)) is None
    (tmp_path / "local").mkdir()
    assert base_model({"model_name_or_path": str(tmp_path / "local")}) == "local"


def test_push_makes_the_repository_and_uploads_the_model_with_its_card(run):
    api = StandIn()
    assert push_run(run, "owner/plans", private=True, api=api) == "https://huggingface.co/owner/plans"
    (_, repository, options), (_, uploaded_to, files) = api.calls
    assert repository == uploaded_to == "owner/plans"
    assert options["private"] is True
    assert {"README.md", "config.json", "model.safetensors", "modeling_latentplan.py"} <= files
    assert "step_decoder/model.safetensors" in files
    assert "# owner/plans" in card_of(run)[1]


def test_an_unfinished_run_is_not_pushed(run):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "status": "running"}))
    with pytest.raises(ValueError, match="is no finished run: train it to its end first"):
        push_run(run, "owner/plans", api=StandIn())
    with pytest.raises(ValueError, match="called OWNER/NAME"):
        push_run(run, "plans", api=StandIn())


@pytest.mark.parametrize("error", [ConnectionError("offline"), HTTPError("no route")])
def test_a_push_that_fails_says_that_the_run_is_whole(run, error):
    with pytest.raises(HubError, match=r"The run is whole in .*latentplan push"):
        push_run(run, "owner/plans", api=StandIn(error))


def test_the_command_pushes(run, monkeypatch):
    api = StandIn()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda token=None: api)
    done = CliRunner().invoke(app, ["push", str(run), "owner/plans", "--private"])
    assert done.output.strip() == "https://huggingface.co/owner/plans"
    assert api.calls[0][2]["private"] is True
    done = CliRunner().invoke(app, ["push", str(run / "model"), "owner/plans"])
    assert done.exit_code == 2
    assert "no finished run" in done.output


def test_the_command_says_that_the_hub_is_offline(run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = CliRunner().invoke(app, ["push", str(run), "owner/plans"])
    assert done.exit_code == 2
    assert "could not be pushed" in done.output


def test_a_run_pushes_itself_when_it_has_finished(run_sft, tmp_path, monkeypatch):
    """Once, at its end: the Trainer's own pushing of checkpoints is off."""
    api = StandIn()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda token=None: api)
    hub_settings = {"push_to_hub": True, "hub_model_id": "owner/own", "hub_private_repo": True}
    settings = {"method": "no_cot", "curriculum_steps": [2], "save_strategy": "no", **hub_settings}
    run = run_sft(tmp_path / "own", **settings)
    assert [call[:2] for call in api.calls] == [("create", "owner/own"), ("upload", "owner/own")]
    assert run.finished
    with pytest.raises(ValueError, match="called OWNER/NAME"):
        run_sft(tmp_path / "nameless", **{**settings, "hub_model_id": None})


def test_a_token_is_not_written_down(run_sft, tmp_path):
    run = run_sft(tmp_path, method="no_cot", curriculum_steps=[1], save_strategy="no", hub_token="hf_secret")
    assert "hf_secret" not in (run.path / "config.yaml").read_text() + (run.path / "run.json").read_text()
    assert hub.REPOSITORY.fullmatch("a/b")
    assert ModelArguments().trust_remote_code is False
