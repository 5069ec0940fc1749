"""Changes of single experts: in float64 they are the change of that expert's matrix, whatever computes the experts."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251

import pytest
import torch
from torch import nn

import unipetl
from unipetl.attaching.state import state_of
from unipetl.errors import AttachError, FoldError, PlanError
from unipetl.forms import ExpertsDelta
from unipetl.testing import randomize
from unipetl.testing.compare import close, differ, loss_of, outputs, same, scatter

SMALL = {
    "vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 6, "intermediate_size": 10, "moe_intermediate_size": 10, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4,
}  # fmt: skip
#: gate and up as two halves of (experts, out, in); alternating in (experts, in, out), with biases; beside a shared one.
KINDS = {
    "Mixtral": {},
    "GptOss": {"layer_types": ["full_attention"] * 2},
    "Qwen2Moe": {"shared_expert_intermediate_size": 12, "decoder_sparse_step": 1, "norm_topk_prob": True},
}
IMPLEMENTATIONS = ("eager", "batched_mm", "grouped_mm")
PLACES = ("ffn.up", "ffn.gate", "ffn.down")


@pytest.fixture(autouse=True)
def _products_in_float64(monkeypatch):
    """transformers' own grouped product computes in float64, torch's does not."""
    from transformers.integrations import moe

    monkeypatch.setattr(moe, "_can_use_grouped_mm", lambda *_: False)


def model_of(kind, implementation="eager", **settings):
    import transformers

    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **KINDS[kind], **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
    randomize(model)
    model.set_experts_implementation(implementation)
    return model.double().eval()


def call_of(rows=2, length=9):
    ids = torch.randint(5, 60, (rows, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids}


def lora_at(experts=True, rank=3, names=PLACES, **form):
    return unipetl.Method(
        modifications=[
            {
                "representation": {"name": name, "experts": experts},
                "form": {"low_rank": {"rank": rank, **form}},
                "composition": {"add": {"scale": 2}},
            }
            for name in names
        ]
    )


def matrices_changed(bare, attached, *, swapped=False):
    """The bare model with ``s B_e A_e`` added to every expert's own rows by hand."""
    model = copy.deepcopy(bare)
    record = state_of(attached).find(None)
    with torch.no_grad():
        for one in record.plan.placements:
            weight = model.get_submodule(one.site.owner)._parameters[one.site.stacked.parameter]
            each = record.changes[one.key].delta.each
            for slot, expert in enumerate(one.shape.chosen):
                change = 2 * each.up[slot] @ each.down[slot]
                target = weight[(expert + swapped) % weight.shape[0]]
                matrix = target.T if one.site.stacked.transposed else target
                columns = one.site.value.columns
                rows = torch.arange(matrix.shape[0]) if columns is None else columns.places()
                matrix[rows] += change
    return model


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("experts", [True, (1, 3)], ids=["all", "two"])
def test_a_lora_of_an_expert_is_a_change_of_its_matrix(kind, implementation, experts):
    model, call = model_of(kind, implementation), call_of()
    bare = copy.deepcopy(model)
    attachment = unipetl.attach(model, lora_at(experts))
    same(outputs(model, call), outputs(bare, call), "a fresh LoRA of experts")
    scatter(attachment)
    found = outputs(model, call)
    differ(found, outputs(bare, call), "a trained one", 1e-2)
    close(found, outputs(matrices_changed(bare, model), call), "LoRA of experts", 1e-6)
    differ(found, outputs(matrices_changed(bare, model, swapped=True), call), "the next expert's matrix", 1e-2)


@pytest.mark.parametrize("kind", ["Mixtral", "GptOss"])
def test_the_implementations_of_experts_compute_the_same_and_can_be_exchanged(kind):
    model, call = model_of(kind), call_of()
    scatter(unipetl.attach(model, lora_at()))
    wanted = outputs(model, call)
    for implementation in IMPLEMENTATIONS[1:]:
        model.set_experts_implementation(implementation)
        close(outputs(model, call), wanted, implementation, 1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_factors_on_the_inner_activation_are_columns_of_the_last_matrices(implementation):
    model, call = model_of("Mixtral", implementation), call_of()
    bare = copy.deepcopy(model)
    scatter(unipetl.attach(model, "ia3"))
    record = state_of(model).find(None)
    wanted = copy.deepcopy(bare)
    for one in record.plan.placements:
        factor = record.changes[one.key].delta
        with torch.no_grad():
            if one.site.representation == "ffn.hidden":
                wanted.get_submodule(one.site.owner).down_proj.mul_(factor.each.factor[:, None, :])
            else:
                wanted.get_submodule(one.site.owner).weight.mul_(factor.factor[:, None])
    close(outputs(model, call), outputs(wanted, call), "factors of experts", 1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_only_experts_that_tokens_visit_get_a_gradient(implementation):
    model = model_of("Mixtral", implementation)
    call = {"input_ids": call_of(rows=1, length=2)["input_ids"]}
    visited = {}
    for path, module in model.named_modules():
        if path.endswith("mlp.experts"):
            see = lambda _, args, path=path: visited.__setitem__(path, set(args[1].flatten().tolist()))  # noqa: E731
            module.register_forward_pre_hook(see)
    scatter(unipetl.attach(model, lora_at()))
    visited.clear()
    loss_of(model, call).backward()
    record = state_of(model).find(None)
    assert any(len(experts) < 4 for experts in visited.values())
    for one in record.plan.placements:
        for parameter in record.changes[one.key].delta.parameters():
            moved = {expert for expert in range(4) if parameter.grad[expert].abs().max() > 0}
            assert moved == visited[one.site.owner], one.key
    own = {id(tensor) for tensor in unipetl.attachments(model)[0].tensors().values()}
    assert all(p.grad is None for p in model.parameters() if id(p) not in own)


def test_experts_that_are_modules_have_a_place_each():
    from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

    config = SwitchTransformersConfig(
        vocab_size=60, d_model=16, d_kv=4, d_ff=12, num_heads=4, num_layers=2, num_decoder_layers=2, num_experts=3,
        num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, expert_capacity=64, decoder_start_token_id=0,
    )  # fmt: skip
    model = SwitchTransformersForConditionalGeneration(config)
    randomize(model)
    model = model.double().eval()
    ids = call_of()["input_ids"]
    call = {"input_ids": ids, "decoder_input_ids": ids}
    bare = copy.deepcopy(model)
    attachment = unipetl.attach(model, lora_at(names=("ffn.up", "ffn.down")))
    names = [one.site.name for one in attachment.plan.placements if one.site.layer == 1]
    assert "encoder.1.ffn.experts.2.up" in names
    scatter(attachment)
    record = state_of(model).find(None)
    wanted = copy.deepcopy(bare)
    for one in record.plan.placements:
        delta = record.changes[one.key].delta
        with torch.no_grad():
            wanted.get_submodule(one.site.owner).weight += 2 * delta.up @ delta.down
    close(outputs(model, call), outputs(wanted, call), "LoRA of experts that are modules", 1e-6)


def test_lora_everywhere_reaches_experts_and_the_selection_leaves_them_out():
    model = model_of("Qwen2Moe")
    inside = [one.site.inside for one in unipetl.plan("lora(rank=2, at=all)", model).placements]
    assert {"", "experts", "shared"} == set(inside)
    without = unipetl.plan(lora_at(experts=False), model)
    assert {one.site.inside for one in without.placements} == {"shared"}
    text = str(unipetl.plan("lora(rank=2, at=ffn)", model))
    assert "decoder.*.ffn.experts.up" in text
    assert "Not reached" not in text
    plan = unipetl.plan(lora_at(rank=2, names=("ffn.down",)), model)
    assert plan.parameters == plan.paper_parameters == 2 * 4 * 2 * (10 + 24)


def test_a_mixture_that_is_not_understood_is_named_by_the_plan(monkeypatch):
    from unipetl.inference import mixtures

    monkeypatch.setattr(mixtures, "_stacked", lambda *_: None)
    plan = unipetl.plan("lora(rank=2, at=all)", model_of("Qwen2Moe"))
    assert plan.notes == (
        "Not reached: ffn.up, ffn.gate, ffn.down of the experts in decoder layers 0, 1 (mlp), whose projections are "
        "not understood.",
    )
    assert plan.notes[0] in str(plan)
    assert unipetl.plan("lora(rank=2)", model_of("Qwen2Moe")).notes == ()


@pytest.mark.parametrize(
    ("kind", "method", "words"),
    [
        ("Mixtral", lora_at(experts=(4,)), "there is no expert 4; a layer has 4"),
        ("Mixtral", lora_at(names=("ffn",)), "is shared by all experts of a layer"),
        ("Mixtral", lora_at(names=("attention.query",)), "only ffn.up, ffn.gate, ffn.hidden, ffn.down"),
        ("Mixtral", lora_at(experts=False), "nothing in this model fits"),
        ("Mixtral", "scaled_parallel_adapter(rank=2, activation=model)", "no FFN of two projections"),
        (
            "GptOss",
            unipetl.Method(
                modifications=[
                    {"representation": "ffn.up", "form": {"bottleneck": {"rank": 2}}, "insertion": "sequential"}
                ]
            ),
            "add a bias after the product",
        ),
    ],
)
def test_what_makes_no_sense_for_experts_is_refused(kind, method, words):
    with pytest.raises(PlanError, match=words):
        unipetl.plan(method, model_of(kind))


def test_a_kernel_of_its_own_is_refused_at_the_call():
    model, call = model_of("Mixtral"), call_of()
    unipetl.attach(model, lora_at())
    model.config._experts_implementation_internal = "sonicmoe"
    with pytest.raises(AttachError, match="one kernel"):
        model(**call)
    model.set_experts_implementation("eager")
    model(**call)


def test_a_use_of_the_matrices_that_is_no_product_is_refused(monkeypatch):
    model, call = model_of("Mixtral"), call_of()
    unipetl.attach(model, lora_at())

    def forward(self, x, *_):
        return torch.einsum("td,eod->to", x, self.gate_up_proj)[:, : x.shape[-1]]

    for module in model.modules():
        if type(module).__name__ == "MixtralExperts":
            monkeypatch.setattr(module, "forward", forward.__get__(module))
    with pytest.raises(AttachError, match="gate_up_proj"):
        model(**call)
    assert not any("gate_up_proj" in vars(module) for module in model.modules())


def test_an_interrupted_call_leaves_no_stand_in(monkeypatch):
    model, call = model_of("Mixtral"), call_of()
    bare = outputs(model, call)
    scatter(unipetl.attach(model, lora_at()))

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ExpertsDelta, "forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        outputs(model, call)
    unipetl.detach(model)
    same(outputs(model, call), bare, "after detaching")


def test_attached_experts_are_copied_and_pickled_and_keep_their_keys():
    model, call = model_of("Mixtral"), call_of()
    keys = list(model.state_dict())
    scatter(unipetl.attach(model, lora_at()))
    wanted = outputs(model, call)
    assert [key for key in model.state_dict() if ".unipetl." not in key] == keys
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        same(outputs(other, call), wanted, "a copy")


def test_two_attachments_of_the_same_experts_stack_and_switch():
    model, call = model_of("Mixtral"), call_of()
    scatter(unipetl.attach(model, lora_at(), name="a"), seed=1)
    only_a = outputs(model, call)
    scatter(unipetl.attach(model, lora_at(experts=(0, 2)), name="b"), seed=2)
    both = outputs(model, call)
    differ(both, only_a, "a second attachment", 1e-3)
    unipetl.activate(model, "a")
    same(outputs(model, call), only_a, "the first alone")
    unipetl.activate(model, ["b", "a"])
    close(outputs(model, call), both, "both, in the other order", 1e-6)


def test_dropout_acts_on_what_experts_read():
    model, call = model_of("Mixtral", "batched_mm"), call_of()
    scatter(unipetl.attach(model, lora_at(dropout=0.5)))
    wanted = outputs(model, call)
    differ(outputs(model.train(), call), wanted, "in training", 1e-3)
    same(outputs(model.eval(), call), wanted, "in evaluation")


def test_experts_fold_into_their_parameters():
    model, call = model_of("GptOss"), call_of()
    bare = copy.deepcopy(model)
    keys = list(bare.state_dict())
    scatter(unipetl.attach(model, lora_at(experts=(0, 1, 3))))
    changed = matrices_changed(bare, model)
    wanted = outputs(model, call)
    report = unipetl.fold(model, plain=True)
    assert report.plain
    assert list(model.state_dict()) == keys
    close(outputs(model, call), wanted, "the folded model", 1e-6)
    for name, value in changed.state_dict().items():
        close(model.state_dict()[name], value, name, 1e-12)
    unipetl.unfold(model)
    same(outputs(model, call), wanted, "the unfolded model")


def test_a_bias_of_an_expert_s_change_has_no_parameter_to_fold_into():
    model = model_of("Mixtral")
    method = {"representation": "ffn.up", "form": {"bottleneck": {"rank": 2, "activation": "identity"}}}
    scatter(unipetl.attach(model, unipetl.Method(modifications=[{**method, "insertion": "parallel"}])))
    with pytest.raises(FoldError, match="it adds a bias"):
        unipetl.fold(model)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["batched_mm", "grouped_mm"])
def test_experts_compile_to_one_graph(implementation):
    model, call = model_of("Mixtral", implementation), call_of()
    scatter(unipetl.attach(model, lora_at(experts=(0, 1, 3))))
    wanted = outputs(model, call)
    torch.compiler.reset()
    close(outputs(torch.compile(model, fullgraph=True, backend="eager"), call), wanted, "compiled", 1e-6)
    torch.compiler.reset()


class Block(nn.Module):
    """A block with a mixture of a user's own."""

    def __init__(self):
        super().__init__()
        self.norm, self.experts = nn.LayerNorm(8), Experts()

    def forward(self, x):
        return x + self.experts(self.norm(x))


class Experts(nn.Module):
    """Every token visits the expert of its largest feature; gate and up are parameters of their own."""

    def __init__(self):
        super().__init__()
        self.w1, self.w3 = (nn.Parameter(torch.randn(3, 6, 8)) for _ in range(2))
        self.w2 = nn.Parameter(torch.randn(3, 8, 6))

    def forward(self, x):
        y = torch.zeros_like(x)
        chosen = x[..., :3].argmax(dim=-1)
        for expert in range(3):
            z = x[chosen == expert]
            inner = nn.functional.silu(z @ self.w1[expert].T) * nn.functional.linear(z, self.w3[expert])
            y[chosen == expert] = torch.matmul(inner, self.w2[expert].mT)
        return y


class Mixer(nn.Module):
    """Two blocks."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return {"logits": x}


def test_a_table_of_a_user_s_own_names_parameters():
    from unipetl.architectures import Architecture, ExpertsTable, FeedForwardTable, Port, Projection, StackTable

    experts = ExpertsTable(
        "experts", up=Projection("experts.w3"), gate=Projection("experts.w1"), down=Projection("experts.w2")
    )
    ffn = FeedForwardTable(
        up=None, down=None, norm="norm", result=Port("experts", "output"), reads="experts", experts=(experts,)
    )
    stack = StackTable("encoder", "", "blocks", (), ffn, norm_first=True, entry="", tokens="")
    table = Architecture(("mixer",), (stack,))
    torch.manual_seed(0)
    model = Mixer().double()
    call = {"x": torch.randn(2, 20, 8, dtype=torch.float64)}
    bare = copy.deepcopy(model)
    scatter(unipetl.attach(model, lora_at(), architecture=table))
    close(outputs(model, call), outputs(matrices_changed(bare, model), call), "a user's experts", 1e-9)
