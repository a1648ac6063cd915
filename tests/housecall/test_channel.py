"""Every channel of ours: a deadline for each unary call, and a proxy only where one belongs."""

from __future__ import annotations

import ast
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

import housecall.rpc
from housecall.errors import Refusal
from housecall.proxy import chosen, is_direct, parse
from housecall.rpc import bounded, refusals

ROOT = Path(__file__).parents[2]


def test_a_call_that_names_no_deadline_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housecall.rpc, "CALL_SECONDS", 0.2)
    ended = []

    def never(request: bytes, context: grpc.ServicerContext) -> bytes:
        while context.is_active():
            time.sleep(0.01)
        ended.append(request)
        return b""

    handler = grpc.method_handlers_generic_handler(
        "test.Silent", {"Call": grpc.unary_unary_rpc_method_handler(never)}
    )
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with bounded(grpc.insecure_channel(f"127.0.0.1:{port}")) as channel:
            call: Any = channel.unary_unary("/test.Silent/Call")
            with pytest.raises(Refusal) as caught, refusals("silent"):
                call(b"x")
            assert caught.value.code == "DEADLINE"
            with pytest.raises(Refusal), refusals("silent"):
                call(b"y", timeout=0.01)
        server.stop(0).wait()
    assert ended


@pytest.mark.parametrize(
    ("room", "opened"),
    [
        ("agent", {"secure_channel"}),
        ("housecall", {"secure_channel"}),
        ("cli", {"secure_channel", "insecure_channel"}),
    ],
)
def test_no_channel_is_opened_without_deadlines(room: str, opened: set[str]) -> None:
    for path in (ROOT / room).rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        inside = {
            id(argument)
            for call in calls
            if isinstance(call.func, ast.Name) and call.func.id == "bounded"
            for argument in call.args
        }
        for call in calls:
            if isinstance(call.func, ast.Attribute) and call.func.attr in opened:
                assert id(call) in inside, f"{path}:{call.lineno}: wrap the channel in `bounded`"


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://environment:3128")
    return monkeypatch


def test_what_was_set_wins_over_the_environment(proxied: pytest.MonkeyPatch) -> None:
    given, found = parse("http://given:8080"), chosen("host.example:443")
    assert found == parse("http://environment:3128")
    assert chosen("host.example:443", given) == given
    proxied.setenv("https_proxy", "http://lower:1")
    assert chosen("host.example:443") == parse("lower:1")
    assert chosen("host.example:80", None, "HTTP_PROXY") is None


@pytest.mark.parametrize(
    ("address", "direct"),
    [
        ("127.0.0.1:443", True),
        ("127.8.8.8:443", True),
        ("localhost:443", True),
        ("[::1]:443", True),
        ("unix:/run/agent.sock", True),
        ("example.org:443", True),
        ("a.example.org:443", True),
        ("A.Example.org:443", True),
        ("notexample.org:443", False),
        ("dotted.net:443", True),
        ("a.dotted.net:443", True),
        ("ported.net:443", True),
        ("10.1.2.3:443", True),
        ("10.2.2.3:443", False),
        ("192.0.2.7:443", True),
        ("[fd00::1]:443", True),
        ("[fd01::1]:443", False),
        ("8.8.8.8:443", False),
    ],
)
def test_no_proxy(proxied: pytest.MonkeyPatch, address: str, direct: bool) -> None:
    names = "example.org, .dotted.net ,ported.net:443,10.1.0.0/16,192.0.2.7,fd00::/16"
    proxied.setenv("NO_PROXY", names)
    assert is_direct(address) is direct
    assert (chosen(address, parse("given:1")) is None) is direct
    proxied.setenv("NO_PROXY", "*")
    assert is_direct(address)
