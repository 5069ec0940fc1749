"""T5: pre-norm sub-layers in a list of two (encoder) or three (decoder), biased relative positions, no scaling."""

from typing import Literal

from unipetl.architectures.base import Architecture, AttentionTable, FeedForwardTable, Port, Projection, StackTable


def _attention(kind: Literal["self", "cross"], layer: str, name: str) -> AttentionTable:
    core = f"{layer}.{name}"
    return AttentionTable(
        kind=kind,
        core=core,
        query=Projection(f"{core}.q"),
        key=Projection(f"{core}.k"),
        value=Projection(f"{core}.v"),
        output=f"{core}.o",
        norm=f"{layer}.layer_norm",
        head_dim="key_value_proj_dim",
    )


def _stack(stack: Literal["encoder", "decoder"], *, gated: bool) -> StackTable:
    decoder = stack == "decoder"
    last = "layer.2" if decoder else "layer.1"
    ffn = f"{last}.DenseReluDense"
    cross = (_attention("cross", "layer.1", "EncDecAttention"),) if decoder else ()
    return StackTable(
        stack=stack,
        root=stack,
        blocks="block",
        attentions=(_attention("self", "layer.0", "SelfAttention"), *cross),
        feed_forward=FeedForwardTable(
            up=Projection(f"{ffn}.wi_1" if gated else f"{ffn}.wi"),
            gate=Projection(f"{ffn}.wi_0") if gated else None,
            down=Projection(f"{ffn}.wo"),
            norm=f"{last}.layer_norm",
            result=Port(f"{last}.dropout", "output"),
        ),
        norm_first=True,
        entry="embed_tokens",
        tokens="embed_tokens",
        embedding=f"{stack}.embed_tokens",
        causal=decoder,
    )


T5 = Architecture(model_types=("t5",), stacks=(_stack("encoder", gated=False), _stack("decoder", gated=False)))
T5_GATED = Architecture(
    model_types=("t5-gated",), stacks=(_stack("encoder", gated=True), _stack("decoder", gated=True))
)
