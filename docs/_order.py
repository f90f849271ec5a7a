"""The order of the gallery."""

__all__ = ["Order"]

FIRST = (
    "trajectories", "animation", "effective_step", "compare_mnist", "activations", "batch_norm", "overfitting",
    "groups", "sweep", "landscapes", "scale_invariant", "custom_rule", "schedules", "family", "physical_fit",
    "scipy_minimize", "automatic_gradients", "torch_model", "embedding", "low_precision",
)  # fmt: skip
"""The notes' topics, then what to choose, then other uses. A script that is not here comes last."""


class Order:
    """The key by which sphinx-gallery sorts the scripts of a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, path: str) -> tuple[int, str]:
        """Return the key of a script."""
        name = path.rpartition("/")[2].removesuffix(".py")
        return (FIRST.index(name) if name in FIRST else len(FIRST), name)

    def __repr__(self) -> str:
        return "Order"
