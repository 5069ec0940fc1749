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
from hypothesis import HealthCheck, settings

from serving.tiny_runs import engine_of
from unipetl.serving import Limits, Service, create_app
from unipetl.serving.process import address, bind

schemathesis = pytest.importorskip("schemathesis")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

EXAMPLES = 25


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


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_documented(case):
    case.call_and_validate()
