"""The BART family: inline FFNs (fc1, fc2) with functional dropout, in post-norm and pre-norm order.

In post-norm blocks a parallel FFN change joins after the dropout, at the following norm's input. In
pre-norm blocks, and for sequential changes, it sits on fc2's result, before the dropout (which is
functional and cannot be hooked): the same function in evaluation, and under training dropout the change
is dropped with the result it changes.
"""

from typing import Literal

from unipetl.architectures.base import Architecture, AttentionTable, FeedForwardTable, Port, Projection, StackTable


def _attention(kind: Literal["self", "cross"], module: str) -> AttentionTable:
    return AttentionTable(
        kind=kind,
        core=module,
        query=Projection(f"{module}.q_proj"),
        key=Projection(f"{module}.k_proj"),
        value=Projection(f"{module}.v_proj"),
        output=f"{module}.out_proj",
        norm=f"{module}_layer_norm",
        optional=kind == "cross",
    )


def _stack(
    stack: Literal["encoder", "decoder"],
    *,
    norm_first: bool,
    entry: str,
    tokens: str = "embed_tokens",
    embedding: str = "embed_tokens",
    scale: str | None = None,
) -> StackTable:
    cross = (_attention("cross", "encoder_attn"),) if stack == "decoder" else ()
    return StackTable(
        stack=stack,
        root=stack,
        blocks="layers",
        attentions=(_attention("self", "self_attn"), *cross),
        feed_forward=FeedForwardTable(
            up=Projection("fc1"),
            down=Projection("fc2"),
            norm="final_layer_norm",
            result=Port("fc2", "output"),
            join=None if norm_first else Port("final_layer_norm", "input"),
        ),
        norm_first=norm_first,
        entry=entry,
        tokens=tokens,
        embedding=f"{stack}.{embedding}",
        positions=("embed_positions",),
        scale=scale,
        causal=stack == "decoder",
    )


def _family(model_types: tuple[str, ...], *, norm_first: bool, entry: str, scale: str | None = None) -> Architecture:
    encoder = _stack("encoder", norm_first=norm_first, entry=entry, scale=scale)
    # A decoder that scales whatever vectors it is given would scale a prompt, too: it has no place for one.
    tokens = "embed_tokens" if scale is None else ""
    return Architecture(model_types, (encoder, _stack("decoder", norm_first=norm_first, entry=entry, tokens=tokens)))


BART = _family(("bart",), norm_first=False, entry="layernorm_embedding")
MBART = _family(("mbart",), norm_first=True, entry="layernorm_embedding")
MARIAN = _family(("marian",), norm_first=False, entry="embed_tokens", scale="embed_scale")
WHISPER = Architecture(
    model_types=("whisper",),
    stacks=(
        _stack("encoder", norm_first=True, entry="conv2", tokens="", embedding="conv2"),
        _stack("decoder", norm_first=True, entry="embed_tokens", tokens=""),
    ),
)
