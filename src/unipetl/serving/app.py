"""The server's endpoints, over [Service][unipetl.serving.service.Service]."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Path, Request, Response
from starlette.responses import JSONResponse

import unipetl
from unipetl.errors import RefusedError
from unipetl.serving import wire
from unipetl.serving.documented import document, refusals
from unipetl.serving.engine import Served
from unipetl.serving.metrics import CONTENT_TYPE
from unipetl.serving.middleware import BodyLimit, Measured
from unipetl.serving.problems import HUNG_UP, install_problems
from unipetl.serving.service import Service
from unipetl.serving.writing import Asked

T = TypeVar("T")
Responses = dict[int | str, dict[str, Any]]
_NAMED = Path(description="What requests call the attachment.", examples=["sentiment"])
Name = Annotated[wire.Name, _NAMED]
NewName = Annotated[wire.NewName, _NAMED]


def create_app(service: Service) -> FastAPI:
    """Return the application; its lifespan starts the service and closes it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            app.state.given_up = await service.close()

    app = FastAPI(
        title="unipetl",
        version=unipetl.__version__,
        summary="One frozen model, many attachments, each request with its own.",
        lifespan=lifespan,
        docs_url=None,  # the page would fetch its script from elsewhere
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, most=service.limits.max_body_bytes, seconds=service.limits.timeout)
    app.add_middleware(Measured, metrics=service.metrics)
    install_problems(app)
    _answering(app, service)
    _managing(app, service)
    _watching(app, service)
    document(app, service.limits)
    return app


def _answering(app: FastAPI, service: Service) -> None:
    about = refusals(404, 408, 409, 413, 422, 500, 503, 504)

    @app.post("/v1/classify", tags=["answers"], responses=about)
    async def classify(request: Request, body: wire.ClassifyRequest) -> wire.ClassifyAnswer:
        """Give texts labels, with the probability of each."""
        answer = service.answer("classify", body.attachment, _texts(body.inputs))
        found = await _while_connected(request, service, answer)
        return wire.ClassifyAnswer(attachment=body.attachment, results=[wire.Label(**one) for one in found])

    @app.post("/v1/generate", tags=["answers"], responses=about)
    async def generate(request: Request, body: wire.GenerateRequest) -> wire.GenerateAnswer:
        """Answer texts with texts: what an encoder-decoder writes, or how a decoder goes on."""
        service.limits.check_writing(body.max_new_tokens, body.num_beams)
        asked = Asked(body.changes(), None if body.sampling is None else body.sampling.seed)
        found = await _while_connected(
            request, service, service.answer("generate", body.attachment, _texts(body.inputs), asked=asked)
        )
        return wire.GenerateAnswer(attachment=body.attachment, results=[wire.Written(**one) for one in found])

    @app.post("/v1/embed", tags=["answers"], responses=about)
    async def embed(request: Request, body: wire.EmbedRequest) -> wire.EmbedAnswer:
        """Turn texts into vectors: the last hidden states (an encoder's, where there is one), pooled."""
        found = await _while_connected(
            request,
            service,
            service.answer(
                "embed", body.attachment, _texts(body.inputs), pooling=body.pooling, normalize=body.normalize
            ),
        )
        return wire.EmbedAnswer(attachment=body.attachment, dimensions=len(found[0]), results=found)


def _managing(app: FastAPI, service: Service) -> None:
    about = refusals(403, 404, 408, 409, 413, 422, 500, 503)

    @app.get("/v1/attachments", tags=["attachments"], responses=refusals(500))
    async def attachments() -> wire.AttachmentsAnswer:
        """Say what is served."""
        return wire.AttachmentsAnswer(
            attachments=[_described(one) for one in service.served.values()],
            bare=[action for action in ("classify", "generate", "embed") if service.engine.bare(action)],
            can_load=service.allow_load is not None,
        )

    @app.post("/v1/attachments/{name}", tags=["attachments"], responses=about, status_code=201)
    async def load(name: NewName, body: wire.LoadRequest) -> wire.AttachmentAnswer:
        """Load an attachment under a new name."""
        served, _ = await service.load(name, body.path, replace=False)
        return _described(served)

    replaced: Responses = {201: {"model": wire.AttachmentAnswer, "description": "The name is new."}}

    @app.put("/v1/attachments/{name}", tags=["attachments"], responses={**about, **replaced})
    async def replace(name: NewName, body: wire.LoadRequest, response: Response) -> wire.AttachmentAnswer:
        """Load an attachment under a name, which may be taken: what waits is still answered by the old one."""
        served, new = await service.load(name, body.path, replace=True)
        response.status_code = 201 if new else 200
        return _described(served)

    @app.delete("/v1/attachments/{name}", tags=["attachments"], responses=about, status_code=204)
    async def unload(name: Name) -> None:
        """Serve an attachment no more; what waits for it is still answered."""
        await service.unload(name)


def _watching(app: FastAPI, service: Service) -> None:
    not_ready: Responses = {
        503: {"model": wire.Health, "description": "No requests are taken: the server is stopping."}
    }

    @app.get("/health", tags=["operation"], response_model=wire.Health, responses=not_ready)
    async def health() -> JSONResponse:
        """Say whether the server lives (any answer) and is ready (200)."""
        found = wire.Health(
            live=True, ready=service.ready, attachments=len(service.served), waiting=service.batcher.waiting
        )
        return JSONResponse(found.model_dump(), 200 if found.ready else 503)

    shown: Responses = {
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text."}
    }

    @app.get("/metrics", tags=["operation"], response_class=Response, responses=shown)
    async def metrics() -> Response:
        """Say what was counted, in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


async def _while_connected(request: Request, service: Service, answer: Coroutine[Any, Any, T]) -> T:
    """Wait for an answer as long as the client does; what it no longer waits for is taken out of the queue."""
    work = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise RefusedError(HUNG_UP, "the client hung up.")
        return work.result()
    except asyncio.CancelledError:  # the grace time is over
        service.abandoned += 1
        raise
    finally:
        for one in (work, gone):
            one.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await asyncio.gather(work, gone, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _texts(inputs: str | list[str]) -> list[str]:
    return [inputs] if isinstance(inputs, str) else inputs


def _described(served: Served) -> wire.AttachmentAnswer:
    facts = served.facts
    return wire.AttachmentAnswer(
        name=str(served.name),
        actions=list(served.actions),
        labels=list(served.reader.labels),
        task=facts["task"],
        method=facts["method"],
        parameters=facts["parameters"],
        sha256=facts["sha256"],
    )
