from __future__ import annotations

import pytest

from latentplan.serving.settings import ServeSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_batch_size": 0}, "max_batch_size must be at least 1"),
        ({"max_wait_ms": -1}, "max_wait_ms must not be negative"),
        ({"request_timeout": 0}, "request_timeout must be above 0"),
        ({"max_samples": 9, "max_queue": 8}, "such a request would never be taken"),
        ({"api_key": " "}, "the API key is empty"),
        ({"api_key": "schl\u00fcssel"}, "ASCII"),
        ({"api_key": "two words"}, "no space"),
    ],
)
def test_settings_that_cannot_be_meant(settings, message):
    with pytest.raises(ValueError, match=message):
        ServeSettings(**settings)
