"""`ServeSettings`: the limits and defaults of a server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LOCALHOST = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server; those that count trajectories or questions hold for each model.

    Attributes:
        api_key: what clients send as `Authorization: Bearer KEY`, in ASCII; None lets everybody in.
        max_batch_size: trajectories that are computed together at most.
        max_wait_ms: how long a question may wait for company before it joins a batch that is running.
        max_queue: trajectories that wait at most; further requests are refused with 503.
        max_question_tokens: tokens of a question at most.
        max_samples: trajectories of one request at most.
        max_new_tokens: text tokens of a trajectory at most.
        default_new_tokens: text tokens of a trajectory at most where the request does not say.
        temperature: where the request does not say; 0 takes the most probable.
        request_timeout: seconds that a request may take, waiting included.
        last_message_only: whether the last message of a conversation is taken as the question and the rest
            dropped; otherwise a conversation is refused.
        allowed_hosts: what `Host` may say, without the port; `*` for anything. Otherwise a page that has its
            name resolved to this machine could read everything.
        allowed_origins: the pages of other addresses that may ask (CORS); `*` for all.
    """

    api_key: str | None = field(default=None, repr=False)
    max_batch_size: int = 64
    max_wait_ms: float = 5.0
    max_queue: int = 512
    max_question_tokens: int = 1024
    max_samples: int = 64
    max_new_tokens: int = 512
    default_new_tokens: int = 128
    temperature: float = 0.0
    request_timeout: float = 60.0
    last_message_only: bool = False
    allowed_hosts: tuple[str, ...] = LOCALHOST
    allowed_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_queue", "max_question_tokens", "max_samples", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_wait_ms", "temperature"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.request_timeout <= 0:
            raise ValueError(f"request_timeout must be above 0 seconds, got {self.request_timeout}")
        if self.max_samples > self.max_queue:
            raise ValueError(
                f"max_samples is {self.max_samples}, but only {self.max_queue} trajectories may wait "
                "(max_queue): such a request would never be taken"
            )
        for origin in self.allowed_origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(f"allowed_origins must be such as https://example.org, or *, got {origin!r}")
        for host in self.allowed_hosts:
            if not re.fullmatch(r"\*|[\w.-]+|\[?[0-9a-fA-F:]+\]?", host):
                raise ValueError(f"allowed_hosts must be names without a port, or *, got {host!r}")
        if self.api_key is not None and not self.api_key.strip():
            raise ValueError("the API key is empty")
        if self.api_key is not None and not all("!" <= sign <= "~" for sign in self.api_key):
            raise ValueError(
                "the API key may hold ASCII letters, digits and signs only, no space: it is sent in a header"
            )
