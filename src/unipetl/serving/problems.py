"""Errors as one JSON shape: problem details (RFC 9457), whatever went wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from unipetl.errors import PetlError, RefusedError
from unipetl.serving.wire import Fault, Problem

MEDIA_TYPE = "application/problem+json"
#: What the log and the metrics call a request whose client did not wait; nobody reads the answer.
HUNG_UP = 499
logger = logging.getLogger("unipetl.serving")


def problem(error: RefusedError) -> JSONResponse:
    """Return a refusal as a response."""
    shown = Problem(
        title="Client Closed Request" if error.status == HUNG_UP else HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        faults=[Fault(where=where, what=what) for where, what in error.faults],
    )
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse(shown.model_dump(), error.status, headers, MEDIA_TYPE)


def install_problems(app: FastAPI) -> None:
    """Let every error of ``app`` become a problem."""

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RefusedError)
        return problem(error)

    async def failed(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s could not be answered: %s", request.url.path, error)
        return problem(RefusedError(500, str(error)))

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        faults = tuple((".".join(map(str, one["loc"])), _said(one)) for one in error.errors())
        first = f"{faults[0][0]}: {faults[0][1]}" if faults else "it is not what was expected"
        return problem(RefusedError(422, f"the request is not understood: {_printable(first)}.", faults=_clean(faults)))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        detail = str(error.detail)
        if error.status_code == 404:
            detail = "there is nothing here; /openapi.json says what there is."
        answer = problem(RefusedError(error.status_code, detail))
        answer.headers.update(error.headers or {})
        return answer

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return problem(RefusedError(500, "something went wrong here; the server's log has more."))

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(PetlError, failed)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def _said(fault: Mapping[str, Any]) -> str:
    """Return what is wrong with a value; the one pattern there is is that of new names, and is said in words."""
    if fault["type"] == "string_pattern_mismatch":
        return "expected a name of printable characters without '/'"
    return str(fault["msg"])


def _clean(faults: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((_printable(where), _printable(what)) for where, what in faults[:20])


def _printable(text: str) -> str:
    """Return a text as JSON can hold it: names of fields are the client's own."""
    return text.encode("utf-8", "replace").decode("utf-8")[:500]
