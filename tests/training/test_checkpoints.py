"""Damaged checkpoints are passed over; what does not fit the model is refused by name."""

import json
import logging

import pytest
import torch

from latentplan.modeling.saving import CheckpointMismatchError
from latentplan.training.checkpoints import (
    damage,
    last_checkpoint,
    load_optimizer,
    load_weights,
    read_weights,
    save_optimizer,
    write_manifest,
)


@pytest.fixture
def three(tmp_path):
    """Three whole checkpoints, of steps 9, 10 and 100."""
    for step in (9, 10, 100):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "step_decoder").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes([step]) * 1000)
        (folder / "step_decoder" / "model.safetensors").write_bytes(b"decoder")
        (folder / "trainer_state.json").write_text("{}")
        write_manifest(folder)
    return tmp_path


def test_the_newest_is_the_one_with_the_highest_step(three):
    assert last_checkpoint(three) == str(three / "checkpoint-100")
    (three / "checkpoint-200.tmp").mkdir()
    (three / "checkpoint-900").write_text("a file")
    assert last_checkpoint(three) == str(three / "checkpoint-100")
    assert last_checkpoint(three / "nowhere") is None


def truncate(folder):
    (folder / "model.safetensors").write_bytes(b"d" * 999)


def flip(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[500] ^= 1
    (folder / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (truncate, "model.safetensors has 999 bytes instead of 1000"),
        (flip, "model.safetensors is not what was written"),
        (
            lambda folder: (folder / "step_decoder/model.safetensors").unlink(),
            "step_decoder/model.safetensors is",
        ),
        (lambda folder: (folder / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text('{"model'), "manifest.json cannot be read"),
    ],
    ids=["truncated", "one bit", "missing file", "no manifest", "torn manifest"],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_message(harm, reason, three, caplog):
    harm(three / "checkpoint-100")
    assert reason in damage(three / "checkpoint-100")
    with caplog.at_level(logging.WARNING):
        assert last_checkpoint(three) == str(three / "checkpoint-10")
    assert "checkpoint-100 is damaged" in caplog.text
    assert reason in caplog.text


def test_without_a_whole_checkpoint_there_is_none(three):
    for step in (9, 10, 100):
        truncate(three / f"checkpoint-{step}")
    assert last_checkpoint(three) is None


@pytest.fixture
def saved(make_system, clock_tokenizer, tmp_path):
    system = make_system("atp_latent")
    system.save_pretrained(tmp_path / "saved", clock_tokenizer)
    return system, tmp_path / "saved"


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_weights_come_back_into_a_system(tied, make_system, clock_tokenizer, tmp_path):
    system, other = (
        make_system("atp_latent", seed=seed, backbone={"tie_word_embeddings": tied}) for seed in (0, 1)
    )
    system.save_pretrained(tmp_path, clock_tokenizer)
    load_weights(other, read_weights(tmp_path), "it")
    for name, value in system.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_what_does_not_fit_is_named(saved, make_system):
    _, folder = saved
    weights = read_weights(folder)
    gone = "reasoner.latent_head.mean.weight"
    del weights[gone]
    weights["reasoner.value_head.weight"] = torch.zeros(1)
    weights["reasoner.stop_head.layers.2.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointMismatchError) as refused:
        load_weights(make_system("atp_latent"), weights, "checkpoint-7")
    message = str(refused.value)
    assert "checkpoint-7 does not fit the model" in message
    assert f"1 missing: {gone}" in message
    assert "1 unexpected: reasoner.value_head.weight" in message
    assert "1 of another shape: reasoner.stop_head.layers.2.bias [3], expected [2]" in message


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointMismatchError, match="holds no model"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
        lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
        lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    ],
    ids=["adamw", "momentum", "sgd"],
)
def test_an_optimizer_goes_on_as_if_it_had_never_stopped(make, tmp_path):
    def model():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))

    def step(net, optimizer, seed):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        net(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()

    whole, half = model(), model()
    first, second = make(whole.parameters()), make(half.parameters())
    for seed in (1, 2):
        step(whole, first, seed)
        step(half, second, seed)
    save_optimizer(second, half, tmp_path, writes=True)
    third = make(half.parameters())
    load_optimizer(third, half, tmp_path)
    for seed in (3, 4):
        step(whole, first, seed)
        step(half, third, seed)
    for one, other in zip(whole.parameters(), half.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_optimizer_of_other_parameters_is_refused(tmp_path):
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False)
    save_optimizer(torch.optim.AdamW(one.parameters()), one, tmp_path, writes=True)
    with pytest.raises(ValueError, match="trained other parameters"):
        load_optimizer(torch.optim.AdamW(other.parameters()), other, tmp_path)


def test_a_checkpoint_of_a_run_holds_no_pickled_weights(run_sft, tmp_path):
    run = tmp_path / "run"
    kept = {}

    def keep(folder):
        for path in folder.glob("checkpoint-*/**/*"):
            kept[str(path.relative_to(folder))] = path

    from latentplan.training.run_directory import RunDirectory

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDirectory, "finish", lambda self: keep(self.path))
        run_sft(run, save_steps=3, save_total_limit=2)
    names = {name.split("/", 1)[1] for name in kept}
    assert {"model.safetensors", "optimizer.safetensors", "scheduler.json", "manifest.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt"))]
    assert {name.split("/", 1)[0] for name in kept} == {"checkpoint-6", "checkpoint-9"}
    listed = json.loads((run / "checkpoint-9" / "manifest.json").read_text())
    assert set(listed) == {
        name.split("/", 1)[1]
        for name, path in kept.items()
        if name.startswith("checkpoint-9") and path.is_file() and path.name != "manifest.json"
    }
