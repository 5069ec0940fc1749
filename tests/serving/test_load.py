"""Many clients at once over loopback, mixed attachments: nothing is lost, nothing is mixed up."""

from __future__ import annotations

import asyncio
import random
import re

import httpx
import pytest

from serving.process import Running
from serving.test_process import listening
from serving.tiny_runs import serving
from tasks.tiny_text import words
from unipetl.experiment import predict

pytestmark = pytest.mark.slow  # a process takes seconds to start
REQUESTS, CLIENTS, SECONDS = 400, 40, 120


@serving
async def test_nothing_is_lost_or_mixed_up_under_load(classifiers):
    texts = [words(*range(number, number + 1 + number % 6)) for number in range(20)]
    right = {(name, row["input"]): row for name, path in classifiers.items() for row in predict(path, texts)}
    draw = random.Random(1)
    asked = [(draw.choice(list(classifiers)), draw.sample(texts, draw.randint(1, 3))) for _ in range(REQUESTS)]
    left = iter(enumerate(asked))
    answers = {}
    with Running(*(f"{name}={path}" for name, path in classifiers.items()), "--max-wait-ms", 10) as server:
        async with httpx.AsyncClient(base_url=server.url(), timeout=60) as client, asyncio.timeout(SECONDS):
            await listening(client)

            async def one():
                for number, (name, inputs) in left:
                    while number not in answers:
                        answer = await client.post("/v1/classify", json={"attachment": name, "inputs": inputs})
                        if answer.status_code != 503:
                            answers[number] = answer
                        else:
                            await asyncio.sleep(0.1)

            await asyncio.gather(*(one() for _ in range(CLIENTS)))
            metrics = (await client.get("/metrics")).text
    for number, (name, inputs) in enumerate(asked):
        found = answers[number].json()
        assert found["attachment"] == name
        assert len(found["results"]) == len(inputs)
        for text, result in zip(inputs, found["results"], strict=True):
            assert result["label"] == right[name, text]["predicted"]
            assert result["probability"] == pytest.approx(right[name, text]["probability"], abs=5e-5)
    count = sum(float(number) for number in re.findall(r'unipetl_rows_total{action="classify".*} (\S+)', metrics))
    assert count == sum(len(inputs) for _, inputs in asked), "every text is computed once"
    batches = sum(map(float, re.findall(r'unipetl_batch_rows_count{action="classify"} (\S+)', metrics)))
    attachments = sum(map(float, re.findall(r'unipetl_batch_attachments_sum{action="classify"} (\S+)', metrics)))
    assert attachments > batches, "some batches are mixed"
