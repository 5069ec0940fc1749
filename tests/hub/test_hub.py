"""Pushing to the hub and loading from it, against a hub on this machine; nothing else is asked or fetched."""

from __future__ import annotations

import ast
import re

import huggingface_hub.constants
import pytest
import yaml

import unipetl
from hub.fake_hub import commit_of
from unipetl.errors import CorruptFileError, DownloadError, MismatchError, StorageError, UploadError
from unipetl.hub.card import Facts, card
from unipetl.hub.fetching import is_hub_model, is_repository
from unipetl.saved import read
from unipetl.testing import batch, build
from unipetl.testing.compare import outputs, same, scatter

TOKEN = "hf_right"


@pytest.fixture
def pushed(hub):
    """A model whose attachment has been pushed, and a bare twin."""
    model = build("bert")
    scatter(unipetl.attach(model, "lora(rank=2)", name="mine"))
    hub.address_of_push = unipetl.push_to_hub(model, "user/first", token=TOKEN, base_model="org/base")
    return model, build("bert")


def card_of(hub, repository="user/first"):
    return hub.files(repository)["README.md"].decode()


def test_what_is_pushed_is_loaded(hub, pushed, tmp_path):
    model, other = pushed
    attachment = unipetl.load(other, "user/first", cache_dir=tmp_path / "c")
    assert attachment.name == "mine"
    same(outputs(other, batch(other)), outputs(model, batch(model)), "the pushed attachment")
    assert hub.address_of_push.startswith(f"{hub.address}/user/first/commit/")
    assert set(hub.files("user/first")) == {".gitattributes", "README.md", "unipetl.json", "unipetl.safetensors"}


def test_an_attachment_is_pushed_by_its_handle(hub):
    model = build("bert")
    unipetl.attach(model, "lora(rank=2)", name="a", train_head=False)
    handle = unipetl.attach(model, "ia3", name="b", train_head=False)
    unipetl.push_to_hub(handle, "user/b", token=TOKEN)
    assert unipetl.load(build("bert"), "user/b").name == "b"


def test_nothing_but_our_two_files_is_fetched(hub, pushed, tmp_path):
    hub.files("user/first").update({"pytorch_model.bin": b"a pickle", "code.py": b"raise SystemExit"})
    hub.asked.clear()
    unipetl.load(pushed[1], "user/first", cache_dir=tmp_path / "c")
    fetched = {path.rpartition("/")[2] for method, path in hub.asked if "/resolve/" in path}
    assert fetched == {"unipetl.json", "unipetl.safetensors"}
    found = {one.name for one in (tmp_path / "c").rglob("*") if one.is_symlink() or one.suffix in (".bin", ".py")}
    assert found <= {"unipetl.json", "unipetl.safetensors"}


def test_a_revision_is_a_branch_or_a_commit(hub, pushed, tmp_path):
    model, other = pushed
    first = outputs(model, batch(model))
    commit = commit_of(hub.files("user/first"))
    scatter(unipetl.attachments(model)[0], seed=5)
    unipetl.push_to_hub(model, "user/first", token=TOKEN, revision="next")
    unipetl.load(other, "user/first", revision=commit, cache_dir=tmp_path / "c").detach()
    unipetl.load(other, "user/first", revision="next", cache_dir=tmp_path / "c")
    same(outputs(other, batch(other)), outputs(model, batch(model)), "the branch")
    unipetl.detach(other)
    unipetl.load(other, "user/first", cache_dir=tmp_path / "c")
    same(outputs(other, batch(other)), first, "main")


def test_without_a_network_the_cache_serves(hub, pushed, tmp_path):
    model, other = pushed
    unipetl.load(other, "user/first", cache_dir=tmp_path / "c").detach()
    hub.down = True
    unipetl.load(other, "user/first", cache_dir=tmp_path / "c").detach()
    hub.asked.clear()
    unipetl.load(other, "user/first", cache_dir=tmp_path / "c", local_files_only=True)
    assert hub.asked == []
    same(outputs(other, batch(other)), outputs(model, batch(model)), "from the cache")


def test_in_offline_mode_nobody_is_asked(hub, pushed, tmp_path, monkeypatch):
    unipetl.load(pushed[1], "user/first", cache_dir=tmp_path / "c").detach()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    unipetl.load(pushed[1], "user/first", cache_dir=tmp_path / "c").detach()
    with pytest.raises(DownloadError, match="not in the hub's cache"):
        unipetl.load(pushed[1], "user/first", cache_dir=tmp_path / "empty")
    with pytest.raises(UploadError, match="offline mode"):
        unipetl.push_to_hub(pushed[0], "user/first", token=TOKEN)
    assert hub.asked == []


def test_a_local_folder_wins(hub, pushed, tmp_path, monkeypatch):
    model, other = pushed
    monkeypatch.chdir(tmp_path)
    scatter(unipetl.attachments(model)[0], seed=5)
    unipetl.save(model, "user/first")
    hub.asked.clear()
    unipetl.load(other, "user/first")
    assert hub.asked == []
    same(outputs(other, batch(other)), outputs(model, batch(model)), "the local one")
    unipetl.detach(other)
    with pytest.raises(StorageError, match="is a local folder"):
        unipetl.load(other, "user/first", revision="main")


def test_a_private_repository_needs_the_token(hub, tmp_path):
    model, other = build("bert"), build("bert")
    unipetl.attach(model, "lora(rank=2)")
    unipetl.push_to_hub(model, "user/secret", token=TOKEN, private=True)
    with pytest.raises(DownloadError, match="shows it to its owner alone"):
        unipetl.load(other, "user/secret", cache_dir=tmp_path / "c", token=False)
    unipetl.load(other, "user/secret", cache_dir=tmp_path / "c", token=TOKEN)


@pytest.mark.parametrize(
    ("repository", "settings", "words"),
    [
        ("user/none", {}, "is no folder here, and the hub has no such repository"),
        ("user/first", {"revision": "nope"}, "has no revision 'nope'"),
        ("user/first", {"local_files_only": True}, "not in the hub's cache, and local_files_only"),
        ("user/first", {"down": True}, "the hub cannot be reached"),
        ("user/na--me", {}, "is no name of a repository"),
    ],
)
def test_what_cannot_be_fetched_is_said_in_a_sentence(hub, pushed, tmp_path, repository, settings, words):
    hub.down = settings.pop("down", False)
    other = pushed[1]
    with pytest.raises(DownloadError, match=words):
        unipetl.load(other, repository, cache_dir=tmp_path / "other", **settings)
    assert unipetl.attachments(other) == ()


def test_a_repository_of_something_else_is_recognised(hub, pushed, tmp_path):
    hub.repositories["user/peft"] = {"main": {"adapter_config.json": b"{}"}}
    with pytest.raises(StorageError, match=r"has no unipetl\.json"):
        unipetl.load(pushed[1], "user/peft", cache_dir=tmp_path / "c")


def test_a_damaged_or_foreign_attachment_is_refused_as_from_a_folder(hub, pushed, tmp_path):
    with pytest.raises(MismatchError):
        unipetl.load(build("bert", seed=1), "user/first", cache_dir=tmp_path / "c")
    content = bytearray(hub.files("user/first")["unipetl.safetensors"])
    content[-1] ^= 1
    hub.files("user/first")["unipetl.safetensors"] = bytes(content)
    with pytest.raises(CorruptFileError):
        unipetl.load(pushed[1], "user/first", cache_dir=tmp_path / "d")


def test_a_push_that_is_refused_says_why(hub):
    model = build("bert")
    unipetl.attach(model, "lora(rank=2)")
    with pytest.raises(UploadError, match=r"hf auth login.*Nothing here has changed"):
        unipetl.push_to_hub(model, "user/first", token="hf_wrong")
    with pytest.raises(UploadError, match="is no name of a repository"):
        unipetl.push_to_hub(model, "user/fi--rst", token=TOKEN)
    assert hub.repositories == {}


def test_a_token_is_never_shown(hub, pushed, tmp_path):
    model, other = pushed
    unipetl.push_to_hub(model, "user/second", token=f"{TOKEN}\n")  # as a file has it
    for token in ("hf_se\ncret", "hf_se\u2013cret", "hf_se cret", " "):
        with pytest.raises(UploadError, match="the token is no token") as first:
            unipetl.push_to_hub(model, "user/third", token=token)
        with pytest.raises(DownloadError, match="the token is no token") as second:
            unipetl.load(other, "user/second", token=token, cache_dir=tmp_path / "c")
        assert "hf_se" not in f"{first.value}{second.value}"


def test_options_are_written_so_that_python_reads_them(hub, pushed, tmp_path):
    options = {"note": "it's", "quoted": 'a "b" \\ ö', "numbers": [1, 0.5, None, True], "inner": {"a": -1}}
    saved = read(unipetl.save(pushed[0], tmp_path / "a"))
    text = card(saved, "user/x", Facts(task="sentiment", own_model=True, options=options))
    written = re.search(r"\.configure\((.*)\)\.prepare", text).group(1)
    assert ast.literal_eval(written) == options
    assert 'get_task("sentiment")' in text


def test_the_card_says_what_it_is_and_its_snippet_works(hub, pushed, tmp_path):
    model, _ = pushed
    card = card_of(hub)
    data = yaml.safe_load(card.split("---")[1])
    assert data == {
        "library_name": "unipetl",
        "tags": ["unipetl", "parameter-efficient", "low-rank"],
        "base_model": "org/base",
        "base_model_relation": "adapter",
    }
    assert r"| W\_up W\_down x | parallel | attention.query |" in card
    assert f"{sum(one.numel() for one in unipetl.attachments(model)[0].tensors().values()):,}" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
    build("bert").save_pretrained(tmp_path / "base")
    namespace: dict[str, object] = {}
    exec(code.replace('"org/base"', repr(str(tmp_path / "base"))), namespace)  # noqa: S102
    again = namespace["model"]
    same(outputs(again, batch(again)), outputs(model, batch(model)), "what the card's snippet loads")


def test_a_card_without_a_base_on_the_hub_says_so(hub, tmp_path):
    build("bert").save_pretrained(tmp_path)
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(tmp_path)
    unipetl.attach(model, "bitfit")
    unipetl.push_to_hub(model, "user/local", token=TOKEN)
    card = card_of(hub, "user/local")
    assert "base_model" not in card
    assert str(tmp_path) not in card
    assert "# the base it was trained on" in card
    assert "Trained in place: bias." in card


@pytest.mark.parametrize(
    ("name", "repository", "model"),
    [("user/name", True, True), ("gpt2", False, True), ("./user/name", False, False), ("/user/name", False, False),
     ("~/name", False, False), ("a/b/c", False, False), ("", False, False), ("user/", False, False)],
)  # fmt: skip
def test_what_can_be_a_name_on_the_hub(name, repository, model):
    assert is_repository(name) is repository
    assert is_hub_model(name) is model
