"""Reads the weights of a transformers model of each family into the oracle's stacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from equivalence.oracle_blocks import (
    Attention,
    FeedForward,
    Layer,
    Linear,
    Norm,
    Stack,
    llama_norm,
    make_layer_norm,
    t5_norm,
)

State = dict[str, Tensor]


def read(model: Any) -> list[Stack]:
    """Return the stacks of a bare base model, encoder first."""
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return _READERS[model.config.model_type](state, model.config)


def _linear(state: State, name: str) -> Linear:
    return state[f"{name}.weight"], state.get(f"{name}.bias")


def _norm(state: State, name: str, eps: float) -> Norm:
    return make_layer_norm(state[f"{name}.weight"], state[f"{name}.bias"], eps)


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    tanh_gelu = lambda x: functional.gelu(x, approximate="tanh")  # noqa: E731
    return {"gelu": functional.gelu, "gelu_new": tanh_gelu, "silu": functional.silu, "relu": functional.relu}[name]


def _roberta(state: State, config: Any) -> list[Stack]:
    eps, heads = config.layer_norm_eps, config.num_attention_heads
    layers = []
    for i in range(config.num_hidden_layers):
        at, size = f"encoder.layer.{i}", config.hidden_size // heads
        attention = Attention(
            *(_linear(state, f"{at}.attention.self.{part}") for part in ("query", "key", "value")),
            output=_linear(state, f"{at}.attention.output.dense"),
            norm=_norm(state, f"{at}.attention.output.LayerNorm", eps),
            heads=heads,
            key_heads=heads,
            scaling=size**-0.5,
        )
        ffn = FeedForward(
            _linear(state, f"{at}.intermediate.dense"),
            _linear(state, f"{at}.output.dense"),
            _norm(state, f"{at}.output.LayerNorm", eps),
            _activation(config.hidden_act),
        )
        layers.append(Layer({"self": attention}, ffn))
    tables = {name: state[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")}
    pad = config.pad_token_id

    def embed(ids: Tensor) -> Tensor:
        real = ids != pad
        positions = real.cumsum(1) * real + pad  # RoBERTa counts from pad + 1
        return tables["word"][ids] + tables["token_type"][0] + tables["position"][positions]

    return [Stack("encoder", layers, False, embed, entry=_norm(state, "embeddings.LayerNorm", eps))]


def _bart(state: State, config: Any) -> list[Stack]:
    norm_first = config.model_type == "mbart"
    stacks = []
    for name in ("encoder", "decoder"):
        heads = getattr(config, f"{name}_attention_heads")
        layers = []
        for i in range(getattr(config, f"{name}_layers")):
            at = f"{name}.layers.{i}"
            kinds = {"self": "self_attn"} | ({"cross": "encoder_attn"} if name == "decoder" else {})
            attentions = {
                kind: Attention(
                    *(_linear(state, f"{at}.{module}.{part}_proj") for part in "qkv"),
                    output=_linear(state, f"{at}.{module}.out_proj"),
                    norm=_norm(state, f"{at}.{module}_layer_norm", 1e-5),
                    heads=heads,
                    key_heads=heads,
                    scaling=(config.d_model // heads) ** -0.5,
                )
                for kind, module in kinds.items()
            }
            ffn = FeedForward(
                _linear(state, f"{at}.fc1"),
                _linear(state, f"{at}.fc2"),
                _norm(state, f"{at}.final_layer_norm", 1e-5),
                _activation(config.activation_function),
            )
            layers.append(Layer(attentions, ffn))
        words, places = state["shared.weight"], state[f"{name}.embed_positions.weight"]
        scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0

        def embed(ids: Tensor, words: Tensor = words, places: Tensor = places, scale: float = scale) -> Tensor:
            return words[ids] * scale + places[2 : 2 + ids.shape[1]]  # the first two rows are never used

        last = _norm(state, f"{name}.layer_norm", 1e-5) if norm_first else lambda x: x
        entry = _norm(state, f"{name}.layernorm_embedding", 1e-5)
        stacks.append(Stack(name, layers, norm_first, embed, entry, last, causal=name == "decoder"))
    return stacks


def _t5(state: State, config: Any) -> list[Stack]:
    eps, gated = config.layer_norm_epsilon, config.is_gated_act
    stacks = []
    for name, depth in (("encoder", config.num_layers), ("decoder", config.num_decoder_layers)):
        layers = []
        for i in range(depth):
            at = f"{name}.block.{i}.layer"
            kinds = {"self": "0.SelfAttention"} | ({"cross": "1.EncDecAttention"} if name == "decoder" else {})
            attentions = {
                kind: Attention(
                    *(_linear(state, f"{at}.{module}.{part}") for part in "qkvo"),
                    norm=t5_norm(state[f"{at}.{module[0]}.layer_norm.weight"], eps),
                    heads=config.num_heads,
                    key_heads=config.num_heads,
                    scaling=1.0,
                )
                for kind, module in kinds.items()
            }
            last = f"{at}.{len(kinds)}"
            ffn = FeedForward(
                _linear(state, f"{last}.DenseReluDense.{'wi_1' if gated else 'wi'}"),
                _linear(state, f"{last}.DenseReluDense.wo"),
                t5_norm(state[f"{last}.layer_norm.weight"], eps),
                _activation(config.dense_act_fn),
                gate=_linear(state, f"{last}.DenseReluDense.wi_0") if gated else None,
            )
            layers.append(Layer(attentions, ffn))
        table = state[f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]

        def bias(n: int, table: Tensor = table, both: bool = name == "encoder") -> Tensor:
            return t5_position_bias(table, n, both, config.relative_attention_max_distance)

        words = state["shared.weight"]
        norm = t5_norm(state[f"{name}.final_layer_norm.weight"], eps)
        stacks.append(
            Stack(name, layers, True, words.__getitem__, last=norm, causal=name == "decoder", position_bias=bias)
        )
    return stacks


def t5_position_bias(table: Tensor, n: int, both: bool, farthest: int) -> Tensor:
    """Return the bias (1, heads, n, n), bucket by bucket as Raffel et al. 2020 describe it."""
    buckets = len(table) // 2 if both else len(table)
    exact = buckets // 2
    rows = []
    for query in range(n):
        for key in range(n):
            distance, offset = key - query, 0
            if both:
                offset, distance = (buckets if distance > 0 else 0), abs(distance)
            else:
                distance = max(-distance, 0)
            if distance >= exact:
                beyond = math.log(distance / exact) / math.log(farthest / exact) * (buckets - exact)
                distance = min(exact + int(beyond), buckets - 1)
            rows.append(table[offset + distance])
    return torch.stack(rows).view(n, n, -1).permute(2, 0, 1)[None]


def _gpt2(state: State, config: Any) -> list[Stack]:
    eps, width, heads = config.layer_norm_epsilon, config.n_embd, config.n_head

    def conv(name: str) -> Linear:
        return state[f"{name}.weight"].T, state[f"{name}.bias"]

    layers = []
    for i in range(config.n_layer):
        at = f"h.{i}"
        weight, bias = conv(f"{at}.attn.c_attn")
        attention = Attention(
            *((weight[j * width : (j + 1) * width], bias[j * width : (j + 1) * width]) for j in range(3)),
            output=conv(f"{at}.attn.c_proj"),
            norm=_norm(state, f"{at}.ln_1", eps),
            heads=heads,
            key_heads=heads,
            scaling=(width // heads) ** -0.5,
        )
        ffn = FeedForward(
            conv(f"{at}.mlp.c_fc"),
            conv(f"{at}.mlp.c_proj"),
            _norm(state, f"{at}.ln_2", eps),
            _activation(config.activation_function),
        )
        layers.append(Layer({"self": attention}, ffn))
    words, places = state["wte.weight"], state["wpe.weight"]
    last = _norm(state, "ln_f", eps)
    return [Stack("decoder", layers, True, lambda ids: words[ids] + places[: ids.shape[1]], last=last, causal=True)]


def _llama(state: State, config: Any) -> list[Stack]:
    heads, key_heads, eps = config.num_attention_heads, config.num_key_value_heads, config.rms_norm_eps
    size = config.head_dim
    layers = []
    for i in range(config.num_hidden_layers):
        at = f"layers.{i}"
        attention = Attention(
            *(_linear(state, f"{at}.self_attn.{part}_proj") for part in "qkvo"),
            norm=llama_norm(state[f"{at}.input_layernorm.weight"], eps),
            heads=heads,
            key_heads=key_heads,
            scaling=size**-0.5,
        )
        ffn = FeedForward(
            _linear(state, f"{at}.mlp.up_proj"),
            _linear(state, f"{at}.mlp.down_proj"),
            llama_norm(state[f"{at}.post_attention_layernorm.weight"], eps),
            _activation(config.hidden_act),
            gate=_linear(state, f"{at}.mlp.gate_proj"),
        )
        layers.append(Layer({"self": attention}, ffn))

    def rotate(vectors: Tensor, positions: Tensor) -> Tensor:
        base = config.rope_parameters["rope_theta"]
        frequency = 1.0 / (base ** (torch.arange(0, size, 2, dtype=torch.float) / size))
        angle = (positions[:, None].float() * frequency).repeat(1, 2)
        first, second = vectors.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        return vectors * angle.cos().double() + turned * angle.sin().double()

    words = state["embed_tokens.weight"]
    last = llama_norm(state["norm.weight"], eps)
    window = getattr(config, "sliding_window", None)
    return [Stack("decoder", layers, True, words.__getitem__, last=last, causal=True, window=window, rotate=rotate)]


_READERS = {
    "roberta": _roberta,
    "bart": _bart,
    "mbart": _bart,
    "t5": _t5,
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _llama,
}
