"""The three modified models of the released code as plain functions of named tensors, from their equations.

``State`` maps official names (without ``pretrained_model.``) to tensors: base weights and inserted ones. No
module of transformers and nothing of unipetl computes here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

State = dict[str, torch.Tensor]
DEFAULTS = {
    "attn_mode": "none", "attn_option": "concat", "attn_composition": "add", "ffn_mode": "none", "ffn_option": "none",
    "ffn_adapter_layernorm_option": "in", "ffn_adapter_scalar": "1", "attn_bn": 200, "ffn_bn": -1, "mid_dim": 800,
    "lora_alpha": 32.0,
}  # fmt: skip
PETL_EPS = 1e-5


@dataclass
class Model:
    """A family, its sizes and options, and every tensor."""

    family: str
    options: dict
    state: State
    heads: int
    layers: int
    eps: float = 1e-5
    pad: int = 1
    start: int = 2

    def option(self, name: str):
        return self.options.get(name, DEFAULTS[name])

    def has(self, path: str) -> bool:
        return any(key.startswith(f"{path}.") for key in self.state)


def norm(m: Model, path: str, x: torch.Tensor, eps: float | None = None) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    scaled = (x - mean) / torch.sqrt(variance + (m.eps if eps is None else eps))
    return scaled * m.state[f"{path}.weight"] + m.state[f"{path}.bias"]


def linear(m: Model, path: str, x: torch.Tensor) -> torch.Tensor:
    """``W x + b``, and ``(alpha / r) B A x`` where the run had LoRA there."""
    y = x @ m.state[f"{path}.weight"].T
    if f"{path}.bias" in m.state:
        y = y + m.state[f"{path}.bias"]
    if f"{path}.ef_lora_A" in m.state:
        down, up = m.state[f"{path}.ef_lora_A"], m.state[f"{path}.ef_lora_B"]
        y = y + float(m.option("lora_alpha")) / down.shape[0] * (x @ down.T @ up.T)
    return y


def gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def adapter(m: Model, path: str, x: torch.Tensor, normed: str, scalar: str) -> torch.Tensor:
    """``A(x)`` of one adapter module, without the residual."""
    s = m.state[f"{path}.scale"] if scalar == "learnable_scalar" else float(scalar)
    read = norm(m, f"{path}.adapter_layer_norm_before", x, PETL_EPS) if normed == "in" else x
    z = torch.clamp(linear(m, f"{path}.down_proj", read), min=0)
    change = s * linear(m, f"{path}.up_proj", z)
    return norm(m, f"{path}.adapter_layer_norm_before", change, PETL_EPS) if normed == "out" else change


def ffn_adapter(m: Model, path: str, x: torch.Tensor) -> torch.Tensor:
    return adapter(m, path, x, m.option("ffn_adapter_layernorm_option"), str(m.option("ffn_adapter_scalar")))


def attn_adapter(m: Model, path: str, x: torch.Tensor) -> torch.Tensor:
    return adapter(m, path, x, "in", "1")


def prefix(m: Model, place: str, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values (l, d) of one place and layer."""
    if m.option("attn_mode") == "prefix_nomlp":
        table = {"encoder": "encoder_attn", "self": "decoder_self_attn", "encoder_decoder": "decoder_cross_attn"}[place]
        return tuple(m.state[f"prompt_model.{table}_{part}.{layer}.weight"] for part in ("key", "value"))
    suffix = {"encoder": "_enc", "self": "", "encoder_decoder": "2"}[place]
    table = m.state[f"prompt_model.wte{suffix}.weight"]
    mlp = f"prompt_model.control_trans{suffix}"
    z = linear(m, f"{mlp}.2", torch.tanh(linear(m, f"{mlp}.0", table)))
    z = z.view(table.shape[0], 2 * m.layers, table.shape[1])
    return z[:, 2 * layer], z[:, 2 * layer + 1]


def heads(m: Model, x: torch.Tensor) -> torch.Tensor:
    """(..., n, d) to (..., heads, n, d / heads)."""
    return x.unflatten(-1, (m.heads, -1)).transpose(-3, -2)


def attention(
    m: Model, core: str, names: tuple[str, str, str, str], x, memory, mask, place: str, layer: int
) -> torch.Tensor:
    """``W_o`` of the heads' results with whatever ``attn_mode`` does to them; mask (b, 1, n, m) is True where seen."""
    query, key, value, output = names
    size = x.shape[-1] // m.heads
    q = heads(m, linear(m, query, x)) / math.sqrt(size)
    k, v = heads(m, linear(m, key, memory)), heads(m, linear(m, value, memory))
    scores = (q @ k.transpose(-1, -2)).masked_fill(~mask, -math.inf)
    context = torch.softmax(scores, dim=-1) @ v
    mode, option = m.option("attn_mode"), m.option("attn_option")
    if mode.startswith("prefix") and option in ("concat", "cross_attn", "cross_attn_noln", "cross_attn_relu"):
        learned_k, learned_v = (heads(m, part) for part in prefix(m, place, layer))
        own_q = q
        if option == "cross_attn" or (option == "cross_attn_relu" and m.family == "bart"):
            own_q = heads(m, linear(m, query, norm(m, f"{core}.ef_transform_layer_norm", x, PETL_EPS)))
            own_q = own_q / math.sqrt(size) if option == "cross_attn" else own_q
        logits = own_q @ learned_k.transpose(-1, -2)
        if option == "concat":
            both = torch.softmax(torch.cat([logits, scores], dim=-1), dim=-1)
            batch = x.shape[0]
            context = both @ torch.cat([learned_v.expand(batch, *learned_v.shape), v], dim=-2)
        elif m.option("attn_composition") == "gate_add":
            mass, own = torch.exp(logits).sum(-1, keepdim=True), torch.exp(scores).sum(-1, keepdim=True)
            gate = mass / (mass + own)
            context = (1 - gate) * context + gate * (torch.softmax(logits, dim=-1) @ learned_v)
        elif option == "cross_attn_relu":
            context = context + torch.clamp(logits, min=0) @ learned_v
        else:
            context = context + torch.softmax(logits, dim=-1) @ learned_v
    joined = context.transpose(-3, -2).flatten(-2)
    if mode == "adapter" and option == "parallel":
        joined = joined + attn_adapter(m, f"{core}.ef_attn_adapter", x)
    result = linear(m, output, joined)
    if mode == "adapter" and option == "sequential":
        place_of = core if m.family != "roberta" else core.replace("attention.self", "attention.output")
        result = result + attn_adapter(m, f"{place_of}.ef_attn_adapter", result)
    return result


def bart_attention(m: Model, core: str, x, memory, mask, place: str, layer: int) -> torch.Tensor:
    names = tuple(f"{core}.{part}" for part in ("q_proj", "k_proj", "v_proj", "out_proj"))
    return attention(m, core, names, x, memory, mask, place, layer)


def bart_layer(m: Model, path: str, h, mask, place: str, layer: int, memory=None, memory_mask=None) -> torch.Tensor:
    first = m.family == "mbart"  # norms before the sub-layers

    def sub_layer(h, name: str, function):
        if first:
            return h + function(norm(m, f"{path}.{name}", h))
        return norm(m, f"{path}.{name}", h + function(h))

    core = f"{path}.self_attn"
    h = sub_layer(h, "self_attn_layer_norm", lambda x: bart_attention(m, core, x, x, mask, place, layer))
    if memory is not None:
        cross = f"{path}.encoder_attn"
        h = sub_layer(
            h,
            "encoder_attn_layer_norm",
            lambda x: bart_attention(m, cross, x, memory, memory_mask, "encoder_decoder", layer),
        )
    x = norm(m, f"{path}.final_layer_norm", h) if first else h
    y = linear(m, f"{path}.fc2", gelu(linear(m, f"{path}.fc1", x)))
    if m.option("ffn_mode") == "adapter":
        own, option = f"{path}.ef_ffn_adapter", m.option("ffn_option")
        if option == "sequential":
            y = y + ffn_adapter(m, own, y)
        elif option == "parallel":
            y = y + ffn_adapter(m, own, h)
        else:
            assert m.family == "mbart"
            y = y + ffn_adapter(m, own, h + y)
    return h + y if first else norm(m, f"{path}.final_layer_norm", h + y)


def bart_embed(m: Model, stack: str, ids: torch.Tensor, prompt: torch.Tensor | None = None) -> torch.Tensor:
    tokens = m.state["model.shared.weight"]
    factor = math.sqrt(tokens.shape[1]) if m.family == "mbart" else 1.0
    h = tokens[ids] * factor + m.state[f"{stack}.embed_positions.weight"][2 : 2 + ids.shape[1]]
    if prompt is not None:
        h = torch.cat([prompt.expand(ids.shape[0], -1, -1), h], dim=1)
    return norm(m, f"{stack}.layernorm_embedding", h)


def stack_end(m: Model, stack: str, h: torch.Tensor) -> torch.Tensor:
    return norm(m, f"{stack}.layer_norm", h) if m.family == "mbart" else h


def bart(m: Model, ids, mask, decoder_ids) -> torch.Tensor:
    """Logits of the language model (or the decoder's last hidden state, in a state without ``final_logits_bias``)."""
    prompt = m.state.get("model.encoder.ef_prefix_emb.weight")
    visible = mask.bool()
    if prompt is not None:
        visible = torch.cat([visible.new_ones(len(ids), prompt.shape[0]), visible], dim=1)
    h = bart_embed(m, "model.encoder", ids, prompt)
    seen = visible[:, None, None, :]
    for layer in range(m.layers):
        h = bart_layer(m, f"model.encoder.layers.{layer}", h, seen, "encoder", layer)
    memory = stack_end(m, "model.encoder", h)
    h = bart_embed(m, "model.decoder", decoder_ids)
    n = decoder_ids.shape[1]
    causal = torch.tril(torch.ones(n, n, dtype=torch.bool))[None, None]
    depth = 1 + max(int(key.split(".")[3]) for key in m.state if key.startswith("model.decoder.layers."))
    for layer in range(depth):
        h = bart_layer(m, f"model.decoder.layers.{layer}", h, causal, "self", layer, memory, seen)
    h = stack_end(m, "model.decoder", h)
    if "final_logits_bias" not in m.state:
        return h
    return h @ m.state["model.shared.weight"].T + m.state["final_logits_bias"]


def shift(m: Model, labels: torch.Tensor) -> torch.Tensor:
    """The decoder's input: BART starts with its start token, mBART with the last label that is no padding."""
    filled = torch.where(labels == -100, m.pad, labels)
    if m.family == "bart":
        first = torch.full_like(filled[:, :1], m.start)
    else:
        last = (filled != m.pad).sum(dim=1, keepdim=True) - 1
        first = torch.gather(filled, 1, last)
    return torch.cat([first, filled[:, :-1]], dim=1)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    kept = labels != -100
    logs = logits[kept] - torch.logsumexp(logits[kept], dim=-1, keepdim=True)
    return -torch.gather(logs, 1, labels[kept][:, None]).mean()


def roberta(m: Model, ids, mask) -> torch.Tensor:
    """Logits of the sequence classifier (or the last hidden state, in a state without one)."""
    real = (ids != m.pad).long()
    positions = torch.cumsum(real, dim=1) * real + m.pad
    e = "roberta.embeddings"
    h = m.state[f"{e}.word_embeddings.weight"][ids] + m.state[f"{e}.position_embeddings.weight"][positions]
    h = norm(m, f"{e}.LayerNorm", h + m.state[f"{e}.token_type_embeddings.weight"][0])
    seen = mask.bool()[:, None, None, :]
    for layer in range(m.layers):
        h = roberta_layer(m, f"roberta.encoder.layer.{layer}", h, seen, layer)
    if "classifier.dense.weight" not in m.state:
        return h
    return linear(m, "classifier.out_proj", torch.tanh(linear(m, "classifier.dense", h[:, 0])))


def roberta_layer(m: Model, path: str, h, mask, layer: int) -> torch.Tensor:
    core, output = f"{path}.attention.self", f"{path}.attention.output"
    names = (f"{core}.query", f"{core}.key", f"{core}.value", f"{output}.dense")
    h = norm(m, f"{output}.LayerNorm", h + attention(m, core, names, h, h, mask, "self", layer))
    y = linear(m, f"{path}.output.dense", gelu(linear(m, f"{path}.intermediate.dense", h)))
    after = f"{path}.output.LayerNorm"
    if m.option("ffn_mode") == "adapter":
        option = m.option("ffn_option")
        if option == "sequential":
            y = y + ffn_adapter(m, f"{path}.output.ef_ffn_adapter", y)
        elif option == "parallel":
            y = y + ffn_adapter(m, f"{path}.ef_ffn_adapter", h)
        else:
            y = y + ffn_adapter(m, f"{path}.output.ef_ffn_adapter", norm(m, after, h + y))
    return norm(m, after, h + y)
