"""The change of every functional form, by the paper's equations, from an attachment's tensors alone.

He et al. 2022: table 1 for the forms, equations 7 to 10 for the gate. The gate's lambda is computed as the equation
has it, from the two sums of exponentials, and the two softmax averages are then mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unipetl import Method

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda z: z * (z > 0),
    "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / 2**0.5)),
    "gelu_tanh": lambda z: 0.5 * z * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3))),
    "silu": lambda z: z / (1 + torch.exp(-z)),
    "tanh": lambda z: (torch.exp(z) - torch.exp(-z)) / (torch.exp(z) + torch.exp(-z)),
    "identity": lambda z: z,
}


def _layer_norm(x: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    normal = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return normal * tensors["layer_norm.weight"] + tensors["layer_norm.bias"]


def delta(form: Any, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the change that a form of vectors makes from ``x``."""
    if form.tag == "low_rank":
        return x @ tensors["down"].T @ tensors["up"].T
    if form.tag == "rescale":
        return tensors["factor"]
    norm = form.layer_norm
    x = _layer_norm(x, tensors) if norm == "in" else x
    z = x @ tensors["down"].T
    z = z + tensors["down_bias"] if form.bias else z
    if form.gated:
        gate = x @ tensors["gate"].T
        z = _FUNCTIONS[form.activation](gate + tensors["gate_bias"] if form.bias else gate) * z
    else:
        z = _FUNCTIONS[form.activation](z)
    change = z @ tensors["up"].T
    change = change + tensors["up_bias"] if form.bias else change
    if norm == "out":
        inner = tensors["inner_scale"] if form.inner_scale == "learned" else form.inner_scale
        change = _layer_norm(inner * change, tensors)
    return change


class Changes:
    """What every change of a method does, at the places its tensors are named after."""

    def __init__(self, method: Method, tensors: dict[str, Tensor], *, key_width: int = 0) -> None:
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self.by_place: dict[str, dict[str, Tensor]] = {}  # "place/label", or "shared/stack.kind/label" -> its tensors
        for name, tensor in self.tensors.items():
            place, _, parameter = name.rpartition("/")
            self.by_place.setdefault(place, {})[parameter] = tensor
        self.by_label: dict[tuple[str, str], Any] = {}
        for one in method.modifications:
            label = (one.representation.name, f"{one.insertion.tag}_{one.form.tag}")
            assert label not in self.by_label, "the oracle tells changes apart by representation, insertion and form"
            self.by_label[label] = one
        self.key_width = key_width  # key heads * head size, where an MLP makes them
        self.used: set[str] = set()

    def at(self, place: str) -> list[tuple[Any, dict[str, Tensor]]]:
        """Return the changes at ``place``, each with its own tensors."""
        found = []
        for (representation, label), one in self.by_label.items():
            if representation != representation_of(place):
                continue
            own = self._take(f"{place}/{label}")
            if one.form.tag == "head_attention":
                kind = "cross" if "cross" in place else "self"
                mlp = self._take(f"shared/{place.split('.')[0]}.{kind}/{label}")
                own = {**own, **self._generated(mlp, place)} if mlp else own
            if own:
                found.append((one, own))
        return found

    def _take(self, name: str) -> dict[str, Tensor]:
        own = self.by_place.get(name, {})
        self.used |= {f"{name}/{parameter}" for parameter in own}
        return own

    def _generated(self, mlp: dict[str, Tensor], place: str) -> dict[str, Tensor]:
        """Return keys and values of one layer: rows 2i and 2i + 1 of the MLP's result (l, 2L, d)."""
        hidden = torch.tanh(mlp["embedding"] @ mlp["hidden"].T + mlp["hidden_bias"])
        both = (hidden @ mlp["out"].T + mlp["out_bias"]).unflatten(-1, (-1, self.key_width))
        layer = int(place.split(".")[1])
        return {"key": both[:, 2 * layer], "value": both[:, 2 * layer + 1]}

    def __call__(
        self,
        place: str,
        h: Tensor,
        *,
        x: Tensor | None = None,
        residual: Tensor | None = None,
        norm_after: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return h with every change at ``place``: factors first, then addends, all computed from the same h."""
        result = h
        changes = [(one, own) for one, own in self.at(place) if one.form.tag != "head_attention"]
        for one, own in sorted(changes, key=lambda pair: pair[0].composition.tag != "multiply"):
            if one.composition.tag == "multiply":
                result = result * delta(one.form, own, h)
                continue
            reads = {
                ("sequential", "itself"): h,
                ("sequential", "normed"): h if norm_after is None else norm_after(h),
                ("parallel", "normed"): x,
                ("parallel", "residual"): residual,
            }[one.insertion.tag, one.insertion.reads]
            result = result + scale(one, own) * delta(one.form, own, reads)
        return result

    def heads(
        self,
        place: str,
        own: Tensor,
        *,
        query: Tensor,
        own_mass: Tensor,
        scaling: float,
        key_heads: int,
        x: Tensor,
        own_query: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Return the heads' results (b, heads, n, size) with learned keys and values; ``own_mass`` is sum exp(S)."""
        gated, added = [], []
        for one, tensors in self.at(place):
            if one.form.tag != "head_attention":
                continue
            q = own_query(_layer_norm(x, tensors)) if one.form.layer_norm == "in" else query
            key, value = (self._per_head(tensors[name], key_heads, query.shape[1]) for name in ("key", "value"))
            logits = q @ key.transpose(-1, -2) * (scaling if one.form.scale_query else 1.0)
            if one.form.activation == "relu":
                added.append(scale(one, tensors) * (functional.relu(logits) @ value))
                continue
            mass = torch.exp(logits).sum(-1, keepdim=True)
            average = torch.exp(logits) @ value / mass
            if one.composition.tag == "gate":
                gated.append((mass, average))
            else:
                added.append(scale(one, tensors) * average)
        total = own_mass + sum(mass for mass, _ in gated)
        result = (1 - sum(mass / total for mass, _ in gated)) * own  # equation 7: (1 - lambda) h + lambda dh
        result = result + sum(mass / total * average for mass, average in gated)
        return result + sum(added)

    def _per_head(self, learned: Tensor, key_heads: int, heads: int) -> Tensor:
        """Map (l, key heads * size) to (1, heads, l, size): head i reads columns i of its group's key head."""
        size = learned.shape[-1] // key_heads
        columns = [learned[:, i * size : (i + 1) * size] for i in range(key_heads)]
        return torch.stack([columns[head * key_heads // heads] for head in range(heads)])[None]

    def prompt(self, place: str) -> Tensor | None:
        """Return the prompt (l, d) of a stack, or None."""
        found = self.at(place)
        return found[0][1]["prompt"] if found else None


def representation_of(place: str) -> str:
    """Return the representation that a place's name ends in."""
    if place.endswith(".input"):
        return "input"
    name = place.split(".", 2)[2]
    return name.replace("self_attention", "attention").replace("cross_attention", "attention")


def scale(one: Any, tensors: dict[str, Tensor]) -> Tensor | float:
    return tensors["scale"] if one.composition.scale == "learned" else one.composition.scale
