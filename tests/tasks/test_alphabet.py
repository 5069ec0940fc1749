from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from unipetl.errors import TaskError
from unipetl.tasks.alphabet import Alphabet

ALPHABET = Alphabet(letters={"a": 4, "b": 5}, phonemes={"æ": 4, "b": 5, "ː": 9})


def test_encodes_letters_between_start_and_end():
    assert ALPHABET.encode("ab") == [1, 4, 5, 2]
    assert ALPHABET.encode_target("bæː") == [1, 5, 4, 9, 2]


def test_decodes_phonemes_and_leaves_out_what_has_no_sound():
    assert ALPHABET.decode([1, 5, 4, 9, 2, 0, 0, -100, 77]) == "bæː"
    assert ALPHABET.batch_decode(np.array([[5, 2], [4, -100]])) == ["b", "æ"]


def test_target_round_trip():
    assert ALPHABET.decode(ALPHABET.encode_target("æbæ")) == "æbæ"


def test_a_foreign_letter_is_named():
    with pytest.raises(TaskError, match=r"'ab9é' has characters .* \['9', 'é'\]"):
        ALPHABET.encode("ab9é")


def test_knows_what_it_can_write():
    assert ALPHABET.spells("ba")
    assert not ALPHABET.spells("bæ")
    assert ALPHABET.sounds("bæ")
    assert not ALPHABET.sounds("ba")


def test_pads_inputs_with_zero_and_labels_with_minus_hundred():
    batch = ALPHABET.pad([{"input_ids": [1, 4, 2], "labels": [9, 2]}, {"input_ids": [1, 2], "labels": [4, 9, 2]}])
    assert batch["input_ids"].tolist() == [[1, 4, 2], [1, 2, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[9, 2, -100], [4, 9, 2]]
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.long


def test_pads_inputs_alone():
    assert set(ALPHABET.pad([{"input_ids": [1, 2]}])) == {"input_ids", "attention_mask"}


def test_saves_readable_json_and_reads_it_back(tmp_path):
    (path,) = ALPHABET.save_pretrained(tmp_path / "run")
    text = (tmp_path / "run" / "alphabet.json").read_text(encoding="utf-8")
    assert path == str(tmp_path / "run" / "alphabet.json")
    assert "ː" in text
    assert json.loads(text)["phonemes"]["ː"] == 9
    assert Alphabet.from_pretrained(tmp_path / "run") == ALPHABET


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"letters": {"a": 4}, "phonemes": 5}'])
def test_a_file_that_is_no_alphabet_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "alphabet.json").write_text(content)
    with pytest.raises(TaskError, match="cannot read an alphabet from"):
        Alphabet.from_pretrained(tmp_path)


@pytest.mark.parametrize("phonemes", [{"æ": 4, "b": 4}, {"æ": 2}])
def test_ids_that_cannot_be_told_apart_are_refused(phonemes):
    with pytest.raises(TaskError, match="must differ from each other and from 0 to 2"):
        Alphabet(letters={"a": 4}, phonemes=phonemes)
