"""Pages served to one person: which requests are answered, and what a page may load."""

from __future__ import annotations

import http.client
import re
import threading

import pytest

from maskdet.errors import ConfigError
from maskdet.loopback import JSON, NONCE, LoopbackHandler, address_of, listen

PAGE = f'<style nonce="{NONCE}"></style><script nonce="{NONCE}"></script>'


class Handler(LoopbackHandler):
    def get(self):
        if not self.is_ours:
            self.answer(403, b"no")
        elif self.path == "/":
            self.answer_page(PAGE, "blob:")
        else:
            self.answer(200, b"{}", JSON)


@pytest.fixture(scope="module")
def server():
    server = listen(Handler, 0, "--port")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(server, method="GET", path="/", headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, headers=dict(headers))
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply.status, dict(reply.headers), body


def test_a_page_may_run_its_own_scripts_and_no_others(server):
    status, headers, body = ask(server)
    nonces = set(re.findall(r'nonce="([^"]+)"', body))
    assert status == 200 and len(nonces) == 1 and NONCE not in body
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["script-src"] == policy["style-src"] == f"'nonce-{nonces.pop()}'"
    assert (policy["default-src"], policy["img-src"], policy["frame-ancestors"]) == ("'none'", "blob:", "'none'")
    assert ask(server)[2] != body


def test_nothing_is_kept_framed_or_taken_for_what_it_is_not(server):
    status, headers, body = ask(server, path="/now.json")
    assert (status, body, headers["Content-Type"], headers["Content-Length"]) == (200, "{}", "application/json", "2")
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert headers["Content-Security-Policy"] == "default-src 'none'"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:{port}"}, 200),
        ({"Host": "evil.example:{port}"}, 403),
        ({"Host": "127.0.0.1.evil.example:{port}"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_names_and_other_pages_are_refused(server, given, status):
    headers = {name: value.format(port=server.server_address[1]) for name, value in given.items()}
    assert ask(server, headers=headers)[0] == status


def test_what_a_server_does_not_answer_is_not_there(server):
    assert ask(server, "POST")[0] == 404
    assert ask(server, "PUT")[0] == 501


def test_only_this_machine_is_listened_to_and_a_taken_port_is_named(server):
    host, port = server.server_address
    assert host == "127.0.0.1" and address_of(server, "a/") == f"http://127.0.0.1:{port}/a/"
    for taken in (port, 65536):
        with pytest.raises(ConfigError, match="--page: expected a port that is free"):
            listen(Handler, taken, "--page")
