"""Pushing a finished run's model to the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latentplan.modeling.folders.damage import read_json
from latentplan.training.model_card import write_model_card

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
    record = run / "run.json"
    finished = record.is_file() and read_json(record).get("status") == "finished"
    if not finished or not (run / "model").is_dir():
        raise ValueError(f"{run} is no finished run: train it to its end first, then push it")
    write_model_card(run, repository)
    api = api or HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(
            repo_id=repository, folder_path=run / "model", commit_message=f"latentplan run {run.name}"
        )
    except (OSError, HTTPError) as error:
        raise HubError(
            f"{repository} could not be pushed: {error}. The run is whole in {run}; when the hub can be "
            f"reached and you are logged in (hf auth login): latentplan push {run} {repository}"
        ) from error
    return f"https://huggingface.co/{repository}"
