"""Changes of embeddings: a LoRA is a change of the table, or of the convolution's kernel, and of nothing tied to it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import unipetl
from unipetl.errors import FoldError, PlanError
from unipetl.testing import batch, build, randomize
from unipetl.testing.compare import close, differ, loss_of, outputs, same, scatter

LORA = "lora(rank=3, at=embedding)"


def at_embedding(form, insertion, composition="add", **narrow):
    representation = {"name": "embedding", **narrow} if narrow else "embedding"
    one = {"representation": representation, "form": form, "insertion": insertion, "composition": composition}
    return unipetl.Method(modifications=[one])


def embeddings_of(attachment):
    return {one.site.owner: one for one in attachment.plan.placements if one.site.representation == "embedding"}


def delta_at(model, one):
    owner = model.get_submodule(one.site.owner)
    return next(module.delta for module in owner.modules() if hasattr(module, "delta"))


@pytest.mark.parametrize("family", ["roberta", "gpt2", "t5", "bart", "llama"])
def test_a_lora_of_an_embedding_is_a_change_of_its_rows(family):
    model = build(family, dtype=torch.float64)
    call = batch(model, labels=False)
    bare = copy.deepcopy(model)
    attachment = unipetl.attach(model, LORA)
    same(outputs(model, call), outputs(bare, call), "a fresh LoRA")
    scatter(attachment)
    wanted = copy.deepcopy(bare)
    for path, one in embeddings_of(attachment).items():
        delta = delta_at(model, one)
        module = wanted.get_submodule(path)  # its own table, apart from what it was tied to
        module._parameters["weight"] = nn.Parameter(module.weight + 2 * (delta.up @ delta.down).T)
    differ(outputs(model, call), outputs(bare, call), "a trained LoRA", 1e-3)
    close(outputs(model, call), outputs(wanted, call), "LoRA of the embedding", 1e-9)


def test_an_embedding_of_several_stacks_is_one_place_and_tied_ones_are_not():
    def owners(model):
        return list(embeddings_of(unipetl.attach(model, LORA)))

    tied, shared = build("t5"), build("t5")
    shared.decoder.embed_tokens = shared.encoder.embed_tokens
    assert owners(tied) == ["encoder.embed_tokens", "decoder.embed_tokens"]
    assert owners(shared) == ["encoder.embed_tokens"]
    scatter(unipetl.attachments(shared)[0])
    call = batch(shared)
    wanted = outputs(shared, call)
    assert unipetl.fold(shared).complete
    close(outputs(shared, call), wanted, "the folded model", 1e-4)


def test_a_tied_output_projection_keeps_its_values():
    model = build("gpt2", dtype=torch.float64)
    assert model.lm_head.weight is model.transformer.wte.weight
    call = batch(model)
    table = model.lm_head.weight.detach().clone()
    hidden = {}
    model.lm_head.register_forward_pre_hook(lambda _, args: hidden.update(x=args[0]))
    scatter(unipetl.attach(model, LORA))
    logits = outputs(model, call)
    close(logits, hidden["x"] @ table.T, "the tied projection's logits", 1e-12)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_tokens_that_training_never_sees_stay_what_they_were():
    model = build("gpt2")
    call = batch(model)
    seen = torch.unique(call["input_ids"][:, :-1])  # what follows the last tokens is not known
    embedding = model.transformer.wte
    every = torch.arange(embedding.num_embeddings)
    before = embedding(every).detach().clone()
    unipetl.attach(model, LORA)
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(own, lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model, call).backward()
        optimizer.step()
    moved = (embedding(every) != before).any(dim=1)
    assert moved[seen].all()
    assert torch.equal(moved.nonzero().flatten(), seen)


def test_folding_into_a_tied_table_unties_it_and_says_so():
    model = build("gpt2", dtype=torch.float64)
    call = batch(model)
    scatter(unipetl.attach(model, LORA))
    wanted, tied = outputs(model, call), model.lm_head.weight
    with pytest.raises(FoldError, match=r"'transformer.wte.weight' was tied to 'lm_head.weight', which keeps its"):
        unipetl.fold(model, plain=True)
    same(outputs(model, call), wanted, "after a refusal")
    report = unipetl.fold(model)
    assert report.complete
    assert not report.plain
    assert model.lm_head.weight is tied
    assert model.transformer.wte.weight is not tied
    close(outputs(model, call), wanted, "the folded model", 1e-9)
    unipetl.unfold(model)
    assert model.transformer.wte.weight is tied
    same(outputs(model, call), wanted, "the unfolded model")


def test_an_embedding_that_scales_its_vectors_folds_with_its_scale():
    model = build("mbart", dtype=torch.float64, scale_embedding=True)
    call = batch(model)
    scatter(unipetl.attach(model, LORA + " + lora(rank=2)"))
    wanted = outputs(model, call)
    assert unipetl.fold(model).complete
    close(outputs(model, call), wanted, "the folded model", 1e-9)


@pytest.mark.parametrize(
    ("form", "insertion", "composition"),
    [
        ({"low_rank": {"rank": 2}}, "sequential", "add"),
        ({"bottleneck": {"rank": 2, "activation": "identity"}}, "sequential", "add"),
        ("rescale", "sequential", "multiply"),
    ],
)
def test_what_reads_the_vector_folds_too(form, insertion, composition):
    model = build("llama", dtype=torch.float64)
    call = batch(model)
    scatter(unipetl.attach(model, at_embedding(form, insertion, composition)))
    wanted = outputs(model, call)
    assert unipetl.fold(model).complete
    close(outputs(model, call), wanted, "the folded model", 1e-9)


def vision(dtype=torch.float64):
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, image_size=16, patch_size=4
    )
    model = transformers.ViTModel(config)
    randomize(model)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return model.to(dtype).eval(), {"pixel_values": pixels}


def test_a_lora_of_a_patch_embedding_is_two_convolutions():
    model, call = vision()
    bare = copy.deepcopy(model)
    attachment = unipetl.attach(model, LORA)
    same(outputs(model, call), outputs(bare, call), "a fresh LoRA")
    scatter(attachment)
    ((path, one),) = embeddings_of(attachment).items()
    delta, base = delta_at(model, one), bare.get_submodule(path)
    kernel = delta.down.view(3, *base.weight.shape[1:])  # A has the convolution's kernel and stride, B is 1 x 1

    def both(module, args, output):
        return output + 2 * nn.functional.conv2d(
            nn.functional.conv2d(args[0], kernel, stride=base.stride), delta.up[:, :, None, None]
        )

    wanted = copy.deepcopy(bare)
    wanted.get_submodule(path).register_forward_hook(both)
    close(outputs(model, call), outputs(wanted, call), "LoRA of a convolution", 1e-9)
    report = unipetl.fold(model, plain=True)
    assert report.plain
    close(outputs(model, call), outputs(wanted, call), "the folded convolution", 1e-9)
    close(model.get_submodule(path).weight, base.weight + 2 * (delta.up @ delta.down).view_as(base.weight), "W", 1e-9)


@pytest.mark.parametrize(
    ("convolution", "size"),
    [
        (nn.Conv1d(3, 5, 4, stride=2, padding=1), (2, 3, 11)),
        (nn.Conv2d(3, 5, (2, 3), stride=(2, 1), padding=(0, 2)), (2, 3, 7, 8)),
        (nn.Conv3d(2, 5, (2, 2, 3), stride=(1, 2, 3), padding=(1, 0, 1)), (2, 2, 4, 5, 9)),
    ],
    ids=["1d", "2d", "3d"],
)
def test_patches_are_what_a_convolution_multiplies(convolution, size):
    from unipetl.attaching.patches import patches

    convolution = convolution.double()
    x = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    product = patches(convolution, x) @ convolution.weight.flatten(1).T + convolution.bias
    close(product.movedim(-1, 1), convolution(x), "the product with patches", 1e-12)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (at_embedding({"bottleneck": {"rank": 2}}, "parallel"), "only 'low_rank' looks one up. Use insertion 'seq"),
        (at_embedding({"low_rank": {"rank": 2, "dropout": 0.1}}, "parallel"), "it would act on a token's number"),
        (at_embedding({"low_rank": {"rank": 2}}, "parallel", layers=[0]), "comes before the layers"),
        (at_embedding({"low_rank": {"rank": 2}}, "parallel", kind="self"), "only attention representations"),
        (at_embedding({"head_attention": {"length": 2}}, "parallel"), "needs representation 'attention.heads'"),
        (at_embedding({"prompt": {"length": 2}}, "parallel", "gate"), "needs representation 'input'"),
        (at_embedding({"low_rank": {"rank": 2}}, "parallel", experts=True), "is none, and is shared"),
    ],
)
def test_what_makes_no_sense_at_an_embedding_is_refused(method, words):
    with pytest.raises(PlanError, match=words):
        unipetl.plan(method, build("gpt2"))
