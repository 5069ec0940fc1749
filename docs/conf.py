"""Sphinx configuration: MyST Markdown, furo, warnings are errors (see `make docs`)."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "unipetl"
author = "The unipetl authors"
project_copyright = "The unipetl authors"
release = version = installed_version("unipetl")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"unipetl {release}"
