"""Tells, from a trace, which linear maps make an attention's queries, keys and values, and which reads its heads."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from unipetl.architectures import Port, Projection
from unipetl.architectures.base import AttentionTable
from unipetl.architectures.interface import uses_interface
from unipetl.forms import Heads
from unipetl.inference.flow import acting, as_columns, equal, inside, used_columns
from unipetl.inference.linear import features
from unipetl.inference.residual import Joint, surroundings
from unipetl.inference.scaling import NO_ORIGIN, handed_softmax, own_softmax
from unipetl.inference.tracing import Attention, Call, Trace

Roles = dict[str, Projection]


@dataclass(frozen=True)
class Seen:
    """An attention that was understood, with how it stands in its block and the linear maps that are its own."""

    table: AttentionTable
    joint: Joint
    linears: frozenset[str]


def attentions_of(trace: Trace, model: nn.Module, block: str) -> list[Seen]:
    """Return the attentions of one block that were understood, at most one of each kind."""
    within = {call.path for call in trace.within(block)}
    outer = trace.first(block)
    found: dict[str, Seen] = {}
    if outer is None:
        return []
    for one in trace.attentions:
        if one.path in within and outer.start <= one.time <= outer.end:
            seen = _understand(trace, model, block, one)
            if seen is None:
                continue
            known = found.setdefault(seen.table.kind, seen)
            found[known.table.kind] = replace(known, linears=known.linears | seen.linears)
    return list(found.values())


def _understand(trace: Trace, model: nn.Module, block: str, one: Attention) -> Seen | None:
    calls = [call for call in trace.within(block) if call.leaf is not None]
    earlier = _first_calls(call for call in calls if call.end <= one.time)
    fused = one.query is not None
    found = _from_fused(one, earlier) if fused else _from_weights(one, earlier)
    if found is None:
        return None
    later = [call for call in calls if call.start >= one.time]
    out = next((call for call in later if call.read is not None and _made_by(call, found, earlier, fused)), None)
    if out is None:
        return None
    if not fused:
        gradients = acting(out.read, earlier)  # type: ignore[arg-type]
        found["value"] = gradients
    roles, paths = {}, {}
    for part in ("query", "key", "value"):
        chosen = _choose(found[part], earlier)
        if chosen is None:
            return None
        path, columns = chosen
        whole = features(model.get_submodule(path))
        assert whole is not None
        paths[part] = path
        roles[part] = _projection(inside(block, path), columns, whole[1])
    if roles["query"] == roles["key"] and roles["query"].module == roles["key"].module and not _shares(found):
        return None
    return _table(trace, model, block, one, roles, paths, out, earlier)


def _first_calls(calls: object) -> list[Call]:
    seen: dict[str, Call] = {}
    for call in calls:  # type: ignore[attr-defined]
        seen.setdefault(call.path, call)
    return list(seen.values())


def _from_fused(one: Attention, earlier: list[Call]) -> dict[str, dict[str, torch.Tensor]] | None:
    assert one.query is not None and one.key is not None and one.value is not None
    found = {"query": acting(one.query, earlier), "key": acting(one.key, earlier), "value": acting(one.value, earlier)}
    return found if all(found.values()) else None


def _from_weights(one: Attention, earlier: list[Call]) -> dict[str, dict[str, torch.Tensor]] | None:
    """Tell queries from keys: a row of the scores depends on one token's query and on many tokens' keys.

    The scores, and not the probabilities: where a trained head puts all its weight on one token, those have no slope.
    """
    scores = one.scores
    assert scores is not None
    if scores.shape[-2] < 3:
        return None
    row = torch.zeros_like(scores)
    generator = torch.Generator().manual_seed(0)
    last = torch.rand(scores.shape[-1], generator=generator, dtype=torch.float64).to(scores) + 0.5
    row[..., -1, :] = last
    found: dict[str, dict[str, torch.Tensor]] = {"query": {}, "key": {}, "value": {}}
    for path, gradient in acting(scores, earlier, row).items():
        batch = max(gradient.shape[:-1].numel() // scores.shape[-2], 1)  # last tokens: one for each text or window
        touched = (gradient.abs() > 0).flatten(0, -2).sum(dim=0)
        for part, mask in (("query", (touched > 0) & (touched <= batch)), ("key", touched > batch)):
            if mask.any():
                found[part][path] = gradient * mask
    if not found["query"] or not found["key"]:
        return None
    meeting = _meeting(scores, earlier, found)
    found["key"] = {path: gradient for path, gradient in found["key"].items() if path in meeting} or found["key"]
    return found


def _meeting(scores: torch.Tensor, earlier: list[Call], found: dict[str, dict[str, torch.Tensor]]) -> set[str]:
    """Return the maps whose results are multiplied with queries: what is added to scores (positions) is no key."""
    leaves = {call.path: call.leaf for call in earlier if call.leaf is not None}
    paths = [path for path in found["key"] if path in leaves]
    queries = [leaves[path] for path in found["query"] if path in leaves]
    first: Any = torch.autograd.grad(scores[..., -1, :].sum(), queries, create_graph=True, allow_unused=True)
    total = sum((one * one).sum() for one in first if one is not None and one.requires_grad)
    if not isinstance(total, torch.Tensor):
        return set()
    second: Any = torch.autograd.grad(total, [leaves[path] for path in paths], retain_graph=True, allow_unused=True)
    return {path for path, one in zip(paths, second, strict=True) if one is not None and bool(one.abs().max() > 0)}


def _made_by(call: Call, found: dict[str, dict[str, torch.Tensor]], earlier: list[Call], fused: bool) -> bool:
    acts = acting(call.read, earlier)  # type: ignore[arg-type]
    return bool(set(acts) & set(found["value"])) if fused else bool(acts)


def _shares(found: dict[str, dict[str, torch.Tensor]]) -> bool:
    return set(found["query"]) == set(found["key"])


def _choose(found: dict[str, torch.Tensor], earlier: list[Call]) -> tuple[str, object] | None:
    """Return the linear map that acts, the last one of several, and its columns."""
    order = [call.path for call in earlier if call.path in found]
    for path in sorted(order, key=lambda p: (_named(p), order.index(p)), reverse=True):
        try:
            return path, as_columns(used_columns(found[path]))
        except ValueError:
            continue
    return None


def _named(path: str) -> bool:
    return not re.search(r"pos|rel|gate|bias|router|index|norm|scale|mem", path.rpartition(".")[2])


def _projection(module: str, columns: object, whole: int) -> Projection:
    from unipetl.architectures import Columns

    if not isinstance(columns, Columns):
        return Projection(module)
    if (
        columns.count == 1
        and whole % columns.size == 0
        and columns.start % columns.size == 0
        and whole // columns.size in (2, 3)
    ):
        return Projection(module, columns.start // columns.size, whole // columns.size)
    return Projection(module, columns=columns)


def _table(
    trace: Trace, model: nn.Module, block: str, one: Attention, roles: Roles, paths: dict[str, str], out: Call,
    earlier: list[Call],
) -> Seen | None:  # fmt: skip
    container = _container(trace, block, one.path, paths.values())
    by_path = {call.path: call for call in earlier}
    query, inner = by_path[paths["query"]], trace.first(container)
    assert inner is not None
    first = min((by_path[path] for path in paths.values()), key=lambda call: call.start)
    reads, x = None, query.read
    if container != block and inner.read is not None and not equal(query.read, inner.read):
        own = [call for call in earlier if f"{call.path}.".startswith(f"{container}.") and _same(call.read, inner.read)]
        reads = inside(block, own[0].path if own else container)
        x, first = inner.read, inner
    assert x is not None
    sizes = _heads(model, one, roles, paths, x.shape[-1])
    if sizes is None:
        return None
    result = _turned(container, inner, out, x) if container != block else None
    joint = surroundings(trace, block, x, out, min(first.start, inner.start if container != block else first.start))
    result = result or _before_reshaping(trace, joint, out, x)
    heads, attribute = sizes
    alone = [other for other in trace.attentions if other.path == one.path]
    softmax, handed = None, False
    if alone == [one] and not _by_interface(model, one):
        softmax = own_softmax(one, roles, by_path[paths["query"]], by_path[paths["key"]], heads)
        if softmax is None:
            softmax = handed_softmax(one, roles["query"], by_path[paths["query"]], heads)
            handed = softmax is not None
    norm = joint.before or joint.after
    table = AttentionTable(
        kind=_kind(one, container),
        core=inside(block, one.path),
        query=roles["query"],
        key=roles["key"],
        value=roles["value"],
        output=inside(block, out.path),
        norm=inside(block, norm) if norm else None,
        head_dim=attribute or "head_dim",
        heads=None if attribute else heads,
        reads=reads,
        result=None if joint.dropped and not result else Port(inside(block, result or joint.result), "output"),
        softmax=softmax,
        handed=handed,
    )
    own_linears = {
        call.path for call in trace.calls if call.leaf is not None and f"{call.path}.".startswith(f"{container}.")
    }
    linears = frozenset({*paths.values(), out.path, *(own_linears if container != block else ())})
    return Seen(table, joint, linears)


def _same(first: torch.Tensor | None, second: torch.Tensor) -> bool:
    """Return whether two tensors are equal in shape, too: with one row, (tokens, rows) turned has the same numbers."""
    return first is not None and first.shape == second.shape and equal(first, second)


def _turned(container: str, inner: Call, out: Call, x: torch.Tensor) -> str | None:
    """Return the attention where it turns the output projection's result from (tokens, rows) to (rows, tokens)."""
    if out.gave is None or inner.gave is None:
        return None
    return container if inner.gave.shape[:-1] == x.shape[:-1] != out.gave.shape[:-1] else None


def _before_reshaping(trace: Trace, joint: Joint, out: Call, x: torch.Tensor) -> str | None:
    """Return the output projection where what joins the stream has rows of other lengths than what is read.

    Timesformer attends through time, puts the frames' tokens in one row, and maps them once more.
    """
    last = trace.first(joint.result)
    if last is None or last.gave is None or out.gave is None or last.gave.dim() != x.dim():
        return None
    return out.path if last.gave.shape[:-1] != x.shape[:-1] == out.gave.shape[:-1] else None


def _by_interface(model: nn.Module, one: Attention) -> bool:
    """Whether the softmax seen is the eager implementation's, which another may replace at any time; or counts not."""
    model_type = getattr(getattr(model, "config", None), "model_type", "")
    return model_type in NO_ORIGIN or uses_interface(model.get_submodule(one.path))


def _kind(one: Attention, container: str) -> Literal["self", "cross"]:
    crossing = re.search(r"cross|enc|memory|context|vision|src", container.lower().rpartition(".")[2])
    return "cross" if one.rows != one.columns and crossing else "self"


def _container(trace: Trace, block: str, core: str, inside: object) -> str:
    """Return the smallest module around ``core`` and the projections."""
    path = core
    while path != block and not all(f"{one}.".startswith(f"{path}.") for one in inside):  # type: ignore[attr-defined]
        path = path.rpartition(".")[0]
    return path if trace.first(path) is not None else block


def _heads(
    model: nn.Module, one: Attention, roles: Roles, paths: dict[str, str], width: int
) -> tuple[Heads, str | None] | None:
    core = model.get_submodule(one.path)
    sizes = {}
    for part, path in paths.items():
        whole = features(model.get_submodule(path))
        assert whole is not None
        columns, parts = roles[part].columns, roles[part].parts
        sizes[part] = columns.features if columns else whole[1] // parts
    if one.query is not None and one.query.dim() == 4 and one.value is not None and one.key is not None:
        heads, key_dim, value_dim = one.query.shape[1], one.query.shape[-1], one.value.shape[-1]
        groups = getattr(core, "num_key_value_groups", None)
        key_heads = heads // groups if isinstance(groups, int) and groups > 0 else max(sizes["value"] // value_dim, 1)
    elif one.weights is not None and one.weights.dim() in (3, 4):
        heads = one.weights.shape[1] if one.weights.dim() == 4 else _attribute(core, HEADS)
        if not heads or sizes["query"] % heads:
            return None
        key_dim = sizes["query"] // heads
        key_heads = max(sizes["key"] // key_dim, 1)
        if heads % key_heads:  # part of every key (its rotated numbers) comes from elsewhere
            key_heads = heads
        value_dim = sizes["value"] // key_heads
    else:
        return None
    found = Heads(width, heads, key_heads, key_dim, value_dim)
    reads = features(model.get_submodule(paths["query"]))
    follows = (
        reads is not None
        and reads[0] == width
        and sizes["query"] == heads * key_dim
        and sizes["key"] == key_heads * key_dim
        and sizes["value"] == key_heads * value_dim
    )
    attribute = next((name for name in HEAD_DIM if getattr(core, name, None) == key_dim), None) if follows else None
    return found, attribute


HEAD_DIM = (
    "head_dim",
    "attention_head_size",
    "key_value_proj_dim",
    "dim_per_head",
    "head_size",
    "d_kv",
    "dim_head",
    "d_k",
)
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "h")


def _attribute(module: nn.Module, names: tuple[str, ...]) -> int:
    return next((value for name in names if isinstance(value := getattr(module, name, None), int)), 0)
