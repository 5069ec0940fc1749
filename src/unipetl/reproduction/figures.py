"""The points of figures 2, 4 and 5 of the paper, by the data of its plotting script.

Figure 5 shows rows of table 12. The sizes in figure 4 are 1, 30, 200, 512 (LoRA: 400) and 1024; the adapter's
first point is in the data and not in the plot.
"""

from __future__ import annotations

from unipetl.reproduction.methods import BITFIT, FULL, lora_attention, mam, prefix, sa_ffn
from unipetl.reproduction.row import Row, ro, xsum
from unipetl.reproduction.tables import FULL_RO, FULL_XSUM, TABLE12

_SA = ("two-values-sa", "mbart-share")
_LORA = ("lora-target", "scale-tuned", "mbart-share")

FIGURE2 = (
    Row("figure2", "full", "Full fine-tuning", FULL, (xsum(21.94, training=FULL_XSUM),), 100.0,
        notes=("full-settings",)),
    Row("figure2", "bitfit", "BitFit", BITFIT, (xsum(17.32),), 0.1),
    Row("figure2", "prefix", "Prefix tuning", prefix(200), (xsum(20.46),), 3.6),
    Row("figure2", "adapter", "Adapter", sa_ffn(1024), (xsum(20.98),), 12.3, notes=("two-values-sa",)),
    Row("figure2", "lora", "LoRA", lora_attention(400, 4), (xsum(20.50),), 14.4, notes=("lora-target", "scale-tuned")),
    Row("figure2", "mam", "MAM Adapter", mam(30, 512, 4), (xsum(21.90),), 6.7, notes=("scale-tuned",)),
)  # fmt: skip


def _point(key: str, label: str, method: str, rouge2: float, bleu: float, *notes: str) -> Row:
    return Row("figure4", key, label, method, (xsum(rouge2), ro(bleu)), notes=notes)


FIGURE4 = (
    Row("figure4", "full", "Full fine-tuning", FULL,
        (xsum(21.94, training=FULL_XSUM), ro(37.3, training=FULL_RO)), 100.0, notes=("full-settings",)),
    _point("bitfit", "BitFit", BITFIT, 17.32, 26.4, "mbart-share"),
    *(
        _point(f"prefix-{length}", f"Prefix, l={length}", prefix(length), rouge2, bleu, "prefix-smoothing",
               "mbart-share")
        for length, rouge2, bleu in ((1, 18.14, 30.2), (30, 20.01, 35.2), (200, 20.46, 35.6), (512, 20.40, 35.1))
    ),
    *(
        _point(f"adapter-{rank}", f"Adapter, r={rank}", sa_ffn(rank), rouge2, bleu, *_SA)
        for rank, rouge2, bleu in (
            (1, 17.0, 24.3), (30, 18.81, 33.0), (200, 20.4, 35.6), (512, 20.58, 36.3), (1024, 20.98, 36.7)
        )
    ),
    *(
        _point(f"lora-{rank}", f"LoRA (attn), r={rank}", lora_attention(rank, scale), rouge2, bleu, *_LORA)
        for rank, scale, rouge2, bleu in (
            (1, 4, 17.4, 25.5), (30, 4, 19.59, 34.2), (200, 2, 20.29, 36.2), (400, 4, 20.5, 36.6)
        )
    ),
)  # fmt: skip

_FIVE = ("prefix-200", "prefix-512", "pa-attn-200", "pa-attn-512", "lora-attn-200", "pa-ffn-200", "pa-ffn-512",
         "pa-ffn-1024", "lora-ffn-102")  # fmt: skip
FIGURE5 = tuple(
    Row("figure5", row.key, row.label, row.method, row.cells, row.share, notes=row.notes)
    for key in _FIVE
    for row in TABLE12
    if row.key == key
)
