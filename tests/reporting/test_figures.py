"""Figures: what is drawn where, in colours that the page's themes have, without styles in the elements."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from xml.etree import ElementTree

import pytest

from reporting.made import write_comparison
from unipetl.reporting import figures, gather
from unipetl.reporting.svg import GRID, INK, PAPER, QUIET, SERIES, VARIABLES, Drawings


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    sizes = {"LoRA": 5_000, "adapter": 5_100}
    return gather([write_comparison(tmp_path_factory.mktemp("figures"), sizes=sizes)])


def style_sheet():
    return files("unipetl.reporting").joinpath("templates", "page.css").read_text()


def themes():
    """The colours of the light page and of the dark one, by the name of their variable."""
    light, dark = re.findall(r":root \{(.*?)\}", style_sheet(), re.DOTALL)
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", part)) for part in (light, dark)]


def contrast(first, second):
    """The contrast ratio of two colours (WCAG 2.2, relative luminance)."""

    def luminance(color):
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def faint(theme):
    """Colours of a theme that do not stand out enough: text needs 4.5, lines and markers 3."""
    wanted = {"ink": 4.5, "quiet": 4.5, "link": 4.5} | {f"s{number}": 4.5 for number in range(len(SERIES))}
    backgrounds = ("paper", "band")
    return [
        name for name, ratio in wanted.items() for back in backgrounds if contrast(theme[name], theme[back]) < ratio
    ]


def test_colours_stand_out_in_light_and_dark():
    light, dark = themes()
    assert light.keys() == dark.keys()
    assert faint(light) == faint(dark) == []
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert "ink" in faint({**light, "ink": "#aaaaaa"})


def test_the_figures_colours_are_the_light_pages():
    light, _ = themes()
    assert [light[f"s{number}"] for number in range(len(SERIES))] == list(SERIES)
    assert [light[name] for name in ("ink", "quiet", "grid", "paper")] == [INK, QUIET, GRID, PAPER]


def test_points_lines_and_bars_are_where_the_scores_are(found):
    picture = figures.scores(found, found.columns[0])
    axes = picture.figure.axes[0]
    lines = {line.get_gid(): line for line in axes.lines if (line.get_gid() or "").startswith(("point", "line"))}
    assert {gid: float(line.get_ydata()[0]) for gid, line in lines.items()} == {
        "point1": 84.5, "point2": 87.5, "line3": 84.5, "line4": 89.5,
    }  # fmt: skip
    assert axes.get_xscale() == "log"
    assert lines["line3"].get_linestyle() == "--"
    assert lines["line4"].get_linestyle() == ":"
    assert len(axes.containers) == 2
    assert "the best is adapter with 87.50" in picture.alternative
    assert picture.tips["point1"] == "1. LoRA: 84.50 ± 0.71 with 5,000 parameters"


def test_points_that_would_overlap_stand_side_by_side_around_their_middle():
    shares = [0.1, 6.0, 6.0, 6.1, 6.0]
    places = figures.apart(shares)
    assert places[0] == pytest.approx(0.1)
    assert len({round(place, 3) for place in places}) == 5
    assert max(places[1:]) / min(places[1:]) < 1.5
    assert figures.apart([0.1, 1.0, 10.0]) == pytest.approx([0.1, 1.0, 10.0])
    assert figures.apart([]) == []


def test_curves_are_means_over_the_seeds(found):
    picture = figures.curves(found, found.columns[0], "loss")
    axes = picture.figure.axes[0]
    line = next(line for line in axes.lines if line.get_gid() == "curve1")
    assert list(line.get_xdata()) == [1, 2, 3, 4, 5]
    assert list(line.get_ydata()) == pytest.approx([(1 / (n + 1) + 1 / (n + 2)) / 2 for n in range(1, 6)])
    assert figures.curves(found, found.columns[0], "nothing_logged") is None
    steps = [step for step, _ in figures.series(found.columns[0].experiments[0], "eval_accuracy")]
    assert steps == [2, 5]


def test_methods_look_different(found):
    one = found.columns[0].experiments[0]
    many = tuple(replace(one, label=str(number)) for number in range(30))
    column = replace(found.columns[0], experiments=many)
    crowd = replace(found, columns=(column,))
    looks = [figures.look(crowd, one) for one in many]
    assert len({(look.color, look.marker) for look in looks}) == 30
    assert len({(look.color, look.line) for look in looks}) == 30


def test_a_drawing_has_classes_and_variables_instead_of_styles(found):
    drawings = Drawings()
    picture = figures.scores(found, found.columns[0])
    root = ElementTree.fromstring(drawings.add(picture.figure, "one", 'a "figure" <b>', picture.tips))
    assert root.get("aria-label") == 'a "figure" <b>'
    assert root.get("width") is None
    attributes = [name for element in root.iter() for name in element.attrib]
    assert "style" not in attributes
    rules = drawings.rules()
    assert set(re.findall(r"#[0-9a-f]{6}", rules)) <= {"#000000"}
    assert {"var(--ink)", "var(--grid)", "var(--s0)"} <= set(re.findall(r"var\(--\w+\)", rules))
    titles = [element.text for element in root.iter() if element.tag.endswith("title")]
    assert sorted(titles) == sorted(picture.tips.values())
    assert set(VARIABLES) == {INK, QUIET, GRID, PAPER, *SERIES}
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert all(one.startswith("one-") for one in ids)
    targets = [element.get("href") for element in root.iter() if element.get("href")]
    assert {target[1:] for target in targets} <= set(ids)
