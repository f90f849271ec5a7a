"""Progress bars: widgets in a notebook, and lines of text on standard error in a terminal."""

import sys
import warnings
from typing import Any

__all__ = ["in_notebook", "progress_bar"]


def in_notebook() -> bool:
    """Tell whether a kernel of Jupyter runs this process; tqdm asks the same."""
    # A shell that runs has been imported.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def progress_bar(**options: Any) -> Any:
    """Return a bar of ``tqdm.auto`` with these options, which is not shown where no one can see it move."""
    with warnings.catch_warnings():
        # In a notebook without ipywidgets tqdm warns, and the bar is text.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm(leave=False, disable=False if in_notebook() else None, **options)
