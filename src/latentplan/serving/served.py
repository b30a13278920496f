"""`ServedModel`: a model under its name, and the one thread that computes with it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from latentplan.modeling.loading import LoadedModel
from latentplan.serving.settings import ServeSettings

Result = TypeVar("Result")


class ServedModel:
    """A model that is being served.

    Args:
        name: under which clients ask for it.
        model: the model.
        settings: of the server.
    """

    def __init__(self, name: str, model: LoadedModel, settings: ServeSettings):
        self.name, self.model, self.settings = name, model, settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"model {name}")

    def call(self, function: Callable[[LoadedModel], Result]) -> Future[Result]:
        """Has the model's own thread call a function with the model, between two passes of its batch.

        From a coroutine: `await asyncio.wrap_future(served.call(function))`. Other requests wait meanwhile,
        so it should take well under a second.
        """
        return self._thread.submit(function, self.model)

    def close(self) -> None:
        """Finishes what has been asked for, and ends the thread."""
        self._thread.shutdown(wait=True)
