"""What the laws compare: a model's results, random values for its changes, and failures that read well."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.attaching import Attachment
from unipetl.errors import CheckError
from unipetl.notation import parse

Call = Mapping[str, Tensor]


def require(holds: bool, message: str) -> None:
    """Raise unless ``holds``.

    Raises:
        CheckError: with ``message``.
    """
    if not holds:
        raise CheckError(message)


def same(found: Tensor, wanted: Tensor, what: str) -> None:
    """Require two tensors to be bit for bit equal."""
    require(found.shape == wanted.shape, f"{what}: shape {tuple(found.shape)} instead of {tuple(wanted.shape)}.")
    if not torch.equal(found, wanted):
        raise CheckError(f"{what}: not equal; the largest difference is {_largest(found, wanted):.3g}.")


def close(found: Tensor, wanted: Tensor, what: str, atol: float = 1e-9) -> None:
    """Require two tensors to agree within ``atol``."""
    require(found.shape == wanted.shape, f"{what}: shape {tuple(found.shape)} instead of {tuple(wanted.shape)}.")
    if not torch.allclose(found.double(), wanted.double(), rtol=atol, atol=atol):
        raise CheckError(f"{what}: they differ by up to {_largest(found, wanted):.3g}; {atol:g} is allowed.")


def differ(found: Tensor, other: Tensor, what: str, least: float = 1e-7) -> None:
    """Require two tensors to differ by at least ``least`` somewhere."""
    gap = _largest(found, other)
    require(gap >= least, f"{what}: expected a difference, and the largest is {gap:.3g}.")


def _largest(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    with torch.no_grad():
        gaps = torch.where(a == b, 0.0, (a.double() - b.double()).abs().nan_to_num(nan=float("inf")))
        return float(gaps.max()) if gaps.numel() else 0.0


def outputs(model: nn.Module, call: Call) -> Tensor:
    """Return what ``model`` computes for ``call``: logits, a span's two logits side by side, or hidden states."""
    with torch.no_grad():
        return logits_of(model(**call))


def logits_of(output: Any) -> Tensor:
    """Return the logits, or the last hidden states, or else everything in a model's output."""
    if "start_logits" in output:
        return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
    for name in ("logits", "last_hidden_state"):
        if isinstance(output.get(name), Tensor):
            return output[name]
    return torch.cat([part.flatten() for part in _tensors(output) if part.is_floating_point()])


def _tensors(output: Mapping[str, Any]) -> list[Tensor]:
    """Return what a model gives; where it gives outputs of several towers or heads alone, what is in these."""
    own = [part for part in output.values() if isinstance(part, Tensor)]
    inner = [part for part in output.values() if isinstance(part, Mapping)]
    heads = [one for part in output.values() if isinstance(part, tuple) for one in part if isinstance(one, Tensor)]
    return own or [tensor for part in inner for tensor in _tensors(part)] or heads


def loss_of(model: nn.Module, call: Call) -> Tensor:
    """Return a loss: the model's own where ``call`` has labels, else the mean squares of all it returns."""
    output = model(**call)
    loss = output.get("loss")
    if loss is not None:
        return loss
    return torch.stack([part.square().mean() for part in _tensors(output)]).sum()


def scatter(attachment: Attachment, *, seed: int = 0, size: float = 0.3) -> Attachment:
    """Add noise to every value of the attachment's changes; the model's own parameters stay.

    The noise depends on ``seed`` and the tensor's name alone. Fresh changes are often zero, and a law about
    zero holds for broken code too.
    """
    with torch.no_grad():
        for name, tensor in attachment.tensors().items():
            if not name.startswith("model/"):
                digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
                generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
                noise = torch.randn(tensor.shape, generator=generator) * size
                tensor.add_(noise.to(device=tensor.device, dtype=tensor.dtype))
    return attachment


class Visits:
    """Which experts that are modules of their own computed in a ``with`` block: only those get gradients."""

    def __init__(self, model: nn.Module, attachment: Attachment) -> None:
        self.model = model
        self.keys = {one.key: one.site.owner for one in attachment.plan.placements if one.site.expert is not None}
        self.seen: set[str] = set()
        self._handles: list[Any] = []

    def __enter__(self) -> Visits:
        """Begin to watch."""
        for owner in set(self.keys.values()):
            see = lambda *_, owner=owner: self.seen.add(owner)  # noqa: E731
            self._handles.append(self.model.get_submodule(owner).register_forward_hook(see))
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()

    def idle(self, name: str) -> bool:
        """Return whether a tensor of the attachment belongs to an expert that no token visited."""
        key = name.rpartition("/")[0]
        return key in self.keys and self.keys[key] not in self.seen


def changes(method: Any) -> bool:
    """Return whether ``method`` modifies any representation."""
    return bool(parse(method).modifications)
