"""Saving and loading: what goes in comes out, and nothing else is ever accepted."""

from __future__ import annotations

import json
import os

import pytest
import safetensors.torch
import torch

import unipetl
from unipetl import files, saved_tensors
from unipetl import saved as reading
from unipetl.errors import AttachError, CorruptFileError, MismatchError, StorageError
from unipetl.storage import reload
from unipetl.testing.models import batch, build

METHODS = (
    "lora(rank=2, at=all)",
    "prefix_tuning(length=2, mlp=3)",
    "mam(length=2, rank=2, mlp=None) + bitfit",
    "scaled_parallel_adapter(rank=2, scale=learned)",
    "full",
    "prompt_tuning(length=3)",
    "ia3",
)


def trained(family: str = "bart", method: str = METHODS[2], **settings):
    """A model with an attachment whose every value is random, the folder's source of truth."""
    model = build(family, **settings)
    attachment = unipetl.attach(model, method)
    with torch.no_grad():
        for values in attachment.tensors().values():
            values.copy_(torch.randn(values.shape) * 0.1)
    return model


def logits(model):
    with torch.no_grad():
        return model(**batch(model)).logits


def saved(tmp_path, **settings):
    model = trained(**settings)
    return model, unipetl.save(model, tmp_path / "adapter")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["bart", "roberta"])
def test_a_loaded_attachment_computes_the_same(tmp_path, family, method):
    model, folder = saved(tmp_path, family=family, method=method)
    twin = build(family)
    assert not torch.equal(logits(twin), logits(model))
    unipetl.load(twin, folder)
    assert torch.equal(logits(twin), logits(model))


def test_the_files_hold_exactly_the_trained_tensors(tmp_path):
    model, folder = saved(tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["unipetl.json", "unipetl.safetensors"]
    tensors = safetensors.torch.load_file(folder / "unipetl.safetensors")
    assert set(tensors) == set(unipetl.attachments(model)[0].tensors())
    description = json.loads((folder / "unipetl.json").read_text())
    assert description["parameters"] == sum(value.numel() for value in tensors.values())


def test_the_description_is_the_same_in_every_run(tmp_path):
    first = saved(tmp_path / "a")[1] / "unipetl.json"
    second = saved(tmp_path / "b")[1] / "unipetl.json"
    assert json.loads(first.read_text())["tensors"].keys() == json.loads(second.read_text())["tensors"].keys()
    assert first.read_text() != ""


def test_saving_twice_replaces(tmp_path):
    model, folder = saved(tmp_path)
    with torch.no_grad():
        for values in unipetl.attachments(model)[0].tensors().values():
            values.add_(0.25)
    unipetl.save(model, folder)
    twin = build("bart")
    unipetl.load(twin, folder)
    assert torch.equal(logits(twin), logits(model))


def test_a_loaded_name_can_be_changed_and_may_hold_anything_printable(tmp_path):
    _, folder = saved(tmp_path, method="lora(rank=2)")
    twin = build("bart")
    unipetl.load(twin, folder, name="model.layers 0/ü")
    assert [one.name for one in unipetl.attachments(twin)] == ["model.layers 0/ü"]
    unipetl.save(twin, tmp_path / "again")
    assert unipetl.load(build("bart"), tmp_path / "again").name == "model.layers 0/ü"


def test_restore_fills_an_attachment_in_place(tmp_path):
    model, folder = saved(tmp_path)
    twin = build("bart")
    before = unipetl.attach(twin, METHODS[2]).tensors()
    reload(twin, folder)
    assert torch.equal(logits(twin), logits(model))
    assert all(unipetl.attachments(twin)[0].tensors()[key] is value for key, value in before.items())
    other = build("bart")
    unipetl.attach(other, "lora(rank=3)")
    with pytest.raises(MismatchError, match="another method"):
        reload(other, folder)


# ---------------------------------------------------------------------------------------------- damaged files


def rewrite(folder, change):
    path = folder / "unipetl.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


def describe(folder, change):
    path = folder / "unipetl.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def consistent(folder, change):
    """Change tensors and let the description agree with every checksum: only strictness can notice."""
    rewrite(folder, change)
    tensors = safetensors.torch.load_file(folder / "unipetl.safetensors")
    listing = {
        key: {"shape": list(v.shape), "dtype": reading.dtype_name(v), "sha256": reading.digest(v)}
        for key, v in tensors.items()
    }
    checksum = files.sha256(folder / "unipetl.safetensors")
    describe(folder, lambda data: data.update(tensors=listing, sha256=checksum))


KEY = "encoder.0.ffn/parallel_bottleneck/down"


def drop(tensors):
    del tensors[KEY]


def add(tensors):
    tensors["encoder.0.ffn/parallel_bottleneck/sideways"] = torch.zeros(2)


def reshape(tensors):
    tensors[KEY] = tensors[KEY].T.contiguous()


def poison(tensors):
    tensors[KEY][0, 0] = float("nan")


def flip(tensors):
    tensors[KEY][0, 0] += 1e-3


DAMAGE = pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: rewrite(f, drop), CorruptFileError, f"'{KEY}' is missing"),
        (lambda f: rewrite(f, add), CorruptFileError, "sideways"),
        (lambda f: rewrite(f, reshape), CorruptFileError, "has shape"),
        (lambda f: rewrite(f, flip), CorruptFileError, "not those that were saved"),
        (lambda f: consistent(f, drop), CorruptFileError, f"'{KEY}' is missing"),
        (lambda f: consistent(f, add), CorruptFileError, "sideways"),
        (lambda f: consistent(f, reshape), MismatchError, "another size"),
        (lambda f: consistent(f, poison), CorruptFileError, "NaN"),
        (lambda f: (f / "unipetl.safetensors").write_bytes(b"\x00" * 40), CorruptFileError, "no readable safetensors"),
        (lambda f: (f / "unipetl.safetensors").unlink(), CorruptFileError, "save is incomplete"),
        (lambda f: (f / "unipetl.json").unlink(), StorageError, "holds no unipetl.json"),
        (lambda f: (f / "unipetl.json").write_text('{"format": "unip'), CorruptFileError, "no readable JSON"),
        (lambda f: (f / "unipetl.json").write_bytes(b"\xff\xfe\x00"), CorruptFileError, "no readable JSON"),
        (lambda f: (f / "unipetl.json").write_text("[]"), MismatchError, "not the description"),
        (lambda f: describe(f, lambda d: d.update(format_version=99)), MismatchError, "Install a newer unipetl"),
        (lambda f: describe(f, lambda d: d.pop("base")), CorruptFileError, "'base' is missing"),
    ],
)


@DAMAGE
def test_damage_is_named_and_the_model_stays_bare(tmp_path, damage, error, message):
    _, folder = saved(tmp_path)
    damage(folder)
    twin = build("bart")
    before, flags = logits(twin), [p.requires_grad for p in twin.parameters()]
    keys = list(twin.state_dict())
    with pytest.raises(error, match=message):
        unipetl.load(twin, folder)
    assert torch.equal(logits(twin), before)
    assert [p.requires_grad for p in twin.parameters()] == flags
    assert list(twin.state_dict()) == keys
    assert unipetl.attachments(twin) == ()


@DAMAGE
@pytest.mark.parametrize("old", [False, True])
def test_damage_is_noticed_by_reload_too_and_no_value_changes(tmp_path, damage, error, message, old):
    """``old``: saved before descriptions had a XXH128."""
    model, folder = saved(tmp_path)
    if old:
        describe(folder, lambda data: data.pop("xxh128"))
    with torch.no_grad():
        for values in unipetl.attachments(model)[0].tensors().values():
            values.add_(0.25)
    before = logits(model)
    damage(folder)
    with pytest.raises(error, match=message):
        reload(model, folder)
    assert torch.equal(logits(model), before)


def test_reload_takes_the_quick_checksum_where_it_fits_and_the_thorough_one_elsewhere(tmp_path, monkeypatch):
    model, folder = saved(tmp_path)
    asked = []
    real = saved_tensors.hashlib.sha256
    monkeypatch.setattr(saved_tensors.hashlib, "sha256", lambda data=b"": asked.append(len(data)) or real(data))
    size = (folder / "unipetl.safetensors").stat().st_size
    reload(model, folder)
    assert size not in asked
    for change in (
        lambda data: data.pop("xxh128"),  # saved by an older version
        lambda data: data.update(xxh128="0" * 32),
        lambda data: data.update(xxh128=["no checksum"]),
    ):
        describe(folder, change)
        reload(model, folder)
        assert asked.count(size) == 1
        asked.clear()
    unipetl.load(build("bart"), folder)
    assert size in asked


def test_files_too_large_for_one_glance_are_checked_alike(tmp_path, monkeypatch):
    model, folder = saved(tmp_path)
    monkeypatch.setattr(saved_tensors, "_AT_ONCE", 0)
    reload(model, folder)
    describe(folder, lambda data: data.pop("xxh128"))
    reload(model, folder)
    rewrite(folder, flip)
    with pytest.raises(CorruptFileError, match="not those that were saved"):
        reload(model, folder)


@pytest.mark.parametrize("crash_at", [None, 2])
def test_a_folder_that_is_saved_while_it_is_read_is_read_as_it_becomes(tmp_path, monkeypatch, crash_at):
    model, folder = saved(tmp_path)
    twin = build("bart")
    unipetl.load(twin, folder)
    with torch.no_grad():
        for values in unipetl.attachments(model)[0].tensors().values():
            values.add_(0.25)
    real, begun = reading.content, []

    def meanwhile(*settings):
        if not begun:  # the description has been read, the tensors have not
            begun.append(True)
            unipetl.save(model, folder)
            if crash_at:  # the last renaming has not happened yet
                (folder / "unipetl.json").replace(folder / ".unipetl.json.next")
                (folder / "unipetl.json").write_text(text)
        return real(*settings)

    text = (folder / "unipetl.json").read_text()
    monkeypatch.setattr(reading, "content", meanwhile)
    reload(twin, folder)
    assert begun
    assert torch.equal(logits(twin), logits(model))


def test_nonfinite_values_load_when_asked(tmp_path):
    _, folder = saved(tmp_path)
    consistent(folder, poison)
    attachment = unipetl.load(build("bart"), folder, allow_nonfinite=True)
    assert torch.isnan(attachment.tensors()[KEY]).any()


# ------------------------------------------------------------------------------------------------ other bases


def test_another_base_of_the_same_shape_is_refused_unless_overruled(tmp_path):
    _, folder = saved(tmp_path)
    with pytest.raises(MismatchError, match="other weights"):
        unipetl.load(build("bart", seed=1), folder)
    unipetl.load(build("bart", seed=1), folder, allow_other_base=True)


def test_a_base_with_fewer_layers_is_refused(tmp_path):
    _, folder = saved(tmp_path)
    with pytest.raises((CorruptFileError, MismatchError), match=r"belongs nowhere|other names or shapes"):
        unipetl.load(build("bart", encoder_layers=1), folder)


def test_a_base_of_another_kind_is_named(tmp_path):
    _, folder = saved(tmp_path, method="lora(rank=2)")
    with pytest.raises(MismatchError, match=r"another base: a BartFor.*\(bart\), and this is a Roberta.*\(roberta\)"):
        unipetl.load(build("roberta"), folder)


def test_a_base_with_another_number_of_labels_is_told_the_right_one(tmp_path):
    model = build("roberta", num_labels=3)
    unipetl.attach(model, "lora(rank=2)")
    unipetl.save(model, tmp_path)
    with pytest.raises(MismatchError, match=r"trained for 3 outputs: load the base with num_labels=3\."):
        unipetl.load(build("roberta", num_labels=2), tmp_path)
    with pytest.raises(MismatchError, match="saved for a RobertaForSequenceClassification of another size"):
        unipetl.load(build("roberta", hidden_size=8), tmp_path)


def test_the_same_checkpoint_in_bfloat16_is_the_same_base(tmp_path):
    _, folder = saved(tmp_path)
    unipetl.load(build("bart", dtype=torch.bfloat16), folder)


def test_a_base_that_another_attachment_trains_is_still_the_same_base(tmp_path):
    _, folder = saved(tmp_path, method="lora(rank=2)")
    twin = build("bart")
    other = unipetl.attach(twin, "bitfit", name="biases")
    with torch.no_grad():
        for values in other.tensors().values():
            values.add_(1.0)
    unipetl.load(twin, folder)


def test_an_untrained_head_is_part_of_the_base(tmp_path):
    model = build("roberta")
    unipetl.attach(model, "lora(rank=2)", train_head=False)
    unipetl.save(model, tmp_path)
    other = build("roberta")
    with torch.no_grad():
        other.classifier.out_proj.weight.add_(0.5)
    with pytest.raises(MismatchError, match="head"):
        unipetl.load(other, tmp_path)


# ------------------------------------------------------------------------------------------------- interrupted


@pytest.mark.parametrize("crash_at", ["first", "tensors", "description"])
def test_a_crash_leaves_the_old_save_or_the_new_one(tmp_path, monkeypatch, crash_at):
    model, folder = saved(tmp_path)
    old = logits(model)
    with torch.no_grad():
        for values in unipetl.attachments(model)[0].tensors().values():
            values.add_(0.25)
    new = logits(model)
    real, calls = os.replace, []
    last = {"first": 0, "tensors": 1, "description": 2}[crash_at]

    def crash(self, target):
        if len(calls) == last:
            raise KeyboardInterrupt
        calls.append(target)
        real(self, target)

    monkeypatch.setattr("pathlib.Path.replace", crash)
    with pytest.raises(KeyboardInterrupt):
        unipetl.save(model, folder)
    monkeypatch.undo()
    twin = build("bart")
    unipetl.load(twin, folder)
    assert torch.equal(logits(twin), new if crash_at == "description" else old)


def test_a_mix_of_two_saves_never_loads(tmp_path):
    model, folder = saved(tmp_path)
    with torch.no_grad():
        for values in unipetl.attachments(model)[0].tensors().values():
            values.add_(0.25)
    other = unipetl.save(model, tmp_path / "other")
    (other / "unipetl.safetensors").replace(folder / "unipetl.safetensors")
    with pytest.raises(CorruptFileError, match="not those that were saved"):
        unipetl.load(build("bart"), folder)


def test_a_disk_that_refuses_is_an_error_and_leaves_nothing_behind(tmp_path, monkeypatch):
    model = trained()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(StorageError, match="No space left"):
        unipetl.save(model, tmp_path / "adapter")
    assert not list((tmp_path / "adapter").iterdir())


def test_a_file_in_the_folder_s_place_is_an_error(tmp_path):
    (tmp_path / "adapter").write_text("I was here first")
    with pytest.raises(StorageError, match="cannot write"):
        unipetl.save(trained(), tmp_path / "adapter")
    with pytest.raises(StorageError, match="is no folder"):
        unipetl.load(build("bart"), tmp_path / "adapter")


def test_saving_needs_to_know_which(tmp_path):
    model = build("bart")
    with pytest.raises(AttachError, match="has none"):
        unipetl.save(model, tmp_path)
    unipetl.attach(model, "lora(rank=2)", name="first")
    unipetl.attach(model, "ia3", name="second")
    with pytest.raises(AttachError, match="'first', 'second'"):
        unipetl.save(model, tmp_path)
    with pytest.raises(AttachError, match="Did you mean 'first'"):
        unipetl.save(model, tmp_path, name="frist")


def test_a_changed_description_is_noticed(tmp_path):
    _, folder = saved(tmp_path)
    describe(folder, lambda data: data["method"]["modifications"][1].update(composition={"add": {"scale": 5.0}}))
    with pytest.raises(CorruptFileError, match="method, seed or head"):
        unipetl.load(build("bart"), folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(method={}),
        lambda data: data["method"].update(modifications=[{}]),
        lambda data: data["tensors"].update({KEY: None}),
        lambda data: data.update(train_head="false"),
    ],
)
def test_a_senseless_description_is_an_error_of_ours(tmp_path, change):
    _, folder = saved(tmp_path)
    describe(folder, change)
    with pytest.raises(CorruptFileError):
        unipetl.load(build("bart"), folder)


def test_a_base_without_a_count_is_told_as_another_base(tmp_path):
    _, folder = saved(tmp_path)
    describe(folder, lambda data: data.update(base={}))
    with pytest.raises(MismatchError, match=r"another base.*\? parameters"):
        unipetl.load(build("bart"), folder)
