"""GPT-2: pre-norm decoder blocks with one fused projection for query, key and value (Conv1D)."""

from unipetl.architectures.base import Architecture, AttentionTable, FeedForwardTable, Port, Projection, StackTable

GPT2 = Architecture(
    model_types=("gpt2",),
    stacks=(
        StackTable(
            stack="decoder",
            root="",
            blocks="h",
            attentions=(
                AttentionTable(
                    kind="self",
                    core="attn",
                    query=Projection("attn.c_attn", 0, 3),
                    key=Projection("attn.c_attn", 1, 3),
                    value=Projection("attn.c_attn", 2, 3),
                    output="attn.c_proj",
                    norm="ln_1",
                ),
                AttentionTable(
                    kind="cross",
                    core="crossattention",
                    query=Projection("crossattention.q_attn"),
                    key=Projection("crossattention.c_attn", 0, 2),
                    value=Projection("crossattention.c_attn", 1, 2),
                    output="crossattention.c_proj",
                    norm="ln_cross_attn",
                    optional=True,
                ),
            ),
            feed_forward=FeedForwardTable(
                up=Projection("mlp.c_fc"),
                down=Projection("mlp.c_proj"),
                norm="ln_2",
                result=Port("mlp.dropout", "output"),
            ),
            norm_first=True,
            entry="drop",
            tokens="wte",
            embedding="wte",
            positions=("wpe",),
            causal=True,
        ),
    ),
)
