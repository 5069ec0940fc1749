"""Methods on bases whose weights are quantised: the base module is a black box, so no quantiser needs code of its own.

Run by `nox -s quantised`, which installs the quantisers; each is left out where it is missing.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
import transformers

import unipetl
from unipetl.testing.compare import scatter

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
METHODS = {
    "LoRA everywhere (QLoRA)": "lora(rank=4, at=all)",
    "MAM": "mam(length=4, rank=4)",
    "sequential adapters": "houlsby(rank=4)",
    "prefix": "prefix_tuning(length=4, mlp=8)",
}
IDS = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(0))


def bitsandbytes_4bit():
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, bnb_4bit_quant_type="nf4"
    )


def bitsandbytes_8bit():
    return transformers.BitsAndBytesConfig(load_in_8bit=True)


def torchao_int8():
    from torchao.quantization import Int8WeightOnlyConfig

    return transformers.TorchAoConfig(Int8WeightOnlyConfig())


def quanto_int8():
    return transformers.QuantoConfig(weights="int8")


QUANTISERS = {
    bitsandbytes_4bit: "bitsandbytes",
    bitsandbytes_8bit: "bitsandbytes",
    torchao_int8: "torchao",
    quanto_int8: "optimum",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("quantiser", QUANTISERS, ids=lambda one: one.__name__)
def test_training_saving_and_detaching(checkpoint, tmp_path, quantiser, method):
    if importlib.util.find_spec(QUANTISERS[quantiser]) is None:
        pytest.skip(f"{QUANTISERS[quantiser]} is not installed")
    model = transformers.LlamaForCausalLM.from_pretrained(
        checkpoint, quantization_config=quantiser(), device_map="cpu"
    ).eval()
    weight = model.model.layers[0].self_attn.q_proj.weight
    assert type(weight) is not torch.nn.Parameter or not weight.dtype.is_floating_point
    with torch.no_grad():
        bare = model(IDS).logits
    attachment = unipetl.attach(model, method, name="x")
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    losses = []
    model.train()
    for _ in range(8):
        loss = model(IDS, labels=IDS).loss
        loss.backward()
        assert all(tensor.grad is not None for tensor in attachment.tensors().values())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    model.eval()
    with torch.no_grad():
        trained = model(IDS).logits
        unipetl.save(model, tmp_path)
        unipetl.detach(model)
        assert torch.equal(model(IDS).logits, bare)
        unipetl.load(model, tmp_path)
        assert torch.equal(model(IDS).logits, trained)
    cached = model.generate(IDS[:1, :4], max_new_tokens=5, do_sample=False)
    assert torch.equal(cached, model.generate(IDS[:1, :4], max_new_tokens=5, do_sample=False, use_cache=False))


def test_another_base_of_the_same_kind_is_told_apart(checkpoint, tmp_path):
    pytest.importorskip("torchao")
    model = transformers.LlamaForCausalLM.from_pretrained(checkpoint, quantization_config=torchao_int8())
    unipetl.attach(model, "lora(rank=2)")
    unipetl.save(model, tmp_path / "lora")
    torch.manual_seed(1)
    transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(checkpoint)).save_pretrained(tmp_path / "b")
    other = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "b", quantization_config=torchao_int8())
    with pytest.raises(unipetl.errors.MismatchError):
        unipetl.load(other, tmp_path / "lora")


@pytest.mark.parametrize("quantiser", QUANTISERS, ids=lambda one: one.__name__)
def test_folding_is_refused_and_made_dense_on_request(checkpoint, quantiser):
    if importlib.util.find_spec(QUANTISERS[quantiser]) is None:
        pytest.skip(f"{QUANTISERS[quantiser]} is not installed")
    model = transformers.LlamaForCausalLM.from_pretrained(
        checkpoint, quantization_config=quantiser(), device_map="cpu"
    ).eval()
    scatter(unipetl.attach(model, "lora(rank=2, at=all) + parallel_adapter(rank=3, activation=model)"), size=0.05)
    with torch.no_grad():
        wanted = model(IDS).logits
    with pytest.raises(unipetl.errors.FoldError, match="dequantize=True"):
        unipetl.fold(model)
    assert "quantised" in unipetl.fold(model, dequantize=True).not_plain[-1]
    with torch.no_grad():
        gap = (model(IDS).logits - wanted).abs().max() / wanted.abs().max()
    assert gap < (0.05 if quantiser is bitsandbytes_8bit else 1e-4)  # 8 bits there are of the activations, too
    unipetl.unfold(model)
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, wanted)
