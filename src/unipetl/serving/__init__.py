"""An HTTP server for one base and many attachments; each request says which attachment computes it.

Rows of requests that come within a few milliseconds are computed together, whatever their attachments. It needs
FastAPI, uvicorn and prometheus-client: ``pip install "unipetl[serve]"``.
"""

from __future__ import annotations

from importlib.util import find_spec

from unipetl.errors import MissingPackageError

_NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}


def _check_packages() -> None:
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise MissingPackageError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} needed to serve and not installed. "
            'Install what is missing: pip install "unipetl[serve]"'
        )


_check_packages()

from unipetl.serving.app import create_app  # noqa: E402 - what it imports is checked first
from unipetl.serving.engine import Engine, Served  # noqa: E402
from unipetl.serving.limits import Limits  # noqa: E402
from unipetl.serving.process import bind, run  # noqa: E402
from unipetl.serving.service import Service  # noqa: E402
from unipetl.serving.source import Source  # noqa: E402

__all__ = ["Engine", "Limits", "Served", "Service", "Source", "bind", "create_app", "run"]
