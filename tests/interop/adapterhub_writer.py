"""What AdapterHub's `adapters` itself writes and computes, as files that another environment can read.

Run by an interpreter that has `adapters` (which needs an older transformers than unipetl):

    python adapterhub_writer.py write FOLDER
    python adapterhub_writer.py read FOLDER

``write`` writes, for every model, the base (``FOLDER/MODEL/base``), the arguments of a call (``inputs.safetensors``),
and for every case the adapter's folder as the library saves it, with the logits of the adapted model
(``logits.safetensors``). ``read`` loads the folders that unipetl has made of them (``CASE/back``), and writes what the
library computes then (``CASE/back/read.safetensors``).
Nothing here imports unipetl.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import adapters
import torch
import transformers
from adapters import (
    AdapterPlusConfig,
    ConfigUnion,
    DoubleSeqBnConfig,
    IA3Config,
    LoRAConfig,
    MAMConfig,
    ParBnConfig,
    PrefixTuningConfig,
    SeqBnConfig,
    UniPELTConfig,
)
from safetensors.torch import save_file

WORDS = {"vocab_size": 50, "max_position_embeddings": 40, "num_labels": 3}
BERT = {
    **WORDS, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 24,
}  # fmt: skip
LLAMA = {**BERT, "num_key_value_heads": 2, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
BART = {
    **WORDS, "d_model": 16, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20, "bos_token_id": 0, "pad_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
T5 = {
    "vocab_size": 50, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "pad_token_id": 0, "eos_token_id": 1,
    "decoder_start_token_id": 0,
}  # fmt: skip
GPT2 = {
    "vocab_size": 50, "n_positions": 40, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_inner": 24, "bos_token_id": 0,
    "pad_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VIT = {**BERT, "image_size": 8, "patch_size": 4}

#: Name -> config class, its arguments, model class.
MODELS = {
    "bert": ("BertConfig", BERT, "BertForSequenceClassification"),
    "bert_tokens": ("BertConfig", BERT, "BertForTokenClassification"),
    "roberta": ("RobertaConfig", {**BERT, "pad_token_id": 1}, "RobertaForSequenceClassification"),
    "xlm_roberta": ("XLMRobertaConfig", {**BERT, "pad_token_id": 1}, "XLMRobertaForSequenceClassification"),
    "distilbert": (
        "DistilBertConfig", {**WORDS, "dim": 16, "n_layers": 3, "n_heads": 4, "hidden_dim": 24},
        "DistilBertForSequenceClassification",
    ),
    "bart": ("BartConfig", BART, "BartForConditionalGeneration"),
    "mbart": ("MBartConfig", BART, "MBartForConditionalGeneration"),
    "t5": ("T5Config", T5, "T5ForConditionalGeneration"),
    "t5_gated": ("T5Config", {**T5, "feed_forward_proj": "gated-gelu"}, "T5ForConditionalGeneration"),
    "gpt2": ("GPT2Config", GPT2, "GPT2LMHeadModel"),
    "llama": ("LlamaConfig", LLAMA, "LlamaForCausalLM"),
    "mistral": ("MistralConfig", {**LLAMA, "sliding_window": None}, "MistralForCausalLM"),
    "qwen2": ("Qwen2Config", LLAMA, "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Config", {**LLAMA, "head_dim": 8}, "Qwen3ForCausalLM"),
    "vit": ("ViTConfig", VIT, "ViTForImageClassification"),
}  # fmt: skip
SEVERAL_STACKS = ("bart", "mbart", "t5", "t5_gated")
CACHED = ("bart", "mbart", "t5", "t5_gated", "gpt2", "llama", "mistral", "qwen2", "qwen3")
PICKLES = {"pytorch_adapter.bin": "adapter.safetensors", "pytorch_model_head.bin": "model_head.safetensors"}
NO_PREFIX = ("qwen2", "qwen3")  # refused by the library

CASES = {
    "houlsby": DoubleSeqBnConfig(reduction_factor=4),
    "pfeiffer": SeqBnConfig(reduction_factor=4),
    "parallel": ParBnConfig(reduction_factor=4),
    "scaled_parallel": ParBnConfig(reduction_factor=4, scaling="learned"),
    "channel_parallel": ParBnConfig(reduction_factor=4, scaling="channel"),
    "scaled_houlsby": DoubleSeqBnConfig(reduction_factor=4, scaling=0.5, non_linearity="gelu"),
    "both_parallel": ParBnConfig(reduction_factor=4, mh_adapter=True, scaling=2.0, non_linearity="tanh"),
    "norm_before": DoubleSeqBnConfig(reduction_factor=4, ln_before=True, non_linearity="gelu_new"),
    "norm_after": DoubleSeqBnConfig(reduction_factor=4, ln_after=True, scaling="learned"),
    "parallel_norm_after": ParBnConfig(reduction_factor=4, ln_after=True),
    "ranks_by_layer": SeqBnConfig(reduction_factor={"1": 8, "default": 4}),
    "leave_out": DoubleSeqBnConfig(reduction_factor=5.3, leave_out=[0]),
    "adapter_plus": AdapterPlusConfig(reduction_factor=4, stochastic_depth=0.0),
    "lora": LoRAConfig(r=3, alpha=6),
    "lora_everywhere": LoRAConfig(
        r=2, alpha=5, attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True, leave_out=[1]
    ),
    "lora_ffn": LoRAConfig(r=2, alpha=2, selfattn_lora=False, intermediate_lora=True),
    "ia3": IA3Config(),
    "prefix": PrefixTuningConfig(prefix_length=4, bottleneck_size=5),
    "prefix_flat": PrefixTuningConfig(flat=True, prefix_length=4),
    "prefix_leave_out": PrefixTuningConfig(flat=True, prefix_length=3, leave_out=[1]),
    "mam": MAMConfig(PrefixTuningConfig(prefix_length=4, bottleneck_size=6), ParBnConfig(reduction_factor=4)),
    "union": ConfigUnion(LoRAConfig(r=3, alpha=1), SeqBnConfig(reduction_factor=8)),
    "two_bottlenecks": ConfigUnion(
        ParBnConfig(reduction_factor=4, mh_adapter=True, output_adapter=False, scaling=1.0),
        SeqBnConfig(reduction_factor=8),
    ),
}
MORE = {
    "cross": DoubleSeqBnConfig(reduction_factor=4, cross_adapter=True),
    "decoder_prefix": PrefixTuningConfig(prefix_length=4, bottleneck_size=5, encoder_prefix=False, cross_prefix=False),
    "no_cross_prefix": PrefixTuningConfig(flat=True, prefix_length=4, cross_prefix=False),
}
#: What unipetl refuses; name -> words of the reason are in the test.
REFUSED = {
    "unipelt": UniPELTConfig(),
    "invertible": SeqBnConfig(reduction_factor=4, inv_adapter="nice", inv_adapter_reduction_factor=2),
    "gated_lora": LoRAConfig(r=2, use_gating=True),
    "dora": LoRAConfig(r=2, use_dora=True),
    "leaky": SeqBnConfig(reduction_factor=4, non_linearity="leakyrelu"),
    "two_norms": DoubleSeqBnConfig(reduction_factor=4, ln_before=True, ln_after=True),
    "residual_in_norm": DoubleSeqBnConfig(reduction_factor=4, ln_after=True, adapter_residual_before_ln=True),
    "attention_ln_before": DoubleSeqBnConfig(reduction_factor=4, original_ln_before=True),
    "dropout": SeqBnConfig(reduction_factor=4, dropout=0.1),
    "reft": adapters.LoReftConfig(),
    "prompt": adapters.PromptTuningConfig(prompt_length=3),
    "prefix_relu": PrefixTuningConfig(prefix_length=3, bottleneck_size=4, non_linearity="relu"),
}


def cases(model: str) -> dict[str, object]:
    chosen = dict(CASES)
    if model in SEVERAL_STACKS:
        chosen |= MORE
    if model in NO_PREFIX:
        chosen = {name: one for name, one in chosen.items() if "prefix" not in name and name != "mam"}
        del chosen["adapter_plus"]  # original_ln_after=False is refused by the library there
    return chosen


def build(name: str) -> torch.nn.Module:
    config_class, settings, model_class = MODELS[name]
    config = getattr(transformers, config_class)(**settings, attn_implementation="eager")
    torch.manual_seed(0)
    return scattered(getattr(transformers, model_class)(config), 1).double().eval()


def scattered(model: torch.nn.Module, seed: int, only: str = "") -> torch.nn.Module:
    """Draw parameters anew: matrices keep a vector's size, scales stay near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if only not in name:
                continue
            noise = torch.randn(one.shape, generator=generator).to(one.dtype)
            vector = one.dim() < 2
            table = "emb" in name or "wte" in name or "shared" in name
            fan = 4 if table else one.shape[-1]
            if vector and "control_trans" in name and one.numel() > 200:  # a flat prefix
                one.copy_(noise)
            else:
                one.copy_(noise * 0.2 + (0.0 if name.endswith("bias") else 1.0) if vector else noise / fan**0.5)
    return model


def call(name: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    if name == "vit":
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)}
    ids = torch.randint(5, 50, (2, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    made = {"input_ids": ids, "attention_mask": mask}
    if name in SEVERAL_STACKS:
        made["decoder_input_ids"] = torch.randint(5, 50, (2, 5), generator=generator)
    return made


def write(name: str, folder: Path) -> None:
    base = folder / "base"
    model = build(name)
    model.save_pretrained(base)
    inputs = call(name)
    extra = {"use_cache": False} if name in CACHED else {}
    save_file(inputs, folder / "inputs.safetensors")
    with torch.no_grad():
        bare = model(**inputs).logits
    for case, config in [*cases(name).items(), *(REFUSED.items() if name == "bert" else ())]:
        model = build(name)
        adapters.init(model)
        model.add_adapter("foo", config=config)
        scattered(model, 7, "foo")
        if case == "houlsby":  # with a head that was trained, too
            scattered(model, 8, "classifier")
        model.double().eval()
        model.set_active_adapters("foo")
        save(model, folder / case)
        if case in REFUSED:
            continue
        with torch.no_grad():
            logits = model(**inputs, **extra).logits
        save_file({"logits": logits.contiguous(), "bare": bare.contiguous()}, folder / case / "logits.safetensors")


def save(model: torch.nn.Module, folder: Path) -> None:
    """Save as the library does; where safetensors refuses its shared tensors, convert its own file."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        model.save_adapter(str(folder), "foo", use_safetensors=True)
    except RuntimeError:
        model.save_adapter(str(folder), "foo", use_safetensors=False)
        for pickled, safe in PICKLES.items():
            if (folder / pickled).is_file():
                state = torch.load(folder / pickled, weights_only=True)  # noqa: TID251  # written a line before
                save_file({key: value.clone() for key, value in state.items()}, folder / safe)
                (folder / pickled).unlink()


def read(name: str, folder: Path) -> None:
    """Let the library load what unipetl wrote into ``FOLDER/MODEL/CASE/back``, and write the logits beside it."""
    inputs = call(name)
    extra = {"use_cache": False} if name in CACHED else {}
    for case in cases(name):
        back = folder / case / "back"
        if not back.is_dir():
            continue
        model = build(name)
        adapters.init(model)
        found: dict[str, list[str]] = {}
        adapter = model.load_adapter(str(back), use_safetensors=True, loading_info=found)
        model.set_active_adapters(adapter)
        model.double().eval()
        missing = [key for key in found["missing_keys"] if ".pool." not in key]  # the same tensors under other names
        if missing or found["unexpected_keys"]:
            raise SystemExit(f"{name} {case}: {found}")
        with torch.no_grad():
            save_file({"logits": model(**inputs, **extra).logits.contiguous()}, back / "read.safetensors")


def main() -> None:
    verb, folder, *names = sys.argv[1:]
    for name in names or MODELS:
        (Path(folder) / name).mkdir(parents=True, exist_ok=True)
        {"write": write, "read": read}[verb](name, Path(folder) / name)
    index = {name: list(cases(name)) for name in MODELS}
    text = json.dumps({"cases": index, "refused": list(REFUSED), "adapters": adapters.__version__})
    (Path(folder) / "index.json").write_text(text)


if __name__ == "__main__":
    main()
