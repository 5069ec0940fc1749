"""BERT and RoBERTa: post-norm blocks whose sub-layers end in modules with dropout and norm."""

from unipetl.architectures.base import Architecture, AttentionTable, FeedForwardTable, Port, Projection, StackTable


def _attention(kind: str, module: str, *, optional: bool = False) -> AttentionTable:
    return AttentionTable(
        kind="cross" if kind == "cross" else "self",
        core=f"{module}.self",
        query=Projection(f"{module}.self.query"),
        key=Projection(f"{module}.self.key"),
        value=Projection(f"{module}.self.value"),
        output=f"{module}.output.dense",
        norm=f"{module}.output.LayerNorm",
        head_dim="attention_head_size",
        optional=optional,
    )


_ENCODER = StackTable(
    stack="encoder",
    root="",
    blocks="encoder.layer",
    attentions=(_attention("self", "attention"), _attention("cross", "crossattention", optional=True)),
    feed_forward=FeedForwardTable(
        up=Projection("intermediate.dense"),
        down=Projection("output.dense"),
        norm="output.LayerNorm",
        result=Port("output.dropout", "output"),
    ),
    norm_first=False,
    entry="embeddings.LayerNorm",
    tokens="embeddings.word_embeddings",
    embedding="embeddings.word_embeddings",
    prompt_at="entry",
)

BERT = Architecture(model_types=("bert",), stacks=(_ENCODER,))
ROBERTA = Architecture(model_types=("roberta", "xlm-roberta", "camembert"), stacks=(_ENCODER,))
