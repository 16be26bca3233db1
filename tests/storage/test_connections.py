"""When reads bypass the client libraries."""

import pytest

from maskdet.storage.connections import are_direct

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.mark.parametrize(
    ("variables", "url", "direct"),
    [
        ({}, "https://storage.googleapis.com", True),
        ({"https_proxy": "http://proxy:1"}, "https://storage.googleapis.com", False),
        ({"http_proxy": "http://proxy:1"}, "https://storage.googleapis.com", True),
        ({"https_proxy": "http://proxy:1", "no_proxy": ".googleapis.com"}, "https://storage.googleapis.com/x", True),
        ({"http_proxy": "http://proxy:1", "no_proxy": "localhost"}, "http://localhost:9000", True),
    ],
)
def test_a_proxy_is_left_to_the_library(variables, url, direct, monkeypatch):
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert are_direct(url) is direct
