"""Sphinx's configuration of the documentation site."""

import importlib.util
import inspect
import os
import re
import sys
import warnings
from pathlib import Path

import matplotlib as mpl

import fastoptim

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

project = "fastoptim"
author = "The fastoptim developers"
copyright = "The fastoptim developers, BSD 3-Clause license"  # noqa: A001
version = release = fastoptim.__version__

extensions = [
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Single backticks in docstrings are references, and `make docs` ends with an error if one leads nowhere.
default_role = "py:obj"
nitpicky = True
# The docstring of `Optimizer` lists these attributes, and numpydoc makes no targets of them.
nitpick_ignore = [("py:obj", name) for name in ("averaged", "iter", "measure", "rule", "shared", "skipped", "slots")]
autodoc_typehints = "none"
autodoc_mock_imports = [library for library in ("torch", "mpi4py") if importlib.util.find_spec(library) is None]
autosummary_ignore_module_all = False
numpydoc_show_class_members = False

smartquotes = False  # Quotes in prose are often those of Python.

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# `make docs GALLERY=0` shows the scripts of the gallery without running them.
MISSING = [
    script
    for library, script in {"torch": "torch_model", "mpi4py": "mpi_mnist"}.items()
    if importlib.util.find_spec(library) is None
]
"""The scripts of the gallery that need a library which is not installed."""

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "_order.Order",
    "ignore_pattern": rf"^({'|'.join(['pictures', *MISSING])})\.py$",
    # Pages offer the module that all scripts import, and no notebooks, in which its command line does not work.
    "copyfile_regex": r"pictures\.py$",
    "notebook_extensions": set(),
    "plot_gallery": os.environ.get("GALLERY", "1") != "0",
    "abort_on_example_error": True,
    "matplotlib_animations": (True, "jshtml"),
    "show_memory": False,
    "write_computation_times": False,
    "remove_config_comments": True,
}
# The gallery draws with Agg, whose figures cannot be shown.
warnings.filterwarnings("ignore", category=UserWarning, message="FigureCanvasAgg is non-interactive")
# Text of pictures on Chinese pages is measured without a font that has it, and shown in the reader's.
warnings.filterwarnings("ignore", category=UserWarning, message="Glyph .* missing from font")

# The pictures of pages, in the style of the gallery.
plot_rcparams = dict(
    mpl.rc_params_from_file(DOCS.parent / "examples" / "fastoptim.mplstyle", use_default_template=False)
)
plot_apply_rcparams = True
plot_pre_code = (DOCS / "_paths.py").read_text(encoding="utf-8")
plot_formats = ["svg"]
plot_include_source = False
plot_html_show_formats = False
plot_html_show_source_link = False

html_theme = "pydata_sphinx_theme"
html_title = "fastoptim"
# MathJax is a part of the site, which shows its formulas without a network.
mathjax_path = "mathjax/tex-chtml.js"
html_static_path = ["_static", str(Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static")]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_sidebars = {name: [] for name in ("index", "get-started", "from-the-notes", "faq", "benchmarks", "changelog")}
html_theme_options = {
    "logo": {"text": "fastoptim"},
    "github_url": "https://github.com/fastoptim/fastoptim",
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["language", "search-button"],
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}


def show_constructor(_app, what, _name, obj, _options, _signature, _annotation):
    """Show the arguments of a class as those of `__init__`, where autodoc shows those of `__new__`."""
    if what != "class":
        return None
    _self, *arguments = inspect.signature(obj.__init__).parameters.values()
    plain = [argument.replace(annotation=inspect.Parameter.empty) for argument in arguments]
    return str(inspect.Signature(plain)), None


def escape_initials(_app, _what, _name, _obj, _options, lines):
    """Keep docutils from reading the initials of an author, at the start of a line, as the number of a list."""
    lines[:] = [re.sub(r"^(?=[A-Z]\. )", r"\\", line) for line in lines]


CHINESE = {
    "Section Navigation": "本节目录",
    "On this page": "本页目录",
    "previous": "上一页",
    "next": "下一页",
    "Collapse Sidebar": "收起侧栏",
    "Search": "搜索",
    "previous page": "上一页",
    "next page": "下一页",
}
"""What the theme says around a page."""


def speak_chinese(_app, pagename, _template, context, _doctree):
    """Tell browsers, which choose their fonts by it, that a page is Chinese, and say what surrounds it in Chinese."""
    if pagename.startswith("zh/"):
        context["language"] = "zh-CN"
        context["_"] = context["gettext"] = lambda text: CHINESE.get(text, text)


def offer_pictures(_app, page, source):
    """Add the module that the scripts of the gallery import to their downloads."""
    if page.startswith("gallery/") and page != "gallery/index":
        source[0] += "\nThe script imports :download:`pictures.py`: save both in one folder.\n"


def setup(app):
    """Connect the functions above; docstrings are changed before numpydoc reads them."""
    app.connect("source-read", offer_pictures)
    app.connect("autodoc-process-signature", show_constructor)
    app.connect("autodoc-process-docstring", escape_initials, priority=400)
    app.connect("html-page-context", speak_chinese)
