"""Parameter-efficient transfer learning as one design space.

He et al. 2022, *Towards a Unified View of Parameter-Efficient Transfer Learning*
(https://arxiv.org/abs/2110.04366): a method is a learned change to hidden representations of a frozen
transformer, chosen on four axes. Here a method is data, and attaches to any supported model in place::

    import unipetl

    attachment = unipetl.attach(model, "mam(length=30, rank=512, scale=4)")
    ...                                       # Trainer, generate, pipeline: the model is still itself
    unipetl.save(model, "adapter")
    unipetl.detach(model)                     # bit for bit what it was

Names are imported when first used, so that ``import unipetl`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name -> module that defines it; a module's own name stands for the module.
_HOMES = {
    "Attachment": "unipetl.attaching",
    "Bottleneck": "unipetl.forms",
    "HeadAttention": "unipetl.forms",
    "LowRank": "unipetl.forms",
    "Method": "unipetl.method",
    "Modification": "unipetl.method",
    "Plan": "unipetl.planning",
    "Prompt": "unipetl.forms",
    "Rescale": "unipetl.forms",
    "activate": "unipetl.attaching",
    "arithmetic": "unipetl.arithmetic",
    "attach": "unipetl.attaching",
    "attachments": "unipetl.attaching",
    "catalogue": "unipetl.catalogue",
    "detach": "unipetl.attaching",
    "errors": "unipetl.errors",
    "experiment": "unipetl.experiment",
    "fit_budget": "unipetl.budget",
    "fold": "unipetl.folding",
    "interop": "unipetl.interop",
    "load": "unipetl.storage",
    "parse": "unipetl.notation",
    "plan": "unipetl.planning",
    "push_to_hub": "unipetl.publishing",
    "reload": "unipetl.storage",
    "routed": "unipetl.attaching",
    "save": "unipetl.storage",
    "summary": "unipetl.accounting",
    "testing": "unipetl.testing",
    "unfold": "unipetl.folding",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

if TYPE_CHECKING:
    from unipetl import arithmetic, catalogue, errors, experiment, interop, testing
    from unipetl.accounting import summary
    from unipetl.attaching import Attachment, activate, attach, attachments, detach, routed
    from unipetl.budget import fit_budget
    from unipetl.folding import fold, unfold
    from unipetl.forms import Bottleneck, HeadAttention, LowRank, Prompt, Rescale
    from unipetl.method import Method, Modification
    from unipetl.notation import parse
    from unipetl.planning import Plan, plan
    from unipetl.publishing import push_to_hub
    from unipetl.storage import load, reload, save


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'unipetl' has no attribute {name!r}")
    module = importlib.import_module(home)
    return getattr(module, name, module)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
