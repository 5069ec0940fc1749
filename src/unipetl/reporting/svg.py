"""Matplotlib's SVG, made part of a page: colours follow its theme, text is text, and no style stands in the elements.

Styles become classes, so that the page's security policy can forbid inline styles; colours of the palette become
variables of the page's style sheet.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The series' colours on a light page; the page's style sheet has the same names for both themes.
SERIES = (
    *("#1f6fb4", "#b8500c", "#1a7f37", "#b3261e", "#7a4fb5"),
    *("#8a5a44", "#b0358a", "#5f6b7a", "#76730a", "#00757f"),
)
INK, QUIET, GRID, PAPER = "#1f2328", "#59636e", "#d8dee4", "#fefefe"
VARIABLES: dict[str, str] = {
    INK: "var(--ink)",
    QUIET: "var(--quiet)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{color: f"var(--s{number})" for number, color in enumerate(SERIES)},
}
_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]*)\)")


class Drawings:
    """Turns figures into inline SVG and collects the classes that they need.

    Example::

        drawings = Drawings()
        svg = drawings.add(figure, "scores", "Scores against parameters.")
        style = drawings.rules()
    """

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}

    def add(self, figure: Figure, key: str, alternative: str, tips: Mapping[str, str] | None = None) -> str:
        """Return a figure as an ``<svg>`` element.

        Args:
            figure: what to draw.
            key: a name that no other figure of the page has; the element's ids begin with it.
            alternative: what the figure shows, for those who do not see it.
            tips: an artist's gid -> the text shown when a pointer rests on it.
        """
        root = ElementTree.fromstring(_drawn(figure, key))
        for parent in list(root.iter()):
            for child in list(parent):
                if child.tag.endswith(("metadata", "style")):
                    parent.remove(child)
        for element in root.iter():
            self._dress(element, key, tips or {})
        for name in ("width", "height", "version"):
            root.attrib.pop(name, None)
        root.set("role", "img")
        root.set("aria-label", alternative)
        ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
        return ElementTree.tostring(root, encoding="unicode")

    def rules(self) -> str:
        """Return the style sheet's rules of everything that was added."""
        return "\n".join(f".{name}{{{style}}}" for style, name in self._classes.items())

    def _dress(self, element: ElementTree.Element, key: str, tips: Mapping[str, str]) -> None:
        style = element.attrib.pop("style", "")
        if style:
            element.set("class", self._class(style))
        gid = element.attrib.pop("id", None)
        if gid is not None:
            if gid in tips:
                title = ElementTree.Element(f"{_SVG}title")
                title.text = tips[gid]
                element.insert(0, title)
            if element.tag != f"{_SVG}g" and element.tag != f"{_SVG}svg":  # what is referred to: clips and markers
                element.set("id", f"{key}-{gid}")
        if _XLINK in element.attrib:
            element.set("href", f"#{key}-{element.attrib.pop(_XLINK).removeprefix('#')}")
        clip = element.attrib.get("clip-path")
        if clip:
            element.set("clip-path", _REFERENCE.sub(rf"url(#{key}-\1)", clip))

    def _class(self, style: str) -> str:
        parts = (part.strip().partition(":") for part in style.split(";") if part.strip())
        said = ";".join(f"{name.strip()}:{_themed(value.strip())}" for name, _, value in parts if name != "font-family")
        return self._classes.setdefault(said, f"f{len(self._classes)}")


def _themed(value: str) -> str:
    return VARIABLES.get(value.lower(), value)


def _drawn(figure: Figure, key: str) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return content.getvalue()
