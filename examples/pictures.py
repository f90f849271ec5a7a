"""What the examples share: their style, the options of their command lines, and where their pictures go."""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt

__all__ = ["setup", "show"]


def setup(doc, **defaults):
    """Set the style, and return the options of the command line: one for each keyword, and the folder for pictures."""
    style = Path(__file__).with_name("fastoptim.mplstyle")
    if style.exists():  # The downloads of the gallery lack it.
        plt.style.use(style)
    parser = argparse.ArgumentParser(description=doc.strip().partition("\n")[0])
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default: {default}")
    parser.add_argument("--output", type=Path, default=Path("comparison"), help="folder of the picture")
    return parser.parse_args()


def show(picture, options):
    """Write a figure or an animation into the folder of pictures, under the name of the script."""
    if "sphinx_gallery" in sys.modules:
        return  # It collects the figures of pyplot itself.
    options.output.mkdir(parents=True, exist_ok=True)
    animated = hasattr(picture, "new_frame_seq")
    path = options.output / Path(sys.argv[0]).with_suffix(".gif" if animated else ".png").name
    if animated:
        picture.save(path, "pillow")
    else:
        picture.savefig(path)
    print(f"wrote {path}")
