"""The endpoints, asked in this process."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import threading
import time
from urllib.parse import quote

import pytest

import unipetl
from serving.tiny_runs import TWO, client_of, engine_of, labelled, make_run, serving
from tasks.tiny_text import save_bert, words
from unipetl.errors import ServingError
from unipetl.serving import Engine, Limits, Service

TEXTS = [words(*range(number, number + 1 + number % 5)) for number in range(12)]


def told(answer, status):
    """The detail of a problem, which must have the one shape that all errors have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert set(found) == {"type", "title", "status", "detail", "faults"}
    assert found["status"] == status
    return found["detail"]


async def classify(client, attachment, inputs):
    answer = await client.post("/v1/classify", json={"attachment": attachment, "inputs": inputs})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


@serving
async def test_every_request_gets_the_answers_of_its_own_attachment(many):
    engine, served = many
    draw = random.Random(0)
    asked = [
        (draw.choice([*(one.name for one in served), None]), draw.sample(TEXTS, draw.randint(1, 4))) for _ in range(20)
    ]
    async with client_of(engine, served, limits=Limits(max_batch_rows=1)) as client:
        alone = {(name, text): (await classify(client, name, text))[0] for name, texts in asked for text in texts}
    async with client_of(engine, served) as client:
        together = await asyncio.gather(*(classify(client, *one) for one in asked))
        text = (await client.get("/metrics")).text
    assert len({round(found["probability"], 4) for found in alone.values()}) > 20, "a mix-up would show"
    for (name, texts), found in zip(asked, together, strict=True):
        for one, answer in zip(texts, found, strict=True):
            assert answer["label"] == alone[name, one]["label"]
            assert answer["probabilities"] == pytest.approx(alone[name, one]["probabilities"], abs=2e-5)
    batches = float(text.split('unipetl_batch_rows_count{action="classify"} ')[1].split()[0])
    assert batches < len(asked), "requests shared batches"
    assert f'unipetl_requests_total{{endpoint="/v1/classify",status="200"}} {float(len(asked))}' in text


@serving
async def test_texts_are_written_as_asked(writing):
    engine, served = writing
    async with client_of(engine, served) as client:

        async def write(**body):
            answer = await client.post("/v1/generate", json={"attachment": "lora", "inputs": TEXTS[:3], **body})
            assert answer.status_code == 200, answer.text
            return [one["text"] for one in answer.json()["results"]]

        settings = [{}, {"max_new_tokens": 2}, {"num_beams": 1}, {"attachment": "prefix"}, {"attachment": None}]
        settings += [{"sampling": {"temperature": 5.0, "seed": seed}} for seed in (1, 2)]
        alone = [await write(**one) for one in settings]
        assert await asyncio.gather(*(write(**one) for one in settings)) == alone
        assert all(len(text.split()) <= 2 for text in alone[1])
        assert await write(max_new_tokens=2.0) == alone[1], "2.0 is a whole number in JSON"
        assert len({tuple(one) for one in alone}) >= 6
        third = await write(inputs=TEXTS[2], sampling={"temperature": 5.0, "seed": 3})
        assert third == alone[-2][2:], "an input's seed follows from its place, and its batch changes nothing"
        assert await write(min_new_tokens=5, max_new_tokens=2) == await write(min_new_tokens=2, max_new_tokens=2)


@serving
async def test_embeddings_have_one_length(many):
    engine, served = many
    async with client_of(engine, served) as client:
        answer = await client.post("/v1/embed", json={"attachment": "mam", "inputs": TEXTS[:2], "normalize": True})
        found = answer.json()
        assert found["dimensions"] == 16
        for vector in found["results"]:
            assert sum(value**2 for value in vector) == pytest.approx(1, rel=1e-5)


@serving
async def test_mistakes_are_told(many, writing):
    engine, served = many
    limits = Limits(max_inputs=3, max_characters=40, max_tokens=8, max_body_bytes=2_000, max_new_tokens=5, max_beams=2)
    async with client_of(engine, served, limits=limits) as client:

        async def ask(path="/v1/classify", **body):
            return await client.post(path, json=body)

        assert "Did you mean 'bitfit'" in told(await ask(attachment="bitfitt", inputs="w1"), 404)
        assert "POST to /v1/classify or /v1/embed" in told(
            await ask("/v1/generate", attachment="lora", inputs="w1"), 409
        )
        assert "no model here can generate" in told(await ask("/v1/generate", inputs="w1"), 409)
        assert "up to 3" in told(await ask(inputs=["w1"] * 4), 413)
        assert "input 1 has 41 characters" in told(await ask(inputs=["w1", "x" * 41]), 413)
        assert "9 tokens; this server takes up to 8" in told(await ask(inputs=words(*range(7))), 413)
        assert "larger than 2,000 bytes" in told(await ask(inputs="x" * 3_000), 413)
        assert "max_new_tokens is 6" in told(await ask("/v1/generate", inputs="w1", max_new_tokens=6), 413)
        assert "num_beams is 3" in told(await ask("/v1/generate", inputs="w1", num_beams=3), 413)
        assert "inputs.list: List should have at least 1 item" in told(await ask(inputs=[]), 422)
        assert "inputs.text: Input should be a valid string" in told(await ask(inputs=3), 422)
        for body in ({}, {"inputs": []}, {"inputs": ""}, {"inputs": 3}, {"inputs": "w1", "atachment": "lora"}):
            assert "not understood" in told(await ask(**body), 422)
        for raw in (b"{", b'{"inputs": "\\ud800"}', b"[]"):
            answer = await client.post("/v1/classify", content=raw, headers={"content-type": "application/json"})
            told(answer, 422)
        chunks = (b" " * 500 for _ in range(9))

        async def stream():
            for chunk in chunks:
                yield chunk

        told(await client.post("/v1/classify", content=stream(), headers={"content-type": "application/json"}), 413)
        told(await client.post("/v1/classify", content=b"{}", headers={"content-type": "text/plain"}), 422)
        assert "/openapi.json" in told(await client.get("/nothing"), 404)
        told(await client.get("/v1/classify"), 405)


@serving
async def test_an_input_of_no_tokens_is_told(classifiers):
    engine, served = engine_of({"lora": classifiers["lora"]})
    encode = served[0].reader.encode
    object.__setattr__(
        served[0].reader, "encode", lambda text: encode(text) if text != "nothing" else {"input_ids": []}
    )
    async with client_of(engine, served) as client:
        answer = await client.post("/v1/classify", json={"attachment": "lora", "inputs": ["w1", "nothing"]})
        assert "input 1 is empty" in told(answer, 422)


@serving
async def test_time_runs_out_and_the_queue_is_left(many, monkeypatch):
    engine, served = many
    computed = []

    def slow(items):
        computed.extend(item.work.row["input_ids"] for item in items)
        time.sleep(0.15)
        return Engine.compute(engine, items)

    monkeypatch.setattr(engine, "compute", slow)
    limits = Limits(timeout=0.2, max_wait_ms=0, max_batch_rows=1)
    async with client_of(engine, served, limits=limits) as client:
        body = {"attachment": "lora", "inputs": ["w1", "w2", "w3", "w4"]}
        answer = await client.post("/v1/classify", json=body)
        assert "within 0.2 s" in told(answer, 504)
        await asyncio.sleep(0.3)
        assert len(computed) < 4, "what nobody waits for is not computed"
        assert client.service.batcher.waiting == 0
        assert (await client.post("/v1/classify", json={**body, "inputs": "w1"})).status_code == 200


@serving
async def test_a_client_that_hangs_up_is_not_computed_for(many):
    engine, served = many
    async with client_of(engine, served, limits=Limits(max_wait_ms=60_000)) as client:
        body = json.dumps({"attachment": "lora", "inputs": "w1"}).encode()
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/v1/classify", "raw_path": b"/v1/classify", "query_string": b"", "root_path": "",
            "headers": [(b"content-type", b"application/json")], "client": None, "server": None,
        }  # fmt: skip
        messages: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        await messages.put({"type": "http.request", "body": body, "more_body": False})
        sent = []

        async def send(message):
            sent.append(message)

        asked = asyncio.create_task(client.app(scope, messages.get, send))
        await asyncio.sleep(0.1)
        assert client.service.batcher.waiting == 1
        await messages.put({"type": "http.disconnect"})
        async with asyncio.timeout(5):
            await asked
        assert client.service.batcher.waiting == 0
        assert sent[0]["status"] == 499
        assert client.service.abandoned == 0
        cut = asyncio.create_task(classify(client, "lora", "w1"))  # as when the grace time is over
        await asyncio.sleep(0.1)
        cut.cancel()
        await asyncio.wait([cut])
        assert client.service.abandoned == 1
        assert client.service.batcher.waiting == 0


@serving
async def test_too_many_at_once_are_told_when_to_come_back(many):
    engine, served = many
    async with client_of(engine, served, limits=Limits(max_queue=4, max_inputs=4, max_wait_ms=50)) as client:
        bodies = [{"attachment": "lora", "inputs": TEXTS[:3]} for _ in range(3)]
        answers = await asyncio.gather(*(client.post("/v1/classify", json=body) for body in bodies))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert len(refused) == 2
        for answer in refused:
            assert "at most 4 may" in told(answer, 503)
            assert int(answer.headers["retry-after"]) >= 1


@serving
async def test_a_row_that_fails_is_the_only_one(many, monkeypatch, caplog):
    engine, served = many

    def failing(items):
        if any(item.work.row["input_ids"] == served[0].reader.encode("w3")["input_ids"] for item in items):
            raise RuntimeError("secret")
        return Engine.compute(engine, items)

    monkeypatch.setattr(engine, "compute", failing)
    async with client_of(engine, served, errors=True) as client:
        answers = await asyncio.gather(
            *(client.post("/v1/classify", json={"attachment": "lora", "inputs": f"w{n}"}) for n in range(6))
        )
        assert [answer.status_code for answer in answers] == [200, 200, 200, 500, 200, 200]
        assert "secret" not in told(answers[3], 500)


@serving
async def test_what_a_failed_request_left_is_not_computed(many, monkeypatch):
    engine, served = many
    computed = []

    def failing(items):
        computed.extend(items)
        raise RuntimeError("broken")

    monkeypatch.setattr(engine, "compute", failing)
    async with client_of(engine, served, limits=Limits(max_batch_rows=1, max_wait_ms=0), errors=True) as client:
        answer = await client.post("/v1/classify", json={"attachment": "lora", "inputs": ["w1", "w2", "w3", "w4"]})
        told(answer, 500)
        await asyncio.sleep(0.1)
    assert len(computed) <= 2


@serving
async def test_a_body_that_never_ends_is_refused(many):
    async def slowly():
        yield b'{"inputs":'
        await asyncio.sleep(30)
        yield b'"w1"}'

    async with client_of(*many, limits=Limits(timeout=0.2)) as client:
        answer = await asyncio.wait_for(client.post("/v1/classify", content=slowly()), 5)
        assert "within 0.2 s" in told(answer, 408)
        assert client.service.batcher.waiting == 0


@serving
async def test_health_and_the_end(many):
    engine, served = many
    async with client_of(engine, served) as client:
        health = await client.get("/health")
        assert (health.status_code, health.json()) == (
            200, {"live": True, "ready": True, "attachments": 7, "waiting": 0},
        )  # fmt: skip
        client.service.batcher.drain()
        health = await client.get("/health")
        assert (health.status_code, health.json()["ready"], health.json()["live"]) == (503, False, True)
        answer = await client.post("/v1/classify", json={"attachment": "lora", "inputs": "w1"})
        assert "stopping" in told(answer, 503)
        assert "retry-after" in answer.headers


@serving
async def test_nothing_can_be_loaded_unless_allowed(many):
    engine, served = many
    async with client_of(engine, served) as client:
        path = "/v1/attachments/new"
        for answer in (
            await client.post(path, json={"path": "x"}),
            await client.put(path, json={"path": "x"}),
            await client.delete("/v1/attachments/lora"),
        ):
            assert "--allow-load" in told(answer, 403)


@serving
async def test_attachments_come_and_go_while_requests_are_answered(tmp_path, classifiers):
    for name in ("lora", "bitfit", "colour"):
        shutil.copytree(classifiers[name], tmp_path / name)
    shutil.copytree(classifiers["mam"] / "adapter", tmp_path / "plain")
    other = save_bert(tmp_path / "other", num_hidden_layers=2)
    make_run(tmp_path / "foreign", "csv-classification", other, "lora", rows=labelled(TWO))
    engine, served = engine_of({"one": tmp_path / "lora"})
    async with client_of(engine, served, allow_load=tmp_path) as client:
        (before,) = await classify(client, "one", "w1 w2")
        busy = asyncio.gather(*(classify(client, "one", text) for text in TEXTS))
        new = await client.post("/v1/attachments/two", json={"path": "bitfit"})
        assert new.status_code == 201
        assert new.json()["labels"] == ["bad", "good"]
        assert (await client.post("/v1/attachments/plain one", json={"path": "plain"})).status_code == 201
        assert (await client.put("/v1/attachments/colour", json={"path": str(tmp_path / "colour")})).status_code == 201
        odd = "'naïve' 🙂 50%?&#"  # anything printable
        assert (await client.put(f"/v1/attachments/{quote(odd)}", json={"path": "plain"})).status_code == 201
        assert (await classify(client, odd, "w1"))[0]["label"] in ("bad", "good")
        assert (await client.delete(f"/v1/attachments/{quote(odd)}")).status_code == 204
        (tmp_path / "outer").mkdir()
        shutil.copytree(classifiers["lora"], tmp_path / "outer" / "seed-0")  # as the command line takes it
        assert (await client.put("/v1/attachments/outer", json={"path": "outer"})).status_code == 201
        (tmp_path / "outer" / "seed-1").symlink_to(classifiers["lora"])
        several = await client.put("/v1/attachments/outer", json={"path": "outer"})
        assert "holds several runs (seed-0, seed-1); name one of them." in told(several, 422)
        shutil.rmtree(tmp_path / "outer" / "seed-0")
        assert "is no folder under" in told(await client.put("/v1/attachments/outer", json={"path": "outer"}), 403)
        assert (await client.delete("/v1/attachments/outer")).status_code == 204
        said = told(await client.put("/v1/attachments/a%7Fb", json={"path": "plain"}), 422)
        assert "expected a name of printable characters without '/'" in said
        assert "pattern" not in said
        for wrong in ("%00", "a%7Fb", "a%E2%80%8Bb", "%ff%fe", "%2e%2e", "x" * 101):
            answer = await client.put(f"/v1/attachments/{wrong}", json={"path": "plain"})
            assert told(answer, 422)
        assert "already" in told(await client.post("/v1/attachments/two", json={"path": "lora"}), 409)
        assert len(await busy) == len(TEXTS)
        (second,) = await classify(client, "two", "w1 w2")
        assert second != before
        swapped = await client.put("/v1/attachments/two", json={"path": "lora"})
        assert swapped.status_code == 200
        assert (await classify(client, "two", "w1 w2"))[0]["probabilities"] == pytest.approx(
            before["probabilities"], abs=1e-6
        )
        listed = (await client.get("/v1/attachments")).json()
        assert [one["name"] for one in listed["attachments"]] == ["one", "two", "plain one", "colour"]
        assert (listed["bare"], listed["can_load"]) == (["classify", "embed"], True)
        assert (await client.delete("/v1/attachments/two")).status_code == 204
        assert "no attachment 'two'" in told(await client.delete("/v1/attachments/two"), 404)
        answer = await client.post("/v1/classify", json={"attachment": "two", "inputs": "w1"})
        told(answer, 404)
        for path in ("..", "/etc", "missing", "\0", "lora/../..", "lora/recipe.yaml"):
            told(await client.post("/v1/attachments/bad", json={"path": path}), 403)
        (tmp_path / "way-out").symlink_to("/etc")
        told(await client.post("/v1/attachments/bad", json={"path": "way-out"}), 403)
        assert "another base" in told(await client.post("/v1/attachments/bad", json={"path": "foreign"}), 422)
        assert "is no run" in told(await client.post("/v1/attachments/bad", json={"path": "."}), 422)
        (after,) = await classify(client, "one", "w1 w2")
        assert after["probabilities"] == pytest.approx(before["probabilities"], abs=1e-6)
        await asyncio.sleep(0.1)
        names = {one.key for one in client.service.served.values()}
        there = {one.name for lane in engine.lanes for one in unipetl.attachments(lane.model)}
        assert there == names, "what is not served is off the model"


@serving
async def test_a_load_that_nobody_waits_for_goes_to_its_end(tmp_path, classifiers, monkeypatch):
    for name in ("lora", "bitfit"):
        shutil.copytree(classifiers[name], tmp_path / name)
    engine, served = engine_of({"one": tmp_path / "lora"})
    begun, attach = threading.Event(), engine.attach

    def slowly(opened):
        begun.set()
        time.sleep(0.2)
        return attach(opened)

    monkeypatch.setattr(engine, "attach", slowly)
    async with client_of(engine, served, allow_load=tmp_path) as client:
        loading = asyncio.create_task(client.service.load("two", "bitfit", replace=False))
        await asyncio.to_thread(begun.wait)
        loading.cancel()
        assert isinstance((await asyncio.gather(loading, return_exceptions=True))[0], asyncio.CancelledError)
        assert "already" in told(await client.post("/v1/attachments/two", json={"path": "lora"}), 409)
        assert (await client.delete("/v1/attachments/two")).status_code == 204
        await asyncio.sleep(0.1)
        assert [one.name for one in unipetl.attachments(engine.lanes[0].model)] == [served[0].key]


@serving
async def test_what_is_replaced_still_answers_what_waits(classifiers, tmp_path):
    shutil.copytree(classifiers["lora"], tmp_path / "a")
    shutil.copytree(classifiers["bitfit"], tmp_path / "b")
    engine, served = engine_of({"one": tmp_path / "a"})
    async with client_of(engine, served, allow_load=tmp_path, limits=Limits(max_wait_ms=300)) as client:
        waiting = asyncio.create_task(classify(client, "one", "w1 w2"))
        await asyncio.sleep(0.05)
        assert (await client.put("/v1/attachments/one", json={"path": "b"})).status_code == 200
        old = (await waiting)[0]
        new = (await classify(client, "one", "w1 w2"))[0]
    engine, served = engine_of({"a": tmp_path / "a", "b": tmp_path / "b"})
    async with client_of(engine, served) as client:
        for name, found in (("a", old), ("b", new)):
            right = (await classify(client, name, "w1 w2"))[0]
            assert found["probabilities"] == pytest.approx(right["probabilities"], abs=2e-5)


@serving
async def test_the_number_of_attachments_is_limited(classifiers, tmp_path):
    shutil.copytree(classifiers["lora"], tmp_path / "a")
    engine, served = engine_of({"one": tmp_path / "a"})
    async with client_of(engine, served, allow_load=tmp_path, limits=Limits(max_attachments=1)) as client:
        assert "takes no more" in told(await client.post("/v1/attachments/two", json={"path": "a"}), 409)
        assert (await client.put("/v1/attachments/one", json={"path": "a"})).status_code == 200


@serving
async def test_the_openapi_document_has_the_limits_and_examples(many):
    engine, served = many
    async with client_of(engine, served, limits=Limits(max_inputs=7, max_new_tokens=9)) as client:
        document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    assert schemas["ClassifyRequest"]["properties"]["inputs"]["oneOf"][1]["maxItems"] == 7
    assert schemas["GenerateRequest"]["properties"]["max_new_tokens"]["anyOf"][0]["maximum"] == 9
    assert all(schemas[name]["examples"] for name in schemas if name.endswith("Request"))
    assert schemas["GenerateRequest"]["properties"]["no_repeat_ngram_size"]["anyOf"][0]["maximum"] == 100
    text = json.dumps(document)
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            assert said["description"], (path, method)
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in schemas


def test_two_of_one_name_are_refused(classifiers):
    engine, served = engine_of({"lora": classifiers["lora"]})
    with pytest.raises(ServingError, match="two attachments are called 'lora'"):
        Service(engine, [*served, *served])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_inputs": 9, "max_queue": 8}, "only 8 can wait"),
        ({"timeout": 0}, "timeout is 0"),
        ({"grace": -1}, "grace"),
    ],
)
def test_limits_must_make_sense(changes, message):
    with pytest.raises(ServingError, match=message):
        Limits(**changes)
