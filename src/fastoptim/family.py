"""The table of optimizers, one line for each. It imports neither NumPy nor Numba, so that --help is fast."""

from typing import NamedTuple

__all__ = ["FAMILY", "NOTES_FIVE", "Member"]


class Member(NamedTuple):
    """What the table says about an optimizer; its class has the same name."""

    marker: str
    """Matplotlib's marker for its loss curve."""
    in_notes: bool = False
    """Whether it is one of the five that the notes compare and `fastoptim compare` trains by default."""


FAMILY = {
    "SGD": Member("o", in_notes=True),
    "Momentum": Member("x", in_notes=True),
    "AdaGrad": Member("s", in_notes=True),
    "Adam": Member("D", in_notes=True),
    "RMSprop": Member("v", in_notes=True),
    "Nesterov": Member("^"),
    "AdamW": Member("d"),
    "AMSGrad": Member("<"),
    "AdaMax": Member(">"),
    "NAdam": Member("p"),
    "RAdam": Member("P"),
    "AdaBelief": Member("*"),
    "Yogi": Member("h"),
    "Grams": Member("H"),
    "ADOPT": Member("X"),
    "AdEMAMix": Member("8"),
    "Adan": Member("_"),
    "AdaDelta": Member("1"),
    "LAMB": Member("2"),
    "LARS": Member("$L$"),
    "SignSGD": Member("3"),
    "Signum": Member("4"),
    "Lion": Member("+"),
    "Rprop": Member("|"),
    "ScheduleFreeSGD": Member("$0$"),
    "ScheduleFreeAdamW": Member("$W$"),
    "Prodigy": Member("$\\pi$"),
    "Muon": Member("$M$"),
    "Adafactor": Member("$F$"),
}

NOTES_FIVE = tuple(name for name, member in FAMILY.items() if member.in_notes)
