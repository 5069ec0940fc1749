"""Walks a concrete model with a table and returns every site, its shapes read from the modules themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from unipetl.architectures.base import Architecture, AttentionTable, Port, Projection, Site, StackTable
from unipetl.errors import ArchitectureError
from unipetl.forms import Features, Heads, Shape, Tokens
from unipetl.representation import Kind


def find_sites(model: nn.Module, base: str, architecture: Architecture) -> tuple[Site, ...]:
    """Return every site of ``model``, in the order of the computation.

    Args:
        model: a model on any device, the meta device included.
        base: path of the base model inside it; "" if it is the model itself.
        architecture: the table.

    Raises:
        ArchitectureError: a module is not where the table says.
    """
    sites: list[Site] = []
    present = 0
    for table in architecture.stacks:
        root = join_path(base, table.root)
        blocks_path = join_path(root, table.blocks)
        blocks = find_module(model, blocks_path)
        if blocks is None:
            continue
        present += 1
        if not isinstance(blocks, nn.ModuleList):
            raise ArchitectureError(f"expected a list of blocks at {blocks_path!r}, found {type(blocks).__name__}.")
        sites.extend(_stack_sites(model, table, root, blocks_path, len(blocks)))
    if not present:
        wanted = ", ".join(repr(join_path(join_path(base, table.root), table.blocks)) for table in architecture.stacks)
        raise ArchitectureError(
            f"{type(model).__name__}: no stack of blocks found at {wanted}, where the table for "
            f"{'/'.join(architecture.model_types)} expects one. Pass `architecture=` with a table that fits."
        )
    return tuple(sites)


def _stack_sites(model: nn.Module, table: StackTable, root: str, blocks: str, depth: int) -> Iterator[Site]:
    for layer in range(depth):
        block = f"{blocks}.{layer}"
        for attention in table.attentions:
            if attention.optional and find_module(model, join_path(block, attention.core)) is None:
                continue
            yield from _attention_sites(model, table, root, block, layer, attention)
        yield from _feed_forward_sites(model, table, root, block, layer)
    if not table.tokens:
        return
    width = linear_shape(model, join_path(f"{blocks}.0", table.feed_forward.up.module)).in_features
    entry = Port(join_path(root, table.entry), "output")
    yield Site(
        name=f"{table.stack}.input", representation="input", stack=table, kind=None, layer=0, owner=root,
        shape=Tokens(width), value=entry, join=entry, normed=None, residual=None, norm_after=None, query=None,
        stack_root=root,
    )  # fmt: skip


def _attention_sites(
    model: nn.Module, table: StackTable, root: str, block: str, layer: int, attention: AttentionTable
) -> Iterator[Site]:
    prefix = f"{table.stack}.{layer}.{attention.kind}_attention"
    reads = Port(join_path(block, attention.query.module), "input")
    residual = Port(join_path(block, attention.norm), "input") if table.norm_first else reads
    width = linear_shape(model, join_path(block, attention.query.module)).in_features
    common = _Common(table, attention.kind, layer, root, reads, residual)
    shapes: dict[str, Features] = {}
    for part in ("query", "key", "value"):
        projection: Projection = getattr(attention, part)
        port, shape = _projected(model, block, projection)
        shapes[part] = shape
        yield common.site(f"{prefix}.{part}", f"attention.{part}", port.module, shape, port, port, own_input=True)
    head_dim = _attribute(model, join_path(block, attention.core), attention.head_dim)
    output = join_path(block, attention.output)
    out_shape = linear_shape(model, output)
    key_heads = shapes["key"].out_features // head_dim
    heads = Heads(
        width=width,
        query_heads=shapes["query"].out_features // head_dim,
        key_heads=key_heads,
        key_dim=head_dim,
        value_dim=shapes["value"].out_features // key_heads,
    )
    joined = Port(output, "input")
    query = replace(attention.query, module=join_path(block, attention.query.module))
    yield common.site(
        f"{prefix}.heads", "attention.heads", join_path(block, attention.core), heads, joined, joined, query=query
    )
    end = Port(output, "output")
    yield common.site(f"{prefix}.output", "attention.output", output, out_shape, end, end, own_input=True)
    result = _absolute(block, attention.result) if attention.result else end
    shape = Features(width, out_shape.out_features)
    yield common.site(prefix, "attention", output, shape, result, result)


def _feed_forward_sites(model: nn.Module, table: StackTable, root: str, block: str, layer: int) -> Iterator[Site]:
    ffn = table.feed_forward
    prefix = f"{table.stack}.{layer}"
    reads = Port(join_path(block, ffn.up.module), "input")
    norm = join_path(block, ffn.norm)
    residual = Port(norm, "input") if table.norm_first else reads
    common = _Common(table, None, layer, root, reads, residual)
    up_port, up = _projected(model, block, ffn.up)
    yield common.site(f"{prefix}.ffn.up", "ffn.up", up_port.module, up, up_port, up_port, own_input=True)
    if ffn.gate is not None:
        gate_port, gate = _projected(model, block, ffn.gate)
        yield common.site(
            f"{prefix}.ffn.gate", "ffn.gate", gate_port.module, gate, gate_port, gate_port, own_input=True
        )
    down_port, down = _projected(model, block, ffn.down)
    inner = Port(down_port.module, "input")
    hidden = Features(up.in_features, down.in_features)
    yield common.site(f"{prefix}.ffn.hidden", "ffn.hidden", down_port.module, hidden, inner, inner)
    yield common.site(f"{prefix}.ffn.down", "ffn.down", down_port.module, down, down_port, down_port, own_input=True)
    result = _absolute(block, ffn.result)
    join = _absolute(block, ffn.join) if ffn.join else result
    whole = Features(up.in_features, down.out_features)
    yield common.site(f"{prefix}.ffn", "ffn", down_port.module, whole, result, join)
    end = Port(block, "output")
    stream = end if table.norm_first else Port(norm, "input")
    after = None if table.norm_first else norm
    yield common.site(f"{prefix}.ffn.residual", "ffn.residual", block, whole, stream, stream, norm_after=after)
    start = Port(block, "input")
    outer = _Common(table, None, layer, root, start, start)
    yield outer.site(f"{prefix}.block", "block", block, whole, end, end)


@dataclass(frozen=True, slots=True)
class _Common:
    table: StackTable
    kind: Kind | None
    layer: int
    root: str
    reads: Port
    residual: Port

    def site(
        self,
        name: str,
        representation: str,
        owner: str,
        shape: Shape,
        value: Port,
        join: Port,
        *,
        own_input: bool = False,
        norm_after: str | None = None,
        query: Projection | None = None,
    ) -> Site:
        """Return a site; a projection's x is what that projection reads."""
        reads = Port(owner, "input") if own_input else self.reads
        residual = reads if own_input else self.residual
        return Site(
            name=name, representation=representation, stack=self.table, kind=self.kind, layer=self.layer,
            owner=owner, shape=shape, value=value, join=join, normed=reads, residual=residual,
            norm_after=norm_after, query=query, stack_root=self.root,
        )  # fmt: skip


def linear_shape(model: nn.Module, path: str) -> Features:
    """Return the in and out features of the linear map at ``path`` (Linear, Conv1D, or quantised).

    Raises:
        ArchitectureError: there is no linear map.
    """
    module = find_module(model, path)
    if module is None:
        raise ArchitectureError(f"{type(model).__name__} has no module {path!r}, which its table names.")
    found = (getattr(module, "in_features", None), getattr(module, "out_features", None))
    if found == (None, None) and hasattr(module, "nx") and hasattr(module, "nf"):  # transformers' Conv1D
        found = (module.nx, module.nf)
    if isinstance(found[0], int) and isinstance(found[1], int):
        return Features(found[0], found[1])
    raise ArchitectureError(f"{path!r} is a {type(module).__name__}, and not a linear map with known features.")


def _projected(model: nn.Module, block: str, projection: Projection) -> tuple[Port, Features]:
    path = join_path(block, projection.module)
    whole = linear_shape(model, path)
    if projection.parts == 1:
        return Port(path, "output"), whole
    size = whole.out_features // projection.parts
    columns = (projection.part * size, (projection.part + 1) * size)
    return Port(path, "output", columns), Features(whole.in_features, size)


def _absolute(block: str, port: Port) -> Port:
    return replace(port, module=join_path(block, port.module))


def _attribute(model: nn.Module, path: str, name: str) -> int:
    value = getattr(find_module(model, path), name, None)
    if not isinstance(value, int):
        raise ArchitectureError(f"{path!r} has no integer attribute {name!r}, which its table names.")
    return value


def join_path(first: str, second: str) -> str:
    """Return the path of ``second`` inside ``first``, either of which may be empty."""
    return f"{first}.{second}" if first and second else first or second


def find_module(model: nn.Module, path: str) -> nn.Module | None:
    """Return the module at ``path``, or None."""
    found: object = model
    for part in path.split(".") if path else []:
        found = getattr(found, part, None)
        if not isinstance(found, nn.Module):
            return None
    return found if isinstance(found, nn.Module) else None
