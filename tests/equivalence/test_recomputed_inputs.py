"""What backward computes again gives the gradients that keeping it gives, and is not kept."""

import copy
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import unipetl
from unipetl.forms import recompute
from unipetl.forms.form import projected
from unipetl.forms.recompute import recipe_of, recomputed


def tensors():
    torch.manual_seed(0)
    u, v, w = (torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in ((2, 5, 8), (2, 5, 8), (3, 8)))
    return u, v, w


def _seeded(make):
    def seeded(u, v):
        torch.manual_seed(1)
        return make(u, v)

    return seeded


FROZEN = torch.linspace(0.5, 2, 8, dtype=torch.float64)
MADE = {
    "gelu": lambda u, v: functional.gelu(u),
    "gelu by tanh": lambda u, v: functional.gelu(u, approximate="tanh"),
    "silu": lambda u, v: functional.silu(u),
    "relu": lambda u, v: torch.relu(u),
    "tanh": lambda u, v: torch.tanh(u),
    "sigmoid": lambda u, v: torch.sigmoid(u),
    "gated": lambda u, v: functional.silu(u) * v,
    "layer norm": lambda u, v: functional.layer_norm(u, (8,), FROZEN, FROZEN),
    "layer norm without weights": lambda u, v: functional.layer_norm(u, (8,)),
    "rms norm in another dtype": lambda u, v: FROZEN * (u * torch.rsqrt((u * u).mean(-1, True) + 1e-6)).to(u.dtype),
    "dropout": _seeded(lambda u, v: functional.dropout(functional.gelu(u), 0.3)),
    "dropout as on an accelerator": _seeded(lambda u, v: torch.native_dropout(functional.gelu(u), 0.3, True)[0]),
    "cast": lambda u, v: functional.gelu(u.float()).double(),
    "old gelu": lambda u, v: 0.5 * u * (1 + torch.tanh(u + 0.04 * u**3)),
}


def gradients(make, kept):
    """Return the gradients of two readers of one activation, and how often it was read by its recipe."""
    u, v, w = tensors()
    x = make(u, v)
    if kept:
        z = functional.linear(x, w).sin() + functional.linear(x, 2 * w)
    else:
        z = projected(x, w).sin() + projected(x, 2 * w)
    recipe = recipe_of(x)
    users = recipe.users if recipe else 0
    return torch.autograd.grad(z.square().sum(), [w, u]), users


@pytest.mark.parametrize("made", MADE)
def test_gradients_are_those_of_kept_values(made):
    expected, none = gradients(MADE[made], kept=True)
    found, users = gradients(MADE[made], kept=False)
    assert none == 0
    assert users == 2
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_what_is_not_known_is_kept():
    for make in (lambda u, v: u + v, lambda u, v: torch.sin(u), lambda u, v: u.transpose(0, 1)):
        assert gradients(make, kept=False)[1] == 0


def test_planted_wrong_recipe(monkeypatch):
    wrong = recompute._Kind(lambda node: node._saved_self, ("self",))
    monkeypatch.setitem(recompute._KNOWN, "GeluBackward0", wrong)
    expected, _ = gradients(MADE["gelu"], kept=True)
    found, _ = gradients(MADE["gelu"], kept=False)
    assert not torch.allclose(found[0], expected[0])


def test_a_change_in_place_makes_another_activation():
    u, _, w = tensors()
    x = functional.gelu(u)
    first = projected(x, w)
    x = x.mul_(2)
    second = projected(x, w)
    torch.testing.assert_close(
        torch.autograd.grad((first + second.sin()).sum(), w),
        torch.autograd.grad((functional.gelu(u) @ w.T + (2 * functional.gelu(u) @ w.T).sin()).sum(), w),
    )


def test_twice_backward_and_second_derivatives():
    u, _, w = tensors()
    z = projected(functional.gelu(u), w).square().sum()
    first = torch.autograd.grad(z, w, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(z, w, retain_graph=True)[0], first)
    torch.autograd.gradgradcheck(lambda u, w: projected(functional.gelu(u), w).square().sum(), (u, w))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_and_offloading_look_after_saved_values_themselves(reentrant):
    u, _, w = tensors()
    expected = torch.autograd.grad(functional.gelu(u @ u.transpose(1, 2) @ u).matmul(w.T).square().sum(), [w, u])

    def inside(u):
        return projected(functional.gelu(u @ u.transpose(1, 2) @ u), w)

    def before(u):
        return functional.gelu(u @ u.transpose(1, 2) @ u)

    def offloaded(u):
        with torch.autograd.graph.save_on_cpu():
            return inside(u)

    for compute in (
        lambda: checkpoint(inside, u, use_reentrant=reentrant),
        lambda: projected(checkpoint(before, u, use_reentrant=reentrant), w),  # made inside, read outside
        lambda: offloaded(u),
    ):
        u.grad = w.grad = None
        compute().square().sum().backward()
        torch.testing.assert_close([w.grad, u.grad], list(expected))


def test_functional_transforms():
    u, _, w = tensors()

    def loss(w, u):
        return projected(functional.gelu(u), w).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(w, u)
    torch.testing.assert_close(each.sum(0), torch.autograd.grad(loss(w, u), w)[0])


def test_autocast_keeps_no_copy_for_each_reader():
    u, _, w = tensors()
    u, w = u.float().detach().requires_grad_(True), w.float().detach().requires_grad_(True)
    x = functional.gelu(u)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(projected(x, w).float().square().sum(), w)[0]
        expected = torch.autograd.grad(functional.linear(x, w).float().square().sum(), w)[0]
    torch.testing.assert_close(found, expected)


class Feed(nn.Module):
    """A feed-forward block with a layer norm, d = 8 and 32 hidden units."""

    def __init__(self):
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, x):
        return self.second(functional.gelu(self.first(self.norm(x))))


def kept_values(compute, parameters):
    """Return how many numbers the graph of a result holds, parameters aside, by walking it."""
    own = {one.untyped_storage().data_ptr() for one in parameters}
    result, found, seen = compute(), {}, set()
    todo = [result.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [before for before, _ in node.next_functions]
        raw = [getattr(node, name).data for name in dir(node) if name.startswith("_raw_saved")]
        for one in raw:
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in own:
                found[one.untyped_storage().data_ptr()] = one.numel()
    return sum(found.values())


def test_only_what_the_frozen_block_needs_is_kept(monkeypatch):
    feed = Feed().requires_grad_(False)
    down = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(2, 32))
    up = torch.ones(2, 32), torch.ones(2, 8)
    entered = torch.randn(3, 7, 8, requires_grad=True)

    def compute():
        x = feed.norm(entered)
        hidden = functional.gelu(feed.first(x) + projected(x, down[0]) @ up[0])
        return feed.second(hidden) + projected(hidden, down[1]) @ up[1]

    everything = [*feed.parameters(), *down, *up]
    tokens = 3 * 7
    floor = tokens * (8 + 2 + 32)  # the norm's input with its mean and deviation, and what the activation reads
    assert kept_values(compute, everything) == floor
    monkeypatch.setattr(recompute, "_recipe", lambda x: None)
    assert kept_values(compute, everything) == floor + tokens * (8 + 32)


def test_a_gated_block_keeps_what_its_activation_reads(monkeypatch):
    torch.manual_seed(0)
    gate, up, out = (nn.Linear(*sizes).requires_grad_(False) for sizes in ((8, 32), (8, 32), (32, 8)))
    down, ones = nn.Parameter(torch.randn(2, 32)), torch.ones(2, 8)
    entered = torch.randn(3, 7, 8, requires_grad=True)

    def compute():
        x = functional.silu(gate(entered)) * up(entered)
        return out(x) + projected(x, down) @ ones

    everything = [*gate.parameters(), *up.parameters(), *out.parameters(), down, ones]
    tokens = 3 * 7
    found = torch.autograd.grad(compute().square().sum(), [entered, down])
    assert kept_values(compute, everything) == tokens * (32 + 32)
    monkeypatch.setattr(recompute, "_recipe", lambda x: None)
    assert kept_values(compute, everything) == tokens * (32 + 32 + 32 + 32)
    torch.testing.assert_close(found, torch.autograd.grad(compute().square().sum(), [entered, down]))


def test_lora_on_every_linear_map_keeps_hardly_more_than_on_two(monkeypatch):
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    bare = transformers.BertModel(config, add_pooling_layer=False)
    ids = torch.randint(0, 32, (2, 12))

    def kept(method):
        model = copy.deepcopy(bare)
        unipetl.attach(model, method)
        return kept_values(lambda: model(input_ids=ids).last_hidden_state, model.parameters())

    low, every = kept("lora(rank=2)"), kept("lora(rank=2, at=all)")
    tokens = 2 * 12
    assert every - low < tokens * 2 * (16 + 16)  # results of rank 2, the inputs of the first block, and masks
    monkeypatch.setattr(recompute, "_recipe", lambda x: None)
    assert kept("lora(rank=2, at=all)") - every >= tokens * 2 * 64


def test_nothing_is_done_where_no_gradient_is_wanted():
    u, _, _ = tensors()
    x = functional.gelu(u)
    with torch.no_grad(), recomputed(x):
        pass
    assert recipe_of(x) is None


def test_the_values_are_really_gone_while_the_graph_lives():
    u, v, w = tensors()
    x = functional.silu(u) * v
    z = projected(x, w)
    gone = weakref.ref(x)
    del x
    assert gone() is None, "somebody holds the activation beside the graph"
    z.sum().backward()


def test_planted_hook_that_holds_the_values(monkeypatch):
    real = recompute._packer

    def planted(recipe, node, place, size, held=[]):  # noqa: B006
        held.append(kept[0])
        return real(recipe, node, place, size)

    monkeypatch.setattr(recompute, "_packer", planted)
    u, v, w = tensors()
    kept = [functional.silu(u) * v]
    z = projected(kept[0], w)
    gone = weakref.ref(kept.pop())
    assert gone() is not None
    del z


def test_a_weight_changed_in_place_before_backward_is_refused():
    u, _, w = tensors()
    z = projected(functional.gelu(u), w)
    with torch.no_grad():
        w.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_a_change_that_leaves_no_function_behind_keeps_the_values():
    u, _, w = tensors()
    x = functional.gelu(u)
    with torch.no_grad():
        x.mul_(2)
    z = projected(x, w)
    torch.testing.assert_close(torch.autograd.grad(z.sum(), w)[0], x.sum((0, 1)).expand(3, 8))


def test_readers_in_and_out_of_a_checkpoint():
    u, _, w = tensors()
    x = functional.gelu(u)
    inside = checkpoint(lambda x: projected(x, w).sin(), x, use_reentrant=False)
    outside = projected(x, w).sin()
    found = torch.autograd.grad((inside + outside).sum(), [w, u])
    expected = torch.autograd.grad(2 * functional.linear(functional.gelu(u), w).sin().sum(), [w, u])
    torch.testing.assert_close(found, expected)


def test_weights_that_are_parts_of_something_larger_are_not_counted_on():
    u, _, w = tensors()
    both = torch.ones(2, 8, dtype=torch.float64).unbind()
    assert recipe_of(_read(functional.layer_norm(u, (8,), *both), w)) is None
    assert recipe_of(_read(both[0] * functional.gelu(u), w)) is None
    assert (
        recipe_of(
            _read(
                functional.layer_norm(u.bfloat16(), (8,), *(one.bfloat16() for one in FROZEN[None].repeat(2, 1))),
                w.bfloat16(),
            )
        )
        is None
    )


def _read(x, w):
    projected(x, w)
    return x


def test_hidden_states_are_written_as_before(tmp_path):
    u, _, w = tensors()
    torch.save(_read(functional.gelu(u).detach().requires_grad_(True), w), tmp_path / "leaf")
    torch.save(_read(functional.gelu(u), w), tmp_path / "states")


def test_an_untrained_change_under_autocast_leaves_the_dtype():
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = transformers.LlamaModel(config)
    ids = torch.randint(0, 32, (2, 5))
    with torch.autocast("cpu", torch.bfloat16):
        before = model(ids).last_hidden_state
        unipetl.attach(model, "lora(rank=2, at=embedding)")
        assert model.embed_tokens(ids).dtype == torch.float32
        assert torch.equal(model(ids).last_hidden_state, before)


def test_a_form_whose_forward_is_overridden_or_watched_is_called(monkeypatch):
    from unipetl.forms.low_rank import LowRankDelta
    from unipetl.testing import batch, build

    model = build("bert", "base")
    unipetl.attach(model, "lora(rank=2)")
    inputs = batch(model)
    before = model(**inputs).last_hidden_state
    calls = []
    deltas = [one for one in model.modules() if isinstance(one, LowRankDelta)]
    handle = deltas[0].register_forward_hook(lambda *_: calls.append(0))
    assert torch.equal(model(**inputs).last_hidden_state, before)
    assert calls == [0]
    handle.remove()
    other = type("Other", (LowRankDelta,), {"forward": lambda self, x: x.new_ones(*x.shape[:-1], len(self.up))})
    deltas[0].__class__ = other
    assert not torch.allclose(model(**inputs).last_hidden_state, before)
