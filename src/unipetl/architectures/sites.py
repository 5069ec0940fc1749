"""Walks a concrete model with a table and returns every site, its shapes read from the modules themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from unipetl.architectures.base import (
    Architecture,
    AttentionTable,
    FeedForwardTable,
    Port,
    Projection,
    Site,
    StackTable,
)
from unipetl.architectures.embeddings import embedding_shape
from unipetl.architectures.mixtures import has_places, places_inside
from unipetl.architectures.modules import absolute, attribute_of, find_module, join_path, linear_shape, projected
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
    embeddings: list[nn.Module | None] = []
    present = 0
    for table in architecture.stacks:
        blocks = find_blocks(model, base, table)
        if blocks is None:
            continue
        present += 1
        for site in _stack_sites(model, base, table, join_path(base, table.root), blocks):
            if site.representation == "embedding":  # two stacks may share the module: it is one place
                module = find_module(model, site.owner)
                if any(one is module for one in embeddings):
                    continue
                embeddings.append(module)
            sites.append(site)
    if not present:
        wanted = ", ".join(repr(join_path(join_path(base, table.root), table.blocks)) for table in architecture.stacks)
        raise ArchitectureError(
            f"{type(model).__name__}: no stack of blocks found at {wanted}, where the table for "
            f"{'/'.join(architecture.model_types)} expects one. Pass `architecture=` with a table that fits."
        )
    return tuple(sites)


def find_blocks(model: nn.Module, base: str, table: StackTable) -> list[str] | None:
    """Return the paths of the blocks of a stack in their order, or None if the model has no such stack.

    Raises:
        ArchitectureError: what the table names is no list of blocks.
    """
    paths = [join_path(base, table.root)]
    for number, part in enumerate(table.blocks.split(".*.")):
        if number:
            paths = [f"{path}.{index}" for path in paths for index in range(len(_list(model, path)))]
        paths = [join_path(path, part) for path in paths]
        if number:  # of the items of an outer list only some may have an inner one
            paths = [path for path in paths if find_module(model, path) is not None]
    if not paths or any(find_module(model, path) is None for path in paths):
        return None
    return [f"{path}.{index}" for path in paths for index in range(len(_list(model, path)))]


def _list(model: nn.Module, path: str) -> nn.ModuleList | nn.Sequential:
    blocks = find_module(model, path)
    if blocks is None:
        return nn.ModuleList()
    if not isinstance(blocks, (nn.ModuleList, nn.Sequential)):
        raise ArchitectureError(f"expected a list of blocks at {path!r}, found {type(blocks).__name__}.")
    return blocks


def _stack_sites(model: nn.Module, base: str, table: StackTable, root: str, blocks: list[str]) -> Iterator[Site]:
    width = 0
    for layer, block in enumerate(blocks):
        sites: list[Site] = []
        for attention in table.attentions:
            parts = (part.module for part in (attention.query, attention.key, attention.value))
            if attention.layers is not None and layer not in attention.layers:
                continue
            if attention.optional and not _has(model, block, attention.core, *parts, attention.output):
                continue
            sites.extend(_attention_sites(model, table, root, block, layer, attention))
        own_width = next((one.shape.width for one in sites if isinstance(one.shape, Heads)), 0)
        ffn = feed_forward_in(model, block, table)
        if ffn is not None:
            sites.extend(_feed_forward_sites(model, table, root, block, layer, ffn, own_width))
        own_width = own_width or next(
            (one.shape.in_features for one in reversed(sites) if isinstance(one.shape, Features)), 0
        )
        if own_width:
            yield from sites
            yield _block_site(table, root, block, layer, own_width)
            width = width or own_width
    if table.embedding:
        yield _embedding_site(model, base, table, root)
    if not table.tokens or not table.entry:
        return
    entry = Port(join_path(root, table.entry), "output")
    yield Site(
        name=f"{table.stack}.input", representation="input", stack=table, kind=None, layer=0, owner=root,
        shape=Tokens(width), value=entry, join=entry, normed=None, residual=None, norm_after=None, query=None,
        stack_root=root,
    )  # fmt: skip


def _embedding_site(model: nn.Module, base: str, table: StackTable, root: str) -> Site:
    path = join_path(base, table.embedding)
    module = find_module(model, path)
    if module is None:
        raise ArchitectureError(f"{type(model).__name__} has no module {path!r}, which its table names.")
    start, end = Port(path, "input"), Port(path, "output")
    common = _Common(table, None, 0, root, start, start)
    return common.site(f"{table.stack}.embedding", "embedding", path, embedding_shape(module, path), end, end)


def _has(model: nn.Module, block: str, *paths: str) -> bool:
    return all(find_module(model, join_path(block, path)) is not None for path in paths)


def feed_forward_in(model: nn.Module, block: str, table: StackTable) -> FeedForwardTable | None:
    """Return the table of the FFN that a block has; one that none may lack is returned unseen."""
    choices = () if table.feed_forward is None else (table.feed_forward, *table.alternatives)
    for one in choices:
        inner = [part.module for part in (one.up, one.down, one.gate) if part is not None]
        if _has(model, block, *inner, *([one.reads] if one.reads else [])) and has_places(model, block, one.experts):
            return one
    return choices[0] if len(choices) == 1 and not choices[0].optional else None


def _attention_sites(
    model: nn.Module, table: StackTable, root: str, block: str, layer: int, attention: AttentionTable
) -> Iterator[Site]:
    prefix = f"{table.stack}.{layer}.{attention.kind}_attention"
    reads = Port(join_path(block, attention.reads or attention.query.module), "input")
    common = _Common(table, attention.kind, layer, root, reads, _residual(table, block, attention.norm, reads))
    shapes: dict[str, Features] = {}
    for part in ("query", "key", "value"):
        projection: Projection = getattr(attention, part)
        port, shape = projected(model, block, projection)
        shapes[part] = shape
        yield common.site(f"{prefix}.{part}", f"attention.{part}", port.module, shape, port, port, own_input=True)
    output = join_path(block, attention.output)
    out_shape = linear_shape(model, output)
    heads = attention.heads or _heads(model, block, attention, shapes)
    joined = Port(output, "input")
    query = replace(attention.query, module=join_path(block, attention.query.module))
    core = join_path(block, attention.core)
    yield common.site(
        f"{prefix}.heads",
        "attention.heads",
        core,
        heads,
        joined,
        joined,
        query=query,
        softmax=attention.softmax,
        handed=attention.handed,
    )
    end = Port(output, "output")
    yield common.site(f"{prefix}.output", "attention.output", output, out_shape, end, end, own_input=True)
    result = absolute(block, attention.result) if attention.result else end
    shape = Features(heads.width, out_shape.out_features)
    yield common.site(prefix, "attention", output, shape, result, result)


def _heads(model: nn.Module, block: str, attention: AttentionTable, shapes: dict[str, Features]) -> Heads:
    head_dim = attribute_of(model, join_path(block, attention.core), attention.head_dim)
    key_heads = shapes["key"].out_features // head_dim
    return Heads(
        width=linear_shape(model, join_path(block, attention.query.module)).in_features,
        query_heads=shapes["query"].out_features // head_dim,
        key_heads=key_heads,
        key_dim=head_dim,
        value_dim=shapes["value"].out_features // key_heads,
    )


def _residual(table: StackTable, block: str, norm: str | None, reads: Port) -> Port | None:
    if not table.norm_first:
        return reads
    return None if norm is None else Port(join_path(block, norm), "input")


def _feed_forward_sites(
    model: nn.Module, table: StackTable, root: str, block: str, layer: int, ffn: FeedForwardTable, width: int
) -> Iterator[Site]:
    prefix = f"{table.stack}.{layer}"
    first = ffn.reads or (ffn.up.module if ffn.up else "")
    reads = Port(join_path(block, first), "input")
    common = _Common(table, None, layer, root, reads, _residual(table, block, ffn.norm, reads))
    result = absolute(block, ffn.result)
    join = absolute(block, ffn.join) if ffn.join else result
    owner, whole = result.module, Features(width, width)
    if ffn.up is not None and ffn.down is not None:
        up_port, up = projected(model, block, ffn.up)
        yield common.site(f"{prefix}.ffn.up", "ffn.up", up_port.module, up, up_port, up_port, own_input=True)
        if ffn.gate is not None:
            gate_port, gate = projected(model, block, ffn.gate)
            yield common.site(
                f"{prefix}.ffn.gate", "ffn.gate", gate_port.module, gate, gate_port, gate_port, own_input=True
            )
        down_port, down = projected(model, block, ffn.down)
        owner, inner = down_port.module, Port(down_port.module, "input")
        hidden = Features(up.in_features, down.in_features)
        yield common.site(f"{prefix}.ffn.hidden", "ffn.hidden", owner, hidden, inner, inner)
        yield common.site(f"{prefix}.ffn.down", "ffn.down", owner, down, down_port, down_port, own_input=True)
        whole = Features(up.in_features, down.out_features)
    inside = [found for one in ffn.experts for found in places_inside(model, block, one)]
    if not whole.in_features and inside:
        whole = Features(inside[0].width, inside[0].width)
    for found in inside:
        one = common.site(
            f"{prefix}.ffn.{found.name}", found.representation, found.owner, found.shape, found.port, found.port
        )
        yield replace(
            one, normed=found.reads, residual=found.reads, inside=found.inside, expert=found.expert,
            stacked=found.stacked,
        )  # fmt: skip
    yield common.site(f"{prefix}.ffn", "ffn", owner, whole, result, join)
    norm = join_path(block, ffn.norm) if ffn.norm else None
    after = None if table.norm_first else norm
    stream = Port(block, "output") if after is None else Port(after, "input")
    yield common.site(f"{prefix}.ffn.residual", "ffn.residual", block, whole, stream, stream, norm_after=after)


def _block_site(table: StackTable, root: str, block: str, layer: int, width: int) -> Site:
    start, end = Port(block, "input"), Port(block, "output")
    common = _Common(table, None, layer, root, start, start)
    return common.site(f"{table.stack}.{layer}.block", "block", block, Features(width, width), end, end)


@dataclass(frozen=True, slots=True)
class _Common:
    table: StackTable
    kind: Kind | None
    layer: int
    root: str
    reads: Port
    residual: Port | None

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
        softmax: float | None = None,
        handed: bool = False,
    ) -> Site:
        """Return a site; a projection's x is what that projection reads."""
        reads = Port(owner, "input") if own_input else self.reads
        residual = reads if own_input else self.residual
        return Site(
            name=name, representation=representation, stack=self.table, kind=self.kind, layer=self.layer,
            owner=owner, shape=shape, value=value, join=join, normed=reads, residual=residual,
            norm_after=norm_after, query=query, stack_root=self.root, softmax=softmax, handed=handed,
        )  # fmt: skip
