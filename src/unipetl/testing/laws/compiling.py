"""torch.compile takes an attached model whole: one graph, no break, the same numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unipetl.attaching import attach
from unipetl.method import Method
from unipetl.testing.compare import Call, close, outputs, scatter


def compiles_to_one_graph(
    model: nn.Module, method: Method | str, call: Call, *, backend: str = "eager", **attaching: Any
) -> None:
    """Compile with and without the method. A model that does not compile itself is passed over.

    Raises:
        CheckError: the results differ.
        torch._dynamo.exc.Unsupported: the method breaks the graph.
    """
    if not _compiles(model, call, backend):
        return
    scatter(attach(model, method, **attaching))
    wanted = outputs(model, call)
    torch.compiler.reset()
    whole: Any = torch.compile(model, fullgraph=True, backend=backend)
    close(outputs(whole, call), wanted, "the compiled result", 1e-6)
    torch.compiler.reset()


def _compiles(model: nn.Module, call: Call, backend: str) -> bool:
    torch.compiler.reset()
    try:
        whole: Any = torch.compile(model, fullgraph=True, backend=backend)
        outputs(whole, call)
    except Exception:  # noqa: BLE001 - dynamo refuses models in many ways
        return False
    finally:
        torch.compiler.reset()
    return True
