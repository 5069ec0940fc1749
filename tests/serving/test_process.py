"""A server in a process of its own, stopped while it works."""

from __future__ import annotations

import asyncio
import json
import signal
import time

import httpx
import pytest

from serving.process import Running
from serving.tiny_runs import serving
from tasks.tiny_text import words
from unipetl.errors import ServingError
from unipetl.serving import bind

pytestmark = pytest.mark.slow  # a process takes seconds to start

TEXTS = [words(number, number + 1, 3) for number in range(16)]


async def listening(client):
    """Wait until it answers: the log says the address before it takes connections."""
    for _ in range(200):
        try:
            return await client.get("/health")
        except httpx.ConnectError:
            await asyncio.sleep(0.05)
    raise AssertionError("nobody listens")


@serving
async def test_what_was_accepted_is_answered_after_the_signal(classifiers):
    arguments = [f"{name}={classifiers[name]}" for name in ("lora", "bitfit")]
    with Running(*arguments, "--max-wait-ms", 1500, "--grace", 30) as server:
        async with httpx.AsyncClient(base_url=server.url(), timeout=60) as client:
            assert (await listening(client)).json()["attachments"] == 2

            async def ask(number):
                body = {"attachment": ("lora", "bitfit", None)[number % 3], "inputs": TEXTS[number]}
                return await client.post("/v1/classify", json=body)

            waiting = [asyncio.create_task(ask(number)) for number in range(len(TEXTS))]
            for _ in range(100):  # all are accepted and wait for company
                await asyncio.sleep(0.05)
                if (await client.get("/health")).json()["waiting"] == len(TEXTS):
                    break
            sent = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*waiting)
            assert [answer.status_code for answer in answers] == [200] * len(TEXTS)
            assert {answer.json()["attachment"] for answer in answers} == {"lora", "bitfit", None}
            with pytest.raises(httpx.ConnectError):
                await client.post("/v1/classify", json={"inputs": "w1"})
        assert server.end() == 0
        assert time.monotonic() - sent < 30
        lines = [json.loads(line) for line in server.lines]
        asked = [line for line in lines if line.get("path") == "/v1/classify" and line["status"] == 200]
        assert len(asked) == len(TEXTS)
        assert lines[-1]["message"] == "stopped; everything accepted was answered"
        assert "w1" not in "".join(server.lines), "texts are not logged"


@serving
async def test_what_takes_longer_than_the_grace_time_is_given_up_and_said(causal):
    with Running(f"lora={causal['lora']}", "--grace", 1, "--timeout", 600) as server:
        async with httpx.AsyncClient(base_url=server.url(), timeout=120) as client:
            await listening(client)
            body = {"attachment": "lora", "inputs": ["w1 w2"] * 64, "max_new_tokens": 200, "min_new_tokens": 200}
            asked = asyncio.create_task(client.post("/v1/generate", json={**body, "sampling": {"seed": 1}}))
            while not (await client.get("/health")).json()["waiting"]:
                await asyncio.sleep(0.05)
            server.process.send_signal(signal.SIGTERM)
            (outcome,) = await asyncio.gather(asked, return_exceptions=True)
        assert isinstance(outcome, httpx.RemoteProtocolError) or outcome.status_code >= 500
        assert server.end() == 1
        assert "given up" in server.lines[-1]


def test_an_address_of_another_machine_names_the_option():
    with pytest.raises(ServingError, match="--host takes an address of this machine"):
        bind("192.0.2.1", 0)  # which RFC 5737 keeps for documentation
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ServingError, match="Another --port may be free"):
            bind("127.0.0.1", taken.getsockname()[1])
