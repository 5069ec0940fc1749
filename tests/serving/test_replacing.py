"""A newer file in an attachment's place, under load: every row has one version's values, and nobody else waits."""

from __future__ import annotations

import asyncio
import shutil

import pytest
import torch
from transformers import AutoModel

import unipetl
from serving.tiny_runs import TWO, client_of, engine_of, labelled, make_run, serving, varied
from tasks.tiny_text import save_bert, words
from unipetl.serving import Limits, Source

METHOD = "mam(length=2, rank=2, mlp=none) + bitfit"
TEXTS = [words(number, number + 1, number + 2) for number in range(5)]
VERSIONS = [f"v{number}" for number in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of one method and other values, which draw them from their names, and one of another method."""
    folder = tmp_path_factory.mktemp("versions")
    base = varied(save_bert(folder / "base"), AutoModel)
    for name in (*VERSIONS, "steady", "other"):
        method = "lora(rank=2)" if name == "other" else METHOD
        make_run(folder / name, "csv-classification", base, method, rows=labelled(TWO))
    return folder


@pytest.fixture(scope="module")
def right(folder):
    """The probabilities of every text by every version, computed one by one."""
    engine, served = engine_of({name: folder / name for name in (*VERSIONS, "steady", "other")})
    return {one.name: probabilities(engine, one) for one in served}


def probabilities(engine, served):
    lane = served.lane
    return torch.cat([lane.classify(engine.read(served, [text]), [served.key]) for text in TEXTS])


def version_of(found, right, tolerance=1e-4):
    """The one version that computed (texts, labels); None if there is no such."""
    fitting = [name for name, wanted in right.items() if torch.allclose(found, wanted, atol=tolerance)]
    return fitting[0] if len(fitting) == 1 else None


async def asked(client, name):
    answer = await client.post("/v1/classify", json={"attachment": name, "inputs": TEXTS})
    assert answer.status_code == 200, answer.text
    return torch.tensor([list(one["probabilities"].values()) for one in answer.json()["results"]])


async def replaced(client, version, name="hot"):
    answer = await client.put(f"/v1/attachments/{name}", json={"path": version})
    assert answer.status_code == 200, answer.text


def on_model(served):
    return [one.name for one in unipetl.attachments(served.lane.model)]


@serving
async def test_under_load_every_request_has_the_values_of_one_version(folder, right):
    engine, served = engine_of({"hot": folder / "v0", "steady": folder / "steady"})
    limits = Limits(max_wait_ms=1, max_batch_rows=3)  # so a request's texts lie in several batches
    seen, stop = [], asyncio.Event()
    async with client_of(engine, served, limits=limits, allow_load=folder) as client:

        async def load(name):
            while not stop.is_set():
                seen.append((name, version_of(await asked(client, name), right)))

        clients = [asyncio.create_task(load(name)) for name in ("hot", "hot", "hot", "steady")]
        for number in range(1, 17):
            await replaced(client, VERSIONS[number % len(VERSIONS)])
            version = version_of(await asked(client, "hot"), right)
            assert version == VERSIONS[number % len(VERSIONS)], "whoever asks after the answer gets the new values"
        stop.set()
        await asyncio.gather(*clients)
    hot = {version for name, version in seen if name == "hot"}
    assert None not in hot
    assert len(hot) > 1
    assert {version for name, version in seen if name == "steady"} == {"steady"}
    assert len(on_model(served[0])) <= 4, "the steady one, the hot one, its spare, and one that still answers"


@serving
async def test_what_nobody_uses_is_replaced_in_place_and_compiled_code_stays(folder, right, monkeypatch):
    engine, served = engine_of({"hot": folder / "v0"})
    tensors = dict(unipetl.attachments(served[0].lane.model)[0].tensors())
    attached = []
    real = engine.attach
    monkeypatch.setattr(engine, "attach", lambda opened: attached.append(opened) or real(opened))
    async with client_of(engine, served, allow_load=folder) as client:
        for version in ("v1", "v2"):
            await replaced(client, version)
            assert version_of(await asked(client, "hot"), right) == version
            facts = (await client.get("/v1/attachments")).json()["attachments"][0]
            assert facts["sha256"] == unipetl.saved.read(folder / version / "adapter").description["sha256"]
        (now,) = unipetl.attachments(served[0].lane.model)
        assert all(value is tensors[name] for name, value in now.tensors().items())
        assert attached == []
        await replaced(client, "other")  # another method is put beside it
        assert len(attached) == 1
        assert version_of(await asked(client, "hot"), right) == "other"
        await replaced(client, "v3")
        assert version_of(await asked(client, "hot"), right) == "v3"


@serving
async def test_while_somebody_uses_the_old_values_the_new_ones_go_into_a_spare(folder, right):
    engine, served = engine_of({"hot": folder / "v0"})
    async with client_of(engine, served, limits=Limits(max_wait_ms=200), allow_load=folder) as client:
        keys = []
        for number in range(1, 6):
            waiting = asyncio.create_task(asked(client, "hot"))
            await asyncio.sleep(0.05)
            await replaced(client, VERSIONS[number % 4])
            assert not waiting.done()
            assert version_of(await waiting, right) == VERSIONS[(number - 1) % 4]
            assert version_of(await asked(client, "hot"), right) == VERSIONS[number % 4]
            keys.append(client.service.served["hot"].key)
        assert len(set(keys)) == 2, "two attachments take turns"
        assert keys[0] != keys[1] != keys[2]
        assert (await client.delete("/v1/attachments/hot")).status_code == 204
        await asyncio.sleep(0.1)
        assert on_model(served[0]) == [], "the spare leaves too"


@serving
async def test_a_torn_file_leaves_what_is_served(folder, right, tmp_path):
    shutil.copytree(folder / "v1", tmp_path / "torn")
    file = tmp_path / "torn" / "adapter" / "unipetl.safetensors"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    engine, served = engine_of({"hot": folder / "v0"})
    async with client_of(engine, served, allow_load=tmp_path) as client:
        answer = await client.put("/v1/attachments/hot", json={"path": "torn"})
        assert answer.status_code == 422
        assert version_of(await asked(client, "hot"), right) == "v0"


def test_planted_half_swapped_values_would_show(folder, right):
    engine, (hot,) = engine_of({"hot": folder / "v0"})
    new = unipetl.saved.read(folder / "v1" / "adapter").tensors
    (attachment,) = unipetl.attachments(hot.lane.model)
    assert version_of(probabilities(engine, hot), right) == "v0"
    with torch.no_grad():
        for number, (name, value) in enumerate(attachment.tensors().items()):
            if number % 2:
                value.copy_(new[name])
    assert version_of(probabilities(engine, hot), right) is None
    opened = engine.open(Source("hot", folder / "v1"))
    assert version_of(probabilities(engine, engine.refresh(opened, hot)), right) == "v1"
