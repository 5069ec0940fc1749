"""Task heads beside adapters: the model's own, or one of the library's that is the same function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.errors import InteropError
from unipetl.interop.adapterhub.files import Part


@dataclass(frozen=True)
class Match:
    """A head of the library (its ``config``) that is a head of transformers: its linear modules in their order."""

    model_class: str
    config: dict[str, Any]
    modules: tuple[str, ...]


def _one(ending: str, kind: str, module: str, **settings: Any) -> list[Match]:
    classes = (f"{family}For{ending}" for family in ("Bert", "Roberta", "XLMRoberta", "DistilBert"))
    return [Match(one, {"head_type": kind, "layers": 1, **settings}, (module,)) for one in classes]


_TWO = {"head_type": "classification", "layers": 2}
MATCHES: tuple[Match, ...] = (
    Match(
        "BertForSequenceClassification",
        {"head_type": "classification", "layers": 1, "use_pooler": True},
        ("classifier",),
    ),
    *(
        Match(
            f"{family}ForSequenceClassification",
            {**_TWO, "activation_function": "tanh", "use_pooler": False},
            ("classifier.dense", "classifier.out_proj"),
        )
        for family in ("Roberta", "XLMRoberta")
    ),
    Match(
        "DistilBertForSequenceClassification",
        {**_TWO, "activation_function": "relu", "use_pooler": False},
        ("pre_classifier", "classifier"),
    ),
    *_one("TokenClassification", "tagging", "classifier"),
    *_one("QuestionAnswering", "question_answering", "qa_outputs"),
)


def head_tensors(head: Part, adapter: Part, model: nn.Module) -> dict[str, Tensor]:
    """Return a head's tensors under the names they have in the model.

    Where the base model is the model itself (T5), the library takes the adapter's own prefixes for parts of the head
    and writes them twice; they are left out.

    Raises:
        InteropError: the head is another function than the model's, or does not fit it.
    """
    config = head.config.get("config")
    if config is None:
        return _own(head, adapter, model)
    if not isinstance(config, dict):
        raise InteropError(f"{str(head.path)!r}: 'config' is {config!r}; expected a head's settings or null.")
    mine = [one for one in MATCHES if one.model_class == type(model).__name__]
    match = next((one for one in mine if all(config.get(key) == want for key, want in one.config.items())), None)
    if match is None:
        wanted = " or ".join(str(one.config) for one in mine) or "the library's own file of such a model"
        raise InteropError(
            f"{str(head.path)!r}: a head with {config} is not the head of {type(model).__name__} (that is {wanted}). "
            "Pass head=False to load the adapter without it."
        )
    prefix = f"heads.{head.name}."
    numbers = sorted({int(key.removeprefix(prefix).split(".")[0]) for key in head.tensors if key.startswith(prefix)})
    if len(numbers) != len(match.modules) or any(not key.startswith(prefix) for key in head.tensors):
        raise InteropError(
            f"{str(head.path)!r}: expected the tensors of {len(match.modules)} linear maps of {prefix!r}."
        )
    names = dict(zip(numbers, match.modules, strict=True))
    found = {}
    for key, value in head.tensors.items():
        number, _, part = key.removeprefix(prefix).partition(".")
        found[f"{names[int(number)]}.{part}"] = value
    return found


def _own(head: Part, adapter: Part, model: nn.Module) -> dict[str, Tensor]:
    """Return a plain head's tensors without the model's buffers (BART's ``final_logits_bias``), which must be equal."""
    buffers = dict(model.named_buffers())
    found = {}
    for key, value in head.tensors.items():
        if key in adapter.tensors:
            continue
        if key not in buffers:
            found[key] = value
        elif not torch.equal(buffers[key].cpu().to(value.dtype), value):
            raise InteropError(f"{str(head.path)!r}: {key!r} is no parameter, and its values are not the model's.")
    return found
