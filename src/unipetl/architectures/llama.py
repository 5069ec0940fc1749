"""Llama and its relatives: pre-norm decoder blocks, rotary positions, grouped queries, gated FFNs."""

from unipetl.architectures.base import Architecture, AttentionTable, FeedForwardTable, Port, Projection, StackTable

LLAMA = Architecture(
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    stacks=(
        StackTable(
            stack="decoder",
            root="",
            blocks="layers",
            attentions=(
                AttentionTable(
                    kind="self",
                    core="self_attn",
                    query=Projection("self_attn.q_proj"),
                    key=Projection("self_attn.k_proj"),
                    value=Projection("self_attn.v_proj"),
                    output="self_attn.o_proj",
                    norm="input_layernorm",
                ),
            ),
            feed_forward=FeedForwardTable(
                up=Projection("mlp.up_proj"),
                gate=Projection("mlp.gate_proj"),
                down=Projection("mlp.down_proj"),
                norm="post_attention_layernorm",
                result=Port("mlp", "output"),
            ),
            norm_first=True,
            entry="embed_tokens",
            tokens="embed_tokens",
            embedding="embed_tokens",
            rotary=True,
            causal=True,
        ),
    ),
)
