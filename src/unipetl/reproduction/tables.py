"""The rows of tables 2, 3, 4, 5, 6 and 12 of He et al. 2022 (https://arxiv.org/abs/2110.04366), as printed."""

from __future__ import annotations

from unipetl.reproduction.methods import (
    BITFIT,
    FULL,
    lora_attention,
    lora_ffn,
    mam,
    pa_attention,
    pa_ffn,
    prefix,
    sa_attention,
    sa_ffn,
    scaled_pa,
)
from unipetl.reproduction.row import Row, accuracy, ro, xsum

#: The released code's own settings for one row: no label smoothing, no weight decay.
PLAIN = {"label_smoothing_factor": 0.0, "weight_decay": 0.0}
_SA = ("attention-norm", "joined-heads", "mbart-share")
_PA_FFN = ("residual", "mbart-share")


def _glue(key: str, label: str, method: str, share: float, mnli: tuple[float, float], sst2: tuple[float, float]) -> Row:
    cells = (accuracy("mnli", *mnli), accuracy("sst2", *sst2))
    notes = ("dev-cap", "seeds") if key == "full" else ("glue-sizes", "head", "dev-cap", "seeds")
    return Row("table2", key, label, method, cells, share, notes=notes)


TABLE2 = (
    _glue("full", "Full-FT", FULL, 100.0, (87.6, 0.4), (94.6, 0.4)),
    Row(
        "table2", "bitfit", "BitFit", BITFIT, (accuracy("mnli", 84.7), accuracy("sst2", 93.7)), 0.1,
        copied=True, notes=("bitfit-copied",),
    ),
    _glue("prefix", "Prefix tuning", prefix(32), 0.5, (86.3, 0.4), (94.0, 0.1)),
    _glue("lora", "LoRA", lora_attention(16, 2), 0.5, (87.2, 0.4), (94.2, 0.2)),
    _glue("adapter", "Adapter", "houlsby(rank=16, dropout=0.1, variant=official)", 0.5, (87.2, 0.2), (94.2, 0.1)),
    _glue("mam", "MAM Adapter", mam(16, 16, 2), 0.5, (87.4, 0.3), (94.2, 0.3)),
)  # fmt: skip

TABLE3 = (
    Row("table3", "prefix", "Prefix tuning, l=200", prefix(200), (xsum(43.40, 20.46, 35.51), ro(35.6)), 3.6,
        notes=("prefix-smoothing", "mbart-share")),
    Row("table3", "sa-attn", "SA (attn), r=200", sa_attention(200), (xsum(42.01, 19.30, 34.40), ro(35.3)), 3.6,
        notes=_SA),
    Row("table3", "sa-ffn", "SA (ffn), r=200", sa_ffn(200), (xsum(43.21, 19.98, 35.08), ro(35.6)), 2.4,
        notes=("two-values-sa", "typo-1.7", "mbart-share")),
    Row("table3", "pa-attn", "PA (attn), r=200", pa_attention(200), (xsum(43.58, 20.31, 35.34), ro(35.6)), 3.6,
        notes=_SA),
    Row("table3", "pa-ffn", "PA (ffn), r=200", pa_ffn(200), (xsum(43.93, 20.66, 35.63), ro(36.4)), 2.4,
        notes=("typo-1.7", *_PA_FFN)),
)  # fmt: skip

_TINY = ("tiny-share", "mbart-share")
TABLE4 = (
    Row("table4", "pa-attn-200", "PA (attn), r=200", pa_attention(200), (ro(35.6),), 3.6, notes=_SA),
    Row("table4", "prefix-200", "Prefix tuning, l=200", prefix(200), (ro(35.6),), 3.6,
        notes=("prefix-smoothing", "mbart-share")),
    Row("table4", "mh-pa-200", "MH PA (attn), r=200", "multi_head_parallel_adapter(rank=200)", (ro(35.8),), 3.6,
        notes=("multi-head", "mbart-share")),
    Row("table4", "prefix-30", "Prefix tuning, l=30", prefix(30), (ro(35.2),), 0.1, 0.5,
        notes=(*_TINY, "claim-1.6", "prefix-smoothing")),
    Row("table4", "ungated-30", "-gating, l=30", "ungated_prefix(length=30, mlp=800)", (ro(34.9),), 0.1, 0.5,
        notes=(*_TINY, "claim-1.6")),
    Row("table4", "pa-ffn-30", "PA (ffn), r=30", pa_ffn(30), (ro(33.0),), 0.1, 0.4, notes=(*_TINY, "residual")),
    Row("table4", "pa-attn-30", "PA (attn), r=30", pa_attention(30), (ro(33.7),), 0.1, 0.5,
        notes=("tiny-share", *_SA)),
    Row("table4", "mh-pa-30", "MH PA (attn), r=30", "multi_head_parallel_adapter(rank=30)",
        (ro(35.3, training=PLAIN),), 0.1, 0.5, notes=(*_TINY, "claim-1.6", "multi-head", "no-smoothing")),
)  # fmt: skip

_SCALE = ("scale-tuned", "rouge-l")
TABLE5 = (
    Row("table5", "lora-s4", "LoRA, s=4", lora_ffn(102, 4), (xsum(44.59, 21.31, 36.25),), 6.1, notes=_SCALE),
    Row("table5", "lora-s1", "LoRA, s=1", lora_ffn(102, 1), (xsum(44.17, 20.83, 35.74),), 6.1, notes=_SCALE),
    Row("table5", "pa", "PA", pa_ffn(512), (xsum(44.35, 20.98, 35.98),), 6.1, notes=("rouge-l",)),
    Row("table5", "scaled-pa", "Scaled PA, s=4", scaled_pa(512, 4), (xsum(44.85, 21.54, 36.58),), 6.1, notes=_SCALE),
    Row("table5", "learned-pa", "Scaled PA, trainable s", scaled_pa(512, "learned"), (xsum(44.56, 21.31, 36.29),), 6.1,
        notes=("rouge-l",)),
)  # fmt: skip

_SEEDS = ("seeds", "steps-95", "mbart-share")
FULL_XSUM = {"learning_rate": 3e-5}
FULL_RO = {
    "learning_rate": 3e-5,
    "warmup_steps": 2500,
    "max_steps": 30_000,
    "label_smoothing_factor": 0.2,
    "weight_decay": 0.0,
}
TABLE6 = (
    Row("table6", "full-copied", "Full fine-tuning (copied)", FULL,
        (xsum(45.14, 22.27, 37.25, training=FULL_XSUM), ro(37.7, training=FULL_RO)), 100.0,
        copied=True, notes=("full-copied", "full-settings")),
    Row("table6", "full", "Full fine-tuning (own run)", FULL,
        (xsum(44.81, 21.94, 36.83, training=FULL_XSUM), ro(37.3, training=FULL_RO)), 100.0, notes=("full-settings",)),
    Row("table6", "bitfit", "BitFit", BITFIT, (xsum(40.64, 17.32, 32.19), ro(26.4)), 0.1, notes=("mbart-share",)),
    Row("table6", "prompt", "Prompt tuning", "prompt_tuning(length=300)",
        (xsum(38.91, 15.98, 30.83), ro(21.0, method="prompt_tuning(length=200)")), 0.1,
        notes=("prompt-length", "mbart-share")),
    Row("table6", "prefix", "Prefix tuning, l=200", prefix(200), (xsum(43.40, 20.46, 35.51), ro(35.6)), 3.6,
        notes=("prefix-smoothing", "mbart-share")),
    Row("table6", "pfeiffer", "Pfeiffer adapter, r=600", "pfeiffer(rank=600)",
        (xsum(44.03, 20.89, 35.89, spread=(0.13, 0.10, 0.08)), ro(36.9, 0.1)), 7.2, notes=("pfeiffer", *_SEEDS)),
    Row("table6", "lora", "LoRA (ffn), r=102", lora_ffn(102, 4),
        (xsum(44.53, 21.29, 36.28, spread=(0.14, 0.07, 0.10)), ro(36.8, 0.3)), 7.2, 6.1,
        notes=("lora-share", "two-values-lora", "scale-tuned", *_SEEDS)),
    Row("table6", "pa-ffn", "PA (ffn), r=1024", pa_ffn(1024),
        (xsum(44.71, 21.41, 36.41, spread=(0.16, 0.17, 0.16)), ro(37.2, 0.1)), 12.3,
        notes=("two-values-1024", "residual", *_SEEDS)),
    Row("table6", "pa-pa", "PA (attn, r=30) + PA (ffn, r=512)", f"{pa_attention(30)} + {pa_ffn(512)}",
        (xsum(44.29, 21.06, 36.12, spread=(0.31, 0.19, 0.18)), ro(37.2, 0.1)), 6.7,
        notes=("attention-norm", "joined-heads", "residual", *_SEEDS)),
    Row("table6", "prefix-lora", "Prefix (l=30) + LoRA (ffn, r=102)", f"{prefix(30)} + {lora_ffn(102, 2)}",
        (xsum(44.84, 21.71, 36.77, spread=(0.07, 0.05, 0.03)), ro(37.0, 0.1)), 6.7, notes=("mixed-scale", *_SEEDS)),
    Row("table6", "mam", "MAM Adapter (l=30, r=512)", mam(30, 512, 4),
        (xsum(45.06, 21.90, 36.87, spread=(0.08, 0.01, 0.04)), ro(37.5, 0.1)), 6.7,
        notes=("scale-tuned", "residual", *_SEEDS)),
)  # fmt: skip


def _twelve(
    key: str, label: str, method: str, share: float, rouge: tuple[float, float, float], bleu: float, *notes: str
) -> Row:
    return Row("table12", key, label, method, (xsum(*rouge), ro(bleu)), share, notes=(*notes, "mbart-share"))


TABLE12 = (
    _twelve("prefix-200", "attn: Prefix, l=200", prefix(200), 3.6, (43.40, 20.46, 35.51), 35.6, "prefix-smoothing"),
    _twelve("prefix-512", "attn: Prefix, l=512", prefix(512), 9.2, (43.29, 20.40, 35.37), 35.1, "prefix-smoothing"),
    _twelve("lora-attn-200", "attn: LoRA, r=200", lora_attention(200, 2), 7.2, (43.09, 20.29, 35.37), 36.2,
            "lora-target", "scale-tuned"),
    _twelve("sa-attn-200", "attn: SA, r=200", sa_attention(200), 3.6, (42.01, 19.30, 34.40), 35.3, *_SA[:2]),
    _twelve("sa-attn-512", "attn: SA, r=512", sa_attention(512), 9.2, (41.05, 18.87, 33.71), 34.7, *_SA[:2]),
    _twelve("pa-attn-200", "attn: PA, r=200", pa_attention(200), 3.6, (43.58, 20.31, 35.34), 35.6, *_SA[:2]),
    _twelve("pa-attn-512", "attn: PA, r=512", pa_attention(512), 9.2, (43.99, 20.83, 35.77), 36.2, *_SA[:2]),
    _twelve("lora-ffn-102", "ffn: LoRA, r=102", lora_ffn(102, 4), 6.1, (44.59, 21.31, 36.25), 36.5,
            "two-values-lora", "rouge-l", "scale-tuned"),
    _twelve("sa-ffn-200", "ffn: SA, r=200", sa_ffn(200), 2.4, (43.21, 19.98, 35.08), 35.6, "two-values-sa"),
    _twelve("sa-ffn-512", "ffn: SA, r=512", sa_ffn(512), 6.1, (43.72, 20.75, 35.64), 36.3, "two-values-sa"),
    _twelve("sa-ffn-1024", "ffn: SA, r=1024", sa_ffn(1024), 12.3, (43.95, 21.00, 35.90), 36.7, "two-values-sa"),
    _twelve("pa-ffn-200", "ffn: PA, r=200", pa_ffn(200), 2.4, (43.93, 20.66, 35.63), 36.4, "residual"),
    _twelve("pa-ffn-512", "ffn: PA, r=512", pa_ffn(512), 6.1, (44.35, 20.98, 35.98), 37.1, "residual", "rouge-l"),
    _twelve("pa-ffn-1024", "ffn: PA, r=1024", pa_ffn(1024), 12.3, (44.53, 21.24, 36.23), 37.3, "residual",
            "two-values-1024"),
)  # fmt: skip
