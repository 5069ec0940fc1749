"""From a model to its table: stacks by structure, projections and sub-layers by one watched forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import nn

from unipetl.architectures import Architecture, StackTable, find_sites, join_path
from unipetl.architectures.base import AttentionTable, FeedForwardTable
from unipetl.architectures.embeddings import token_embedding
from unipetl.errors import ArchitectureError
from unipetl.inference.ambient import undisturbed
from unipetl.inference.attention import Seen, attentions_of
from unipetl.inference.blocks import Found, find_stacks
from unipetl.inference.embedding import embedding_of
from unipetl.inference.feed_forward import feed_forward_of
from unipetl.inference.flow import equal
from unipetl.inference.inputs import example_inputs
from unipetl.inference.mixtures import experts_of
from unipetl.inference.names import names_of
from unipetl.inference.residual import Joint
from unipetl.inference.tracing import Trace, trace

_Table = TypeVar("_Table", AttentionTable, FeedForwardTable)


@dataclass(frozen=True)
class Inferred:
    """What was found: a table, and the path of the base model that it starts from."""

    base: str
    architecture: Architecture


@undisturbed()
def infer(model: nn.Module, inputs: Mapping[str, Any] | None = None) -> Inferred:
    """Return a table for ``model``, found by its structure and one forward pass.

    Args:
        model: a model that can compute (not on the meta device).
        inputs: keyword arguments of one call; made for transformers models.

    Raises:
        ArchitectureError: nothing was found, or not enough to be sure; the message says what was missing.
    """
    stacks = find_stacks(model)
    if not stacks:
        raise ArchitectureError(
            f"{type(model).__name__}: no list of like layers was found. Pass `architecture=` with a table."
        )
    seen = trace_of(model, inputs, stacks)
    base = base_path(model)
    names = names_of(model, stacks)
    tables, reasons = [], []
    for found, name in zip(stacks, names, strict=True):
        try:
            tables.append(_stack(model, seen, found, name, base))
        except ArchitectureError as reason:
            reasons.append(str(reason))
        except Exception as error:  # noqa: BLE001 - nothing is known of the code that was watched
            reasons.append(f"{found.pattern!r}: its layers were not understood ({_short(error)}).")
    if not tables:
        raise ArchitectureError(" ".join(reasons) + " Pass `architecture=` with a table of its places.")
    model_type = str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
    architecture = Architecture((model_type,), tuple(tables))
    find_sites(model, base, architecture)
    return Inferred(base, architecture)


def trace_of(model: nn.Module, inputs: Mapping[str, Any] | None, stacks: Sequence[Found]) -> Trace:
    """Return a watched forward pass that reaches every stack; towers it does not reach are watched on their own.

    Raises:
        ArchitectureError: the model does not compute from these inputs.
    """
    seen = _try(model, _inputs_of(model) if inputs is None else [inputs])
    for found in stacks:
        if any(seen.first(block) is not None for block in found.blocks):
            continue
        path = _tower(model, found.pattern)
        if path:
            try:
                seen.add(_try(tower := model.get_submodule(path), _inputs_of(tower)), path)
            except ArchitectureError:
                continue  # the stack's own message says that it was not reached
    return seen


def _inputs_of(model: nn.Module) -> list[dict[str, Any]]:
    try:
        return example_inputs(model)
    except ArchitectureError:
        raise
    except Exception as error:  # a config may hold anything under a name that is known
        raise ArchitectureError(
            f"{type(model).__name__}: no arguments for a small call could be made from its config ({_short(error)}). "
            "Pass `architecture=` with a table of its places."
        ) from error


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _try(model: nn.Module, choices: Sequence[Mapping[str, Any]]) -> Trace:
    reason: Exception | None = None
    for inputs in choices:
        try:
            return trace(model, inputs)
        except Exception as error:  # noqa: BLE001 - a model may fail in any way on inputs that were guessed
            reason = reason or error
    assert reason is not None
    raise ArchitectureError(
        f"{type(model).__name__}: its places are found by watching one forward pass, which failed "
        f"({_short(reason)}). Pass `architecture=` with a table."
    ) from reason


def _tower(model: nn.Module, pattern: str) -> str:
    """Return the innermost model around a stack that has a config and inputs of its own; "" is ``model`` itself."""
    path = pattern.split(".*.")[0]
    while path:
        path = path.rpartition(".")[0]
        module = model.get_submodule(path)
        if path and hasattr(module, "config") and hasattr(module, "main_input_name"):
            return path
    return ""


def base_path(model: nn.Module) -> str:
    """Return the path of transformers' base model inside ``model``; "" if it is the model itself."""
    inner = getattr(model, "base_model", model)
    return next((path for path, module in model.named_modules() if module is inner), "")


def _stack(model: nn.Module, seen: Trace, found: Found, name: str, base: str) -> StackTable:
    seen_in: list[tuple[str, list[Seen], tuple[FeedForwardTable, Joint] | None]] = []
    executed = [block for block in found.blocks if seen.first(block) is not None]
    if not executed:
        raise ArchitectureError(f"{found.pattern!r}: its layers were not reached in a forward pass.")
    for block in executed:
        heads = attentions_of(seen, model, block)
        own = frozenset().union(*(one.linears for one in heads))
        ffn = feed_forward_of(seen, model, block, own)
        if ffn is not None:
            experts, closed = experts_of(seen, block, own)
            ffn = replace(ffn[0], experts=experts, closed=closed), ffn[1]
        seen_in.append((block, heads, ffn))
    joints = [one.joint for _, heads, _ in seen_in for one in heads] + [ffn[1] for _, _, ffn in seen_in if ffn]
    if not joints:
        raise ArchitectureError(f"{found.pattern!r}: neither an attention nor an FFN was understood in its layers.")
    norm_first = sum(one.before is not None for one in joints) >= sum(one.after is not None for one in joints)
    attentions = [[_ordered(one.table, one.joint, block, norm_first) for one in heads] for block, heads, _ in seen_in]
    forwards = [_ordered(*ffn, block, norm_first) if ffn else None for block, _, ffn in seen_in]
    if norm_first:  # a change joins at the norm that follows only where norms follow
        forwards = [replace(one, join=None) if one else None for one in forwards]
    root = _root(model, found.pattern, base)
    inside = join_path(base, root)
    causal = _causal(model, seen, executed[0]) or name == "decoder"
    entry, tokens = _entry(model, seen, inside, executed[0])
    choices = _choices(forwards)
    blocks = {block for stack in find_stacks(model) for block in stack.blocks}
    return StackTable(
        stack=name,
        root=root,
        blocks=found.pattern.removeprefix(f"{inside}.") if inside else found.pattern,
        attentions=_merge(
            found.pattern,
            [(found.blocks.index(block), own) for (block, _, _), own in zip(seen_in, attentions, strict=True)],
        ),
        feed_forward=replace(choices[0], optional=None in forwards) if choices else None,
        alternatives=tuple(choices[1:]),
        norm_first=norm_first,
        entry=entry,
        tokens=tokens,
        embedding=_within(base, embedding_of(seen, model, inside, executed[0], blocks)),
        prompt_at="tokens" if entry == tokens else "entry",
        rotary=_rotary(model, inside)
        or (_counts(model, inside) and any(one.handed for own in attentions for one in own)),
        causal=causal,
    )


def _within(base: str, path: str) -> str:
    """Return a path relative to the base model; "" if it is outside."""
    return path.removeprefix(f"{base}.") if not base or path.startswith(f"{base}.") else ""


def _ordered(table: _Table, joint: Joint, block: str, norm_first: bool) -> _Table:
    """Return a table with the norm that belongs to it, in an order that all layers share.

    Where a first layer has no norm before a sub-layer, as what enters is normed already, the norm after it is the next
    sub-layer's.
    """
    norm = joint.before if norm_first else joint.after
    return replace(table, norm=norm.removeprefix(f"{block}.") if norm else None)


def _choices(forwards: Sequence[FeedForwardTable | None]) -> list[FeedForwardTable]:
    """Return the different FFNs of a stack: those with projections first, then mixtures, the most frequent first.

    The first one that a block has is taken there. A mixture whose experts are not understood is known by one module
    alone, whose name a plain FFN of another layer may have too.
    """
    counts = Counter(one for one in forwards if one is not None)
    return sorted(counts, key=lambda one: (one.up is None, not one.experts, -counts[one]))


def _projections(one: AttentionTable) -> tuple[str, ...]:
    return one.query.module, one.key.module, one.value.module, one.output


def _merge(pattern: str, per_block: Sequence[tuple[int, list[AttentionTable]]]) -> tuple[AttentionTable, ...]:
    """Return the attentions of all blocks; those that not every block has are optional.

    Where blocks have the same modules laid out differently (with heads of another size, say), there is one table for
    each layout, which says whose it is.

    Raises:
        ArchitectureError: the same module takes its queries, keys or values from different ones in different blocks.
    """
    places: dict[tuple[str, str, str], list[tuple[AttentionTable, list[int]]]] = {}
    for number, one in ((number, one) for number, block in per_block for one in block):
        layouts = places.setdefault((one.kind, one.core, one.query.module), [])
        for index, (same, layers) in enumerate(layouts):
            if replace(same, norm=None) == replace(one, norm=None):
                layers.append(number)
                if same.norm is None:  # a norm that does nothing in the first layer is no norm there
                    layouts[index] = (one, layers)
                break
        else:
            if any(_projections(one) != _projections(same) for same, _ in layouts):
                raise ArchitectureError(
                    f"{pattern!r}: {one.core!r} takes its queries, keys and values from different modules in "
                    "different layers."
                )
            layouts.append((one, [number]))
    made = []
    for layouts in places.values():
        for one, layers in layouts:
            own = frozenset(layers) if len(layouts) > 1 else None
            made.append(replace(one, optional=len(layers) < len(per_block), layers=own))
    return tuple(made)


def _root(model: nn.Module, pattern: str, base: str) -> str:
    """Return the innermost module around the blocks that takes tokens, relative to the base model."""
    path = pattern.split(".*.")[0]
    root = base
    while path:
        path = path.rpartition(".")[0]
        module = model.get_submodule(path)
        if hasattr(module, "config") and not isinstance(module, nn.ModuleList) and _takes_inputs(module):
            root = path
            break
        if path == base:
            break
    return root.removeprefix(base).removeprefix(".") if base else root


def _takes_inputs(module: nn.Module) -> bool:
    import inspect

    names = set(inspect.signature(module.forward).parameters)
    return bool(
        names & {"input_ids", "inputs_embeds", "pixel_values", "input_features", "input_values", "input_tokens"}
    )


def _entry(model: nn.Module, seen: Trace, root: str, block: str) -> tuple[str, str]:
    """Return the module whose result enters the first block, and the token embedding, relative to the stack.

    The second is "" where a prompt has no place: what enters is not the tokens' vectors, or their sum with positions.
    """
    first = seen.first(block)
    if first is None or first.read is None:
        return "", ""
    inside = {id(module): path for path, module in model.get_submodule(root).named_modules(remove_duplicate=False)}
    earlier = [one for one in seen.calls if id(one.module) in inside and one.end < first.start]
    earlier = [
        one for one in earlier if inside[id(one.module)] and one.gave is not None and one.gave.is_floating_point()
    ]
    same = [one for one in earlier if equal(one.gave, first.read)]
    tokens = next((inside[id(one.module)] for one in earlier if _embeds_tokens(one.module, model)), "")
    if any(_embeds_tokens(one.module, model) for one in same):
        return tokens, tokens
    plain = [one for one in same if not list(one.module.children())] or same
    if not plain:  # functions lie between: anything that comes before the blocks lets gradients through
        last = [one for one in earlier if not list(one.module.children()) and one.gave.dim() >= 3]  # type: ignore[union-attr]
        alike = [one for one in last if one.gave.shape == first.read.shape] or last  # type: ignore[union-attr]
        return (tokens or (inside[id(alike[-1].module)] if alike else "")), ""
    entry = plain[0]
    summed = entry.read is not None and entry.read.dim() == 3 and entry.read.is_floating_point()
    return inside[id(entry.module)], tokens if summed else ""


def _embeds_tokens(module: nn.Module, model: nn.Module) -> bool:
    """Return whether a module is the token embedding, or one tied to it."""
    found = token_embedding(model)
    return isinstance(module, nn.Embedding) and isinstance(found, nn.Embedding) and module.weight is found.weight


def _rotary(model: nn.Module, root: str) -> bool:
    return any("rotary" in type(module).__name__.lower() for module in model.get_submodule(root).modules())


def _counts(model: nn.Module, root: str) -> bool:
    """Return whether a stack takes the positions of its tokens."""
    import inspect

    return "position_ids" in inspect.signature(model.get_submodule(root).forward).parameters


def _causal(model: nn.Module, seen: Trace, block: str) -> bool:
    cores = [one.path for one in seen.attentions if f"{one.path}.".startswith(f"{block}.")]
    return any(getattr(model.get_submodule(path), "is_causal", False) for path in cores)
