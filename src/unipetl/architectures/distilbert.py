"""DistilBERT: post-norm blocks; the FFN module contains its dropout."""

from unipetl.architectures.base import Architecture, AttentionTable, FeedForwardTable, Port, Projection, StackTable

DISTILBERT = Architecture(
    model_types=("distilbert",),
    stacks=(
        StackTable(
            stack="encoder",
            root="",
            blocks="transformer.layer",
            attentions=(
                AttentionTable(
                    kind="self",
                    core="attention",
                    query=Projection("attention.q_lin"),
                    key=Projection("attention.k_lin"),
                    value=Projection("attention.v_lin"),
                    output="attention.out_lin",
                    norm="sa_layer_norm",
                    head_dim="attention_head_size",
                ),
            ),
            feed_forward=FeedForwardTable(
                up=Projection("ffn.lin1"),
                down=Projection("ffn.lin2"),
                norm="output_layer_norm",
                result=Port("ffn.dropout", "output"),
            ),
            norm_first=False,
            entry="embeddings.LayerNorm",
            tokens="embeddings.word_embeddings",
            embedding="embeddings.word_embeddings",
            prompt_at="entry",
        ),
    ),
)
