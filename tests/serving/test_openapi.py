"""Requests drawn from the OpenAPI document: none may crash the server or be answered in an undocumented way.

It needs schemathesis, which only `nox -s serve` installs.
"""

from __future__ import annotations

import shutil
import threading
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings

from serving.tiny_runs import engine_of
from unipetl.serving import Limits, Service, create_app
from unipetl.serving.process import address, bind

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

EXAMPLES = 25
#: What no schema can say: a text that the tokenizer finds nothing in, a folder with nothing in it.
UNSAYABLE = ("the tokenizer finds nothing in it", "is no run")


def excused(response):
    """The checks that do not hold of an answer, and why not."""
    if response.status_code == 422 and any(one in response.json()["detail"] for one in UNSAYABLE):
        return [checks.positive_data_acceptance]
    if response.status_code == 413:  # which refuses as well as any, and is not on schemathesis' list
        return [checks.negative_data_rejection]
    return []


@contextmanager
def listening(service):
    """Serve in a thread, and give the address."""
    with bind("127.0.0.1", 0) as taken:
        config = uvicorn.Config(create_app(service), log_config=None, lifespan="on", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([taken],))
        thread.start()
        where = address(taken)
        try:
            while not server.started:
                thread.join(0.05)
                assert thread.is_alive()
            yield where
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module", params=["fixed", "loading"])
def document(request, tmp_path_factory, classifiers, causal):
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(classifiers["lora"], folder / "lora")
    shutil.copytree(classifiers["bitfit"], folder / "bitfit")
    paths = {"fixed": causal, "loading": {"sentiment": folder / "lora", "other": folder / "bitfit"}}[request.param]
    engine, served = engine_of(paths)
    limits = Limits(max_inputs=4, max_characters=60, max_new_tokens=6, max_beams=2, max_wait_ms=0)
    allow = folder if request.param == "loading" else None
    with listening(Service(engine, served, limits, allow_load=allow)) as where:
        yield schemathesis.openapi.from_url(f"{where}/openapi.json")
        with httpx.Client(base_url=where) as client:  # and it still works
            assert client.get("/health").json()["ready"] is True
            assert client.get("/health").json()["waiting"] == 0


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.name.lower())
def test_every_answer_is_documented(document, mode):
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) == 9
    for operation in operations:
        if mode is schemathesis.GenerationMode.NEGATIVE and not (operation.body or operation.path_parameters):
            continue  # nothing in it can be wrong

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        def answered(case):
            response = case.call()
            case.validate_response(response, excluded_checks=excused(response))

        answered()
