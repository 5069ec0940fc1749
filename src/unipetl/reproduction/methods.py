"""The paper's methods at the sizes of its tables, in unipetl's notation.

The settings that tables do not print are those of the released code: ``variant=official``, a dropout of 0.1 inside FFN
adapters and LoRA (the checkpoint's own inside attention adapters), and the scales of its scripts.
"""

from __future__ import annotations

FULL, BITFIT = "full", "bitfit"


def prefix(length: int) -> str:
    """Prefix tuning, with the MLP of width 800."""
    return f"prefix_tuning(length={length}, mlp=800)"


def sa_attention(rank: int) -> str:
    """A sequential adapter at attention."""
    return f"adapter(rank={rank}, at=attention, dropout={{a}}, variant=official)"


def sa_ffn(rank: int) -> str:
    """A sequential adapter at the FFN."""
    return f"adapter(rank={rank}, at=ffn, dropout=0.1, variant=official)"


def pa_attention(rank: int) -> str:
    """A parallel adapter at attention."""
    return f"parallel_adapter(rank={rank}, at=attention, dropout={{a}}, variant=official)"


def pa_ffn(rank: int) -> str:
    """A parallel adapter at the FFN."""
    return f"parallel_adapter(rank={rank}, at=ffn, dropout=0.1, variant=official)"


def scaled_pa(rank: int, scale: int | str) -> str:
    """A scaled parallel adapter at the FFN, which starts at zero change."""
    return f"scaled_parallel_adapter(rank={rank}, scale={scale}, dropout=0.1, variant=official)"


def lora_attention(rank: int, scale: int) -> str:
    """LoRA on queries and values."""
    return f"lora(rank={rank}, scale={scale}, at=attention, dropout=0.1)"


def lora_ffn(rank: int, scale: int) -> str:
    """LoRA on both matrices of the FFN."""
    return f"lora(rank={rank}, scale={scale}, at=ffn, dropout=0.1)"


def mam(length: int, rank: int, scale: int) -> str:
    """A short prefix and a scaled parallel adapter at the FFN."""
    return f"mam(length={length}, rank={rank}, scale={scale}, mlp=800, dropout=0.1, variant=official)"
