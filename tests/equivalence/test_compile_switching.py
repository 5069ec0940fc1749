"""torch.compile: switching among attachments of one structure and reloading compile nothing, and nothing is stale."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import unipetl
from unipetl.testing import batch, build
from unipetl.testing.compare import outputs, scatter

LORA, MAM = "lora(rank=2)", "mam(length=2, rank=2, mlp=None)"


class Compiled:
    """A compiled model that counts its compilations."""

    def __init__(self, model: Any) -> None:
        torch.compiler.reset()
        self.model, self.graphs = model, 0
        self.whole = torch.compile(model, backend=self._backend, fullgraph=True)
        self.call = batch(model, labels=False)

    def _backend(self, graph: Any, examples: Any) -> Any:
        self.graphs += 1
        return graph.forward

    def check(self) -> int:
        """Compare with the model itself; return how many graphs were compiled for it."""
        before = self.graphs
        assert torch.allclose(outputs(self.whole, self.call), outputs(self.model, self.call), atol=1e-12)
        return self.graphs - before


def classifier() -> Any:
    """A model of one layer: compiling takes its time for every layer, and switches concern all of them alike."""
    return build("bert", "sequence_classification", dtype=torch.float64, num_hidden_layers=1)


@pytest.fixture
def compiled():
    yield Compiled(classifier())
    torch.compiler.reset()


def add(model, method, name, seed, **attaching):
    if unipetl.attachments(model):
        unipetl.activate(model, None)
    return scatter(unipetl.attach(model, method, name=name, **attaching), seed=seed)


@pytest.mark.parametrize("method", [LORA, MAM, "bitfit"])
def test_switching_among_attachments_of_one_structure_compiles_once(compiled, method):
    for number in range(4):
        add(compiled.model, method, f"n{number}", number)
    assert compiled.check() == 1
    for number in (0, 1, 2, 3, 1):
        unipetl.activate(compiled.model, f"n{number}")
        assert compiled.check() == 0


def test_one_graph_for_each_structure_and_none_of_them_stale(compiled):
    """The bare model is compiled first, with everything frozen, so that only the hooks tell the graphs apart."""
    compiled.model.requires_grad_(False)
    assert compiled.check() == 1
    for number, method in enumerate((LORA, LORA, "houlsby(rank=2)")):
        for tensor in add(compiled.model, method, f"n{number}", number, train_head=False).tensors().values():
            tensor.requires_grad_(False)
        assert compiled.check() == (number != 1)
    found = []
    for names in (None, "n0", "n2", ["n0", "n2"], "n1", ["n1", "n2"], None, "n2"):
        unipetl.activate(compiled.model, names)
        found.append(compiled.check())
    assert sum(found) <= 2, found  # the bare model with attachments hung in, and one for the stacks


def test_reloading_compiles_nothing(compiled, tmp_path):
    model = compiled.model
    for number in range(2):
        add(model, MAM, f"n{number}", number)
        unipetl.save(model, tmp_path / f"n{number}", name=f"n{number}")
    first = outputs(model, compiled.call)
    assert compiled.check() == 1
    unipetl.reload(model, tmp_path / "n0", name="n1")
    assert compiled.check() == 0
    assert not torch.equal(outputs(model, compiled.call), first)
    fresh = classifier()
    unipetl.load(fresh, tmp_path / "n0")
    assert torch.equal(outputs(model, compiled.call), outputs(fresh, compiled.call))


def test_routed_rows_compile_once_for_each_pattern(compiled):
    names = [add(compiled.model, LORA, f"n{number}", number, train_head=False).name for number in range(3)]
    unipetl.activate(compiled.model, None)
    with unipetl.routed(compiled.model, names[:2]):
        assert compiled.check() == 1
    for rows in (names[1:], names[::2], names[:2]):
        with unipetl.routed(compiled.model, rows):
            assert compiled.check() == 0
