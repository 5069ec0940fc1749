"""What cannot fit into any memory is refused before anything is asked for; what is only useless is said."""

from __future__ import annotations

import time

import pytest
import torch

import unipetl
from unipetl.attaching import room
from unipetl.errors import AttachError
from unipetl.testing.models import build


@pytest.mark.parametrize("method", ["lora(rank=1000000000000)", "prefix_tuning(length=1000000000000, mlp=none)"])
def test_absurd_sizes_are_refused_at_once_and_touch_nothing(method):
    model = build("bert")
    before = {name: one.clone() for name, one in model.state_dict().items()}
    start = time.process_time()
    with pytest.raises(AttachError, match=r"GiB, and cpu has .* GiB of memory\. A smaller rank or length"):
        unipetl.attach(model, method)
    assert time.process_time() - start < 2
    assert not unipetl.attachments(model)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_what_fits_is_made_and_what_does_not_say_its_memory_is_not_asked(monkeypatch):
    assert room.total_memory(torch.device("cpu")) > 2**28
    assert room.total_memory(torch.device("meta")) is None
    model = build("bert")
    monkeypatch.setattr(room, "total_memory", lambda place: 4 * unipetl.plan("lora(rank=2)", model).added_parameters)
    unipetl.attach(model, "lora(rank=2)")
    with pytest.raises(AttachError, match="MiB"):
        unipetl.attach(build("bert"), "lora(rank=3)")


def test_a_rank_beyond_a_whole_matrix_is_said_and_works():
    model = build("bert")
    full = model.config.hidden_size
    assert unipetl.plan(f"lora(rank={full})", model).notes == ()
    (first, second) = unipetl.plan(f"lora(rank={full + 1})", model).notes
    assert f"The rank {full + 1} at 'attention.query' is more than a whole matrix has there ({full})" in first
    assert "attention.value" in second
    assert first in str(unipetl.plan(f"lora(rank={full + 1})", model))
    unipetl.attach(model, f"lora(rank={full + 1})")
