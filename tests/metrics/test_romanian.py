"""Every step of the paper's Romanian pipeline against lines worked out by hand from the scripts' rules."""

from __future__ import annotations

import pytest

from unipetl.metrics import romanian
from unipetl.metrics.romanian import (
    normalise_punctuation,
    normalise_romanian,
    prepare,
    remove_control_characters,
    remove_diacritics,
    replace_unicode_punctuation,
    tokenise,
)

CASES = [
    (replace_unicode_punctuation, "Preţ：５０％ “aşa”…", 'Preţ:50% "aşa"...'),
    (replace_unicode_punctuation, "o（paranteză）。 Apoi", "o(paranteză). Apoi"),
    (replace_unicode_punctuation, "n’a „rămas”", "n'a „rămas\""),
    (normalise_punctuation, "un om ( bătrân ) .", "un om (bătrân)."),
    (normalise_punctuation, "El a zis „da” , apoi «nu» .", 'El a zis "da" , apoi "nu" .'),
    (normalise_punctuation, "a – b — c", "a - b - c"),
    (normalise_punctuation, "10\u00a0000 de lei, 5 %", "10.000 de lei, 5%"),
    (normalise_punctuation, 'a zis "da," apoi', 'a zis "da", apoi'),
    (normalise_punctuation, 'a zis "nu." Apoi a plecat.', 'a zis "nu". Apoi a plecat.'),
    (normalise_punctuation, 'a zis "nu."', 'a zis "nu".'),
    (remove_control_characters, "a\u200bb\x07c\td", "a b c d"),
    (normalise_romanian, "Şi ţara, ŞŢ şţ", "Și țara, ȘȚ șț"),
    (remove_diacritics, "Ăă Ââ Îî Șș Țț é", "Aa Aa Ii Ss Tt é"),
    (
        tokenise,
        'Nu-i adevărat (încă)! A plătit 3,50 lei & "atât".',
        'Nu-i adevărat ( încă ) ! A plătit 3,50 lei & " atât " .',
    ),
    (tokenise, "S.U.A. au ales pe dl. Pop.", "S.U.A. au ales pe dl. Pop ."),
]


@pytest.mark.parametrize(("step", "line", "expected"), CASES, ids=[f"{c[0].__name__} {i}" for i, c in enumerate(CASES)])
def test_a_step_does_what_its_script_does(step, line, expected):
    assert step(line) == expected


def test_the_whole_pipeline():
    assert prepare("Şi “ţara” a zis: „da.”\u200b") == 'Si " tara " a zis : " da " .'


def test_the_order_matters():
    line = "Şi ţara"
    assert prepare(line) == "Si tara"
    assert normalise_romanian(remove_diacritics(line)) != "Si tara"
    assert romanian.STEPS.index(normalise_romanian) < romanian.STEPS.index(remove_diacritics)


def test_what_is_tokens_already_stays():
    line = 'El a zis " da " .'
    assert tokenise(line) == line
