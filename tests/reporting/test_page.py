"""The page: nothing is loaded, nothing from a file is markup, the security policy names exactly what is inside."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from html.parser import HTMLParser

import pytest
import yaml

from cli.calling import data
from reporting.made import BASE, write_comparison, write_run
from unipetl import parse
from unipetl.experiment.recipe import Recipe
from unipetl.reporting import gather, to_html
from unipetl.reporting.page import command

HOSTILE = "<script>alert(1)</script>\"'{{ 7 * 7 }}&amp;"
LOADING = ("src", "srcset", "action", "formaction", "data", "poster", "background", "ping", "manifest")


class Elements(HTMLParser):
    """Every element with its attributes, and the text inside."""

    def __init__(self, page):
        super().__init__()
        self.found, self.inside, self.open = [], {}, None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open = tag

    def handle_data(self, text):
        self.inside.setdefault(self.open, []).append(text)


def problems(page):
    """What would load something, run something, or be refused by the page's own policy."""
    elements = Elements(page)
    found = []
    for tag, attributes in elements.found:
        for name, value in attributes.items():
            if name.startswith("on") or name == "style":
                found.append(f"{tag} has {name}")
            if name in LOADING or (name in ("href", "xlink:href") and not (value or "").startswith("#")):
                found.append(f"{tag} loads {value}")
        if tag in ("link", "img", "iframe", "object", "embed", "base", "form"):
            found.append(f"there is a {tag}")
    for tag in ("style", "script"):
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        if len(texts) != 1:
            found.append(f"{len(texts)} elements are {tag}")
        for text in texts:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            if f"{tag}-src 'sha256-{digest}'" not in page.replace("&#39;", "'"):
                found.append(f"the policy does not allow the {tag}")
            if "@import" in text or re.search(r"url\((?!#)", text) or "fetch(" in text:
                found.append(f"the {tag} loads something")
    if "default-src 'none'" not in page.replace("&#39;", "'"):
        found.append("the policy allows more")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    methods = {HOSTILE: "lora(rank=2)", "$full_1$": "full", "zero-shot": "none", "broken": "adapter"}
    scores = {("broken", 0): None}
    folder = write_comparison(
        tmp_path_factory.mktemp("page"),
        methods,
        scores=scores,
        tasks=("sst2", "mnli"),
        sizes={"$full_1$": BASE, "zero-shot": 0},
    )
    return to_html(gather([folder]))


def test_the_page_loads_nothing_and_runs_only_its_own_script(page):
    assert problems(page) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("<main>", "<main><img src='http://example.org/x.png'>", "there is a img"),
        ("<main>", "<main><script>alert(1)</script>", "2 elements are script"),
        ("<main>", "<main><p style='color: red'>", "p has style"),
        ("<main>", "<main><a onclick='x()'>", "a has onclick"),
        ('"use strict";', '"use strict"; fetch("x");', "the policy does not allow the script"),
        ("default-src &#39;none&#39;", "default-src *", "the policy allows more"),
    ],
)
def test_planted_faults_are_reported(page, old, new, problem):
    assert old in page
    assert problem in problems(page.replace(old, new, 1))


def test_a_hostile_name_is_text(page):
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;{{ 7 * 7 }}&amp;amp;" in page
    assert "it makes no &lt;sense&gt;" in page


def test_tables_have_captions_scopes_and_their_own_ids(page):
    elements = Elements(page).found
    tables = [attributes["id"] for tag, attributes in elements if tag == "table"]
    assert tables == ["overview", "task0", "task1", "places0", "places1", "failures", "environment"]
    assert [tag for tag, _ in elements].count("caption") == len(tables)
    assert all(attributes.get("scope") in ("col", "row", "rowgroup") for tag, attributes in elements if tag == "th")
    named = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(named) == len(set(named))
    ids = set(named)
    linked = [attributes["href"] for _, attributes in elements if "href" in attributes]
    assert all(one[1:] in ids for one in linked)


def test_figures_say_what_they_show(page):
    drawings = [attributes for tag, attributes in Elements(page).found if tag == "svg"]
    assert len(drawings) == 6
    assert all(one["role"] == "img" and len(one["aria-label"]) > 40 for one in drawings)
    assert "full_1$ reaches" in page


def test_the_page_is_the_same_every_time(tmp_path):
    folder = write_comparison(tmp_path)
    assert to_html(gather([folder])) == to_html(gather([folder]))


def test_a_page_of_failures_alone_is_a_page(tmp_path):
    scores = {(label, seed): None for label in ("LoRA", "adapter", "full", "zero-shot") for seed in (0, 1)}
    page = to_html(gather([write_comparison(tmp_path, scores=scores)]))
    assert problems(page) == []
    assert "8 failed" in page


def test_commands_make_the_same_experiment_again(tmp_path):
    recipes = [
        Recipe(task="sentiment", method="lora(rank=2)", training={"learning_rate": 1e-3, "logging_steps": 5}),
        Recipe(
            task="sst2", method="adapter(rank=3)", model="some model", limit=7, evaluation_limit=3, train_head=False,
            options={"max_length": 64}, training={"lr_scheduler_kwargs": {"power": 2.0}, "bf16": True},
        ),
        Recipe(task="sentiment", method="none", name="zero"),
    ]  # fmt: skip
    for number, recipe in enumerate(recipes):
        write_run(tmp_path / str(number), recipe, 3, score=80)
    found = gather([tmp_path / str(number) for number in range(len(recipes))])
    made = [command(one, "") for column in found.columns for one in column.experiments]
    hashes = set()
    for one in made:
        words = shlex.split(one.line)
        assert words[:2] == ["unipetl", "train"]
        resolved = data(*words[1:], "--dry-run")
        assert resolved["seeds"] == [3]
        hashes.add(Recipe(**resolved).hash())
    assert hashes == {recipe.hash() for recipe in recipes}


def test_a_method_that_is_no_text_comes_with_its_recipe(tmp_path):
    recipe = Recipe(task="sst2", method=parse("lora(rank=2)").plain())
    found = gather([write_run(tmp_path, recipe, 3, score=80)])
    one = command(found.columns[0].experiments[0], "")
    assert Recipe(**yaml.safe_load(one.recipe)).hash() == recipe.hash()
