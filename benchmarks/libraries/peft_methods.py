"""PEFT's methods. Heads stay frozen, as no task type that trains them is given."""

from __future__ import annotations

from typing import Any

import peft

PACKAGES = ("peft", "torch", "transformers")
QUERY_VALUE = {"roberta": ["query", "value"], "bert": ["query", "value"]}
TASKS = {"bart": "SEQ_2_SEQ_LM", "llama": "CAUSAL_LM"}


def _lora(model: Any, *, every: bool) -> Any:
    targets = "all-linear" if every else QUERY_VALUE.get(model.config.model_type, ["q_proj", "v_proj"])
    excluded = ["classifier.dense", "classifier.out_proj", "classifier", "pooler.dense", "lm_head"] if every else None
    return peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets, exclude_modules=excluded)


def _virtual(config: Any, model: Any, **settings: Any) -> Any:
    task = TASKS.get(model.config.model_type, "SEQ_CLS")
    return config(task_type=task, num_virtual_tokens=30, **settings)


METHODS = {
    "lora_qv": lambda model: _lora(model, every=False),
    "lora_all": lambda model: _lora(model, every=True),
    "prefix_30": lambda model: _virtual(peft.PrefixTuningConfig, model),
    "prefix_30_mlp": lambda model: _virtual(
        peft.PrefixTuningConfig, model, prefix_projection=True, encoder_hidden_size=512
    ),
    "prompt_30": lambda model: _virtual(peft.PromptTuningConfig, model),
    "ia3": lambda model: peft.IA3Config(),
    "lora_qv_folded": lambda model: _lora(model, every=False),
}


def attach(model: Any, method: str) -> Any:
    attached = peft.get_peft_model(model, METHODS[method](model))
    for name, one in attached.named_parameters():
        if "modules_to_save" in name:  # SEQ_CLS trains the head, which nothing else here does
            one.requires_grad_(False)
    if method.endswith("_folded"):
        return attached.merge_and_unload()
    return attached


def save(attached: Any, folder: str) -> None:
    attached.save_pretrained(folder)


def load(model: Any, folder: str) -> Any:
    return peft.PeftModel.from_pretrained(model, folder, is_trainable=True)


def attach_more(attached: Any, method: str, names: list[str]) -> None:
    for name in names:
        attached.add_adapter(name, METHODS[method](attached))


def switch(attached: Any, name: str) -> None:
    attached.set_adapter(name)


def routed(attached: Any, inputs: dict[str, Any], names: list[str]) -> None:
    attached(**inputs, adapter_names=names)
