"""Pushing a finished run's model to the Hugging Face hub.

The model card: `README.md` of a model folder, made from what its run has recorded.

It is written when a run ends, again after every evaluation, and before a model is pushed. It holds nothing
that was not recorded; a licence is for the owner of the data and the backbone to choose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from latentplan.common.files import write_atomically
from latentplan.common.renamed_settings import renamed_settings
from latentplan.common.run_files import (
    EVALUATION,
    MODEL,
    MODEL_CARD,
    RECORD,
    SETTINGS,
    is_finished,
    read_mapping,
    run_of,
    trained_model,
)
from latentplan.common.text_table import ABSENT, decimal, markdown_table, percent
from latentplan.modeling.configuration import current_names
from latentplan.modeling.folders.damage import blamed_on, read_json, read_yaml

_SETTINGS = """
objectives latent_head stop_head latents_per_step max_latent_steps curriculum_stages
curriculum_steps curriculum_epochs effective_batch_size max_steps learning_rate
learning_rate_factors lr_scheduler_type
per_device_train_batch_size gradient_accumulation_steps num_generations answers_per_latent
objective latent_gradient reward_funcs reward_weights temperature latent_temperature beta epsilon
chat_template system_prompt dtype bf16 freeze_backbone use_peft lora_r lora_alpha lora_target_modules seed
"""
_VERSIONS = ("latentplan", "python", "torch", "transformers")
_LOADING = """```python
from huggingface_hub import snapshot_download  # or a local folder instead of it
from latentplan.modeling.loading import load_model
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.solve import solve

model = load_model(snapshot_download("{name}"))
(solution,) = solve(model, ["{question}"], Sampling.greedy())[0]
print(solution.plan, solution.completion, solution.num_latents)
```

In plain transformers, with latentplan installed:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("{name}", trust_remote_code=True)
messages = [{{"role": "user", "content": "{question}"}}]
asked = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
print(tokenizer.decode(model.generate(**asked)[0]))
```
"""


def write_model_card(run: Path, name: str | None = None) -> Path:
    """Writes the card of a run's model, and returns it.

    Args:
        run: a run directory with a model.
        name: OWNER/NAME on the hub; the run's name where it is None.

    Raises:
        DamagedModelError: the run has no model or no record, or one of them is damaged.
    """
    record, settings = read_json(run / RECORD), _settings(run)
    model = current_names(read_json(trained_model(run)))
    with blamed_on(run, "its record does not describe a run"):
        card = _card(run, name, record, settings, model)
    return write_atomically(run / MODEL / MODEL_CARD, card)


def _card(
    run: Path, name: str | None, record: dict[str, Any], settings: dict[str, Any], model: dict[str, Any]
) -> str:
    base = record["base_model"] if "base_model" in record else base_model(settings)
    parts = [
        _metadata(settings, model, base),
        f"# {name or run.name}",
        _summary(model, base),
        "## Use",
        _LOADING.format(name=name or run.name, question="How many pens are 3 pens and 4 pens?"),
        "## Training",
        _training(record, settings, [*_SETTINGS.split(), *(model.get("method_settings") or {})]),
        "## Evaluation",
        evaluation_table(run / EVALUATION),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def base_model(settings: dict[str, Any]) -> str | None:
    """The language model that a chain of runs began with: OWNER/NAME, or the name of a local folder.

    None where it was trained from scratch. A run records it when it ends, while its paths still lead there.
    """
    name, seen = settings.get("model_name_or_path"), set[str]()
    while name and name not in seen:
        seen.add(name)
        run = run_of(Path(name), holding=RECORD)
        if run is None:
            return Path(name).name if Path(name).exists() else name
        record = read_json(run / RECORD)
        if "base_model" in record:
            return record["base_model"]
        name = _settings(run).get("model_name_or_path")
    return None


def _settings(run: Path) -> dict[str, Any]:
    return renamed_settings(read_yaml(run / SETTINGS))


def evaluation_table(folder: Path) -> str:
    """The results in an evaluation folder as a Markdown table."""
    rows = []
    for file in sorted(folder.glob("*.json")):
        try:
            rows.append(_evaluation_row(read_mapping(file)))
        except (ValueError, KeyError, TypeError):
            continue  # not a result of ours
    if not rows:
        return "Not evaluated yet."
    head = ["benchmark", "problems", "sampling", "accuracy", "95% interval", "tokens", "coherence"]
    return markdown_table(head, rows)


def _evaluation_row(result: dict[str, Any]) -> list[str]:
    sampling, accuracy = result["sampling"], result["accuracy"]
    greedy = sampling["temperature"] == sampling["latent_temperature"] == 0
    drawn = f"{result['num_generations']} at temperature {sampling['temperature']:g}"
    low, high = accuracy.get("low"), accuracy.get("high")
    interval = ABSENT if low is None or high is None else f"{percent(low)} to {percent(high)}"
    measured = result.get("coherence") or {}
    coherent = measured.get("strict") if measured.get("natural") is None else measured["natural"]
    return [
        result["benchmark"],
        f"{result['num_problems']:,}",
        "greedy" if greedy else drawn,
        percent(accuracy["estimate"]),
        interval,
        decimal(result["tokens"]["mean"]),
        percent(coherent),
    ]


def _metadata(settings: dict[str, Any], model: dict[str, Any], base: str | None) -> str:
    values: dict[str, Any] = {"library_name": "latentplan", "pipeline_tag": "text-generation"}
    if base is not None and _is_hub_name(base):
        values["base_model"] = base
    datasets = [name for name in settings.get("dataset_name") or [] if _is_hub_name(name)]
    if datasets:
        values["datasets"] = datasets
    values["tags"] = ["latent-reasoning", model["method"].replace("_", "-")]
    return "---\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True) + "---"


def _is_hub_name(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/")) and not Path(name).exists()


def _summary(model: dict[str, Any], base: str | None) -> str:
    backbone = model["backbone_config"]
    origin = "trained from scratch" if base is None else f"from `{base}`"
    text = (
        f"A language model trained with the method `{model['method']}` of latentplan; backbone: "
        f"{backbone['model_type']}, {origin}."
    )
    if model.get("latent_head"):
        factor = model.get("tokens_per_latent")
        each = f"{model['latents_per_step']} for a reasoning step"
        each = each if factor is None else f"one for {factor} tokens of the reasoning"
        text += (
            f" It reasons in up to {model['latents_per_step'] * model['max_latent_steps']} continuous latent "
            f"tokens ({each}), then writes its answer behind `{model['answer_marker'].strip()}`."
        )
    if model.get("chat_template"):
        text += " Questions are laid out by the tokenizer's chat template."
    return text


def _training(record: dict[str, Any], settings: dict[str, Any], shown: Sequence[str]) -> str:
    data = record.get("data") or {}
    lines = [
        f"- data: {', '.join(map(str, settings.get('dataset_name') or []))}; {data.get('num_problems', '?')} "
        f"problems, fingerprint `{data.get('fingerprint', '?')}`",
        f"- parameters: {record.get('num_parameters', 0):,}",
        f"- seconds: {record.get('seconds', '?')}, on {record.get('device', '?')}",
    ]
    versions = record.get("versions") or {}
    lines.append(
        "- versions: " + ", ".join(f"{name} {versions[name]}" for name in _VERSIONS if name in versions)
    )
    rows = [
        [f"`{name}`", f"`{settings[name]}`"]
        for name in shown
        if settings.get(name) not in (None, False, -1, "", [], {})
    ]
    return "\n".join([*lines, "", markdown_table(["setting", "value"], rows)])


REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class HubError(ValueError):
    """A model could not be pushed; the message says why, and that the run is whole."""


def check_repository(name: str | None) -> str:
    """The name as it is. Raises ValueError unless it is OWNER/NAME."""
    if name is None or not REPOSITORY.fullmatch(name):
        raise ValueError(f"a repository on the hub is called OWNER/NAME, got {name!r} (hub_model_id)")
    return name


def push_run(
    run: Path, repository: str, private: bool | None = None, token: str | None = None, api: Any = None
) -> str:
    """Uploads a finished run's model folder with its card, and returns the address.

    Args:
        run: the run directory.
        repository: OWNER/NAME; made where it does not exist.
        private: whether a new repository is private; None leaves it to the owner's default.
        token: of the hub; None uses the one of `hf auth login`.
        api: a stand-in for `huggingface_hub.HfApi`.

    Raises:
        ValueError: the run is not finished, or the repository's name is none.
        HubError: the hub cannot be reached, or does not let you.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    check_repository(repository)
    if not ((run / RECORD).is_file() and is_finished(run, read_json(run / RECORD))):
        raise ValueError(f"{run} is no finished run: train it to its end first, then push it")
    write_model_card(run, repository)
    api = api or HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(
            repo_id=repository, folder_path=run / MODEL, commit_message=f"latentplan run {run.name}"
        )
    except (OSError, HTTPError) as error:
        raise HubError(
            f"{repository} could not be pushed: {error}. The run is whole in {run}; when the hub can be "
            f"reached and you are logged in (hf auth login): latentplan push {run} {repository}"
        ) from error
    return f"https://huggingface.co/{repository}"
