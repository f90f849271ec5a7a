"""Write bench/report.md and its charts from the last measurement: ``python -m bench.report [--quick]``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from . import notes
from .cases import irregular_updates, networks, updates
from .charts import CHARTS
from .frameworks import COMPILED
from .history import releases
from .peers import CEILING, LIBRARIES, OURS
from .processes import EMPTY, FULL
from .results import FOLDER, Measured, Results, duration, times_ours
from .targets import COLUMNS, judge

__all__ = ["main"]

HERE = Path(__file__).parent


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return a Markdown table; all columns but the first are aligned right."""
    header = list(header)
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def machine(results: Results) -> Iterator[str]:
    """Yield the machine, the versions, and the command that reproduces the report."""
    info, commit = results.machine, results.commit
    cpu = info["cpu"]
    name = f"{cpu.get('brand_raw', info['processor'])}, {info['threads']} threads, {info['system']}"
    yield from (
        f"- {name}; Python {info['python_version']}; Numba's threading layer {info['threading_layer']}",
        "- " + ", ".join(f"{package} {version}" for package, version in results.versions.items()),
        f"- commit {commit['id'][:12]}{' with changes' if commit['dirty'] else ''}, {results.when[:10]}",
        f"- other processes kept {info['others']:.2f} cores busy meanwhile",
        f"- reproduce with `make bench{'-quick' if info['quick'] else ''}`",
        *([] if results.ended else ["- the run was interrupted, and these are the cases that it had measured"]),
        *(f"- failed: {failure}" for failure in results.failures),
        "",
        "Every figure is the median of blocks of steps. All libraries of a line took turns in one process",
        "(see `bench/timing.py`), after a check that their results agree. A ratio is another library's time by",
        "fastoptim's. The *ceiling* is a kernel with the same memory traffic and trivial arithmetic.",
        "",
    )


def targets(results: Results) -> Iterator[str]:
    yield "## Targets\n"
    yield "The column *limit* has the figure that the machine allows, if one was measured.\n"
    verdicts = judge(results)
    yield from table(("what", *COLUMNS, ""), ((v.target.what, *v.shown, v.text) for v in verdicts))
    missed = [v for v in verdicts if v.missed]
    if missed:
        yield "The limits of the targets that were missed, measured in the same run:\n"
        yield from (f"- {v.target.what}{v.obstacle}" for v in missed)
        yield ""


def update(results: Results) -> Iterator[str]:
    yield "## One update\n"
    yield "![Adam](update.png)\n"
    yield "![All rules](rules.png)\n"
    yield "Separate: each array of a dict has its own memory, and the gradients are other arrays at each step.\n"
    found = {case: results.get("update", case.id) for case in updates(huge=True)}
    found = {case: libraries for case, libraries in found.items() if OURS in libraries}
    for dtype, threads in dict.fromkeys((case.dtype, case.threads) for case in found):
        rows = {case: found[case] for case in found if (case.dtype, case.threads) == (dtype, threads)}
        present = {name for row in rows.values() for name in row}
        peers = [name for name in LIBRARIES if name in present - {OURS, CEILING}]
        yield f"### {dtype}, {'all threads' if threads is None else 'one thread'}\n"
        yield from table(
            ("rule", "elements", "", "fastoptim", "elements/s", "GB/s", "of the ceiling", *peers),
            (
                (
                    *(case.rule, f"{case.size:,}", case.layout, duration(row[OURS].median)),
                    *(f"{case.size / row[OURS].median:.2g}", f"{case.bytes / row[OURS].median / 1e9:.3g}"),
                    *(f"{row[CEILING].median / row[OURS].median:.2f}", *(times_ours(row, name) for name in peers)),
                )
                for case, row in rows.items()
            ),
        )


def irregular(results: Results) -> Iterator[str]:
    rows: dict[str, dict[str, str]] = {}
    for case in irregular_updates():
        if "NumPy" in (libraries := results.get(case.group, case.id)):
            name = case.what if case.threads is None else f"{case.what}, one thread"
            rows.setdefault(name, {})[case.rule] = times_ours(libraries, "NumPy")
    if not rows:
        return
    yield "## Irregular updates\n"
    yield "Strided, mixed, overlapping or rebound arrays, and Python floats, against the notes' own NumPy code"
    yield "(`bench/notes.py`): NumPy's time by fastoptim's. Below 1, NumPy is faster.\n"
    yield from table(
        ("case", *notes.RULES),
        ((name, *(ratios.get(rule, "–") for rule in notes.RULES)) for name, ratios in rows.items()),
    )


def _tables(results: Results, *groups: str) -> Iterator[str]:
    """Yield a table of the cases of some groups that have the same contestants, with the ratios to ours."""
    kinds: dict[tuple[str, ...], dict[str, dict[str, Measured]]] = {}
    for group in groups:
        for case, libraries in results.cases.get(group, {}).items():
            if OURS in libraries:
                kinds.setdefault(tuple(name for name in libraries if name != OURS), {})[case] = libraries
    for others, rows in kinds.items():
        yield from table(
            ("case", "fastoptim", *others),
            (
                (case, duration(row[OURS].median), *(times_ours(row, name) for name in others))
                for case, row in rows.items()
            ),
        )


def family(results: Results) -> Iterator[str]:
    yield "## The family\n"
    yield "Compositions beside plain Adam on one thread; each rule beside the ceiling; rules and a composition"
    yield "beside those of torch and optax. *torch.compile* is torch's whole step, compiled before it is timed. *Adam"
    yield "after g.max()* is what a global norm costs at least: it needs all gradients before the first update, so they"
    yield "are read once more. The ceiling of a state of bfloat16 is a kernel that moves as many bytes, 20 an element"
    yield "where float32 moves 28. *Products alone* are those of Muon's iterations, by the BLAS of NumPy.\n"
    yield from _tables(results, "family")


def neighbours(results: Results) -> Iterator[str]:
    yield "## Neighbours\n"
    yield "Optimizers of torch's tensors, a classifier of scikit-learn's form, the textbook's network with batch"
    yield "normalization and dropout, and AdamW divided among two processes of MPI. *Replicas* are two processes that"
    yield "each update everything.\n"
    yield from _tables(results, "tensors", "estimators", "extended", "mpi")


def network(results: Results) -> Iterator[str]:
    yield "## The network\n"
    yield "Products that skip zeros beside BLAS, masks included, on one thread:\n"
    yield from _tables(results, "masked")
    yield "The inputs are normally distributed, and zero but for a fraction of them: 0.19 of the pixels of MNIST are"
    yield "not zero, 0.5 of those of Fashion-MNIST. The limit is the matrix products alone, on one thread, each in the"
    yield "faster of two ways: by BLAS, or by adding a row for each element that is not zero, from the fastest cache"
    yield "and with masks made before. For a row of 100 columns that is 8 loads for each number that is not zero: 7"
    yield "cache lines of weights, and the number. A core loads twice a cycle, so that takes 4 cycles. The limit"
    yield "leaves out what a network needs besides: to copy the weights into that cache once a product, and the masks."
    yield "NumPy is the notes' code, in float64. On one thread the times are CPU times.\n"
    names = ("NumPy", "torch", COMPILED, "jax")
    yield from table(
        ("method", "widths", "batch", "not zero", "threads", "fastoptim", "of the limit", *names),
        (
            (
                *(case.method, "-".join(map(str, case.widths)), str(case.batch), f"{case.density:g}"),
                *(str(case.threads or "all"), duration(row[OURS].median), times_ours(row, CEILING)),
                *(times_ours(row, name) for name in names),
            )
            for case in networks()
            if OURS in (row := results.get("network", case.id))
        ),
    )


def comparison(results: Results) -> Iterator[str]:
    warm, cold = results.get("comparison", "warm"), results.get("comparison", "cold")
    if OURS not in warm:
        return
    extra = warm[OURS].extra
    yield "## The comparison\n"
    yield "![The comparison](comparison.png)\n"
    yield f"Five networks of the notes, {extra['iterations']} iterations each, with batches of 128 of {extra['data']}."
    yield "*Warm* is a second training in one process; *cold* is a new process with an empty cache of compiled code."
    yield "The losses are means of the last 100. The *ceiling* is the matrix products alone of the networks after their"
    yield "training, which have the most zeros, in the faster of the two ways above.\n"
    rules = list(extra["loss"])
    yield from table(
        ("library", "warm", "ratio", "cold", *(f"loss {rule}" for rule in rules)),
        (
            (
                *(
                    name,
                    duration(each.median),
                    times_ours(warm, name),
                    duration(cold[name].median) if name in cold else "–",
                ),
                *(f"{each.extra['loss'][rule]:.3f}" if each.extra["loss"] else "–" for rule in rules),
            )
            for name, each in warm.items()
        ),
    )


def start(results: Results) -> Iterator[str]:
    yield "## Starting\n"
    yield "`import fastoptim` is timed after `import numba, scipy.linalg`. A first update is a whole process that"
    yield "updates the notes' ten arrays once with Adam.\n"
    yield from table(
        ("what", "library", "seconds"),
        ((what, name, f"{each.median:.3f}") for what, name, each in results.each("start")),
    )
    if rules := results.cases.get("first"):
        yield "The first update by each rule in a new process, without the imports, in seconds:\n"
        yield from table(
            ("rule", "empty cache", "full cache"),
            (
                (rule, *(f"{row[name].median:.3f}" if name in row else "–" for name in (EMPTY, FULL)))
                for rule, row in rules.items()
            ),
        )


def endurance(results: Results) -> Iterator[str]:
    yield "## Endurance\n"
    yield "![Endurance](endurance.png)\n"
    yield "The gradients are zero from the fourth step on. The time is the median step of a window of 1,000, as CPU"
    yield "time of one thread.\n"
    yield from table(
        ("rule", "library", "fastest", "slowest", "slowest by fastest"),
        (
            (case, name, duration(each.fastest), duration(each.slowest), f"{each.slowest / each.fastest:.2f}")
            for case, name, each in results.each("endurance")
        ),
    )


def history(results: Results) -> Iterator[str]:
    yield "## Releases\n"
    yield "![Releases](history.png)\n"
    yield "The figures of each release, which `bench/history/` keeps, are ratios measured on the processor named here."
    yield f"The last points, of {results.when[:10]}, are those of this report.\n"
    yield from table(
        ("version", "measured", "processor"),
        ((each["version"], each["date"], each["processor"]) for each in releases()),
    )


SECTIONS: tuple[Callable[[Results], Iterator[str]], ...] = (
    targets,
    update,
    irregular,
    family,
    neighbours,
    network,
    comparison,
    start,
    endurance,
    history,
)


def main() -> None:
    """Write the report and the charts of the last measurement."""
    parser = argparse.ArgumentParser(description="Write bench/report.md and its charts.")
    parser.add_argument("--quick", action="store_true", help="report the measurement of `make bench-quick`")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    results = Results.load(FOLDER / ("quick.jsonl" if options.quick else "all.jsonl"))
    lines = ["# Benchmarks\n", *machine(results)]
    for section in SECTIONS:
        lines += section(results)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, draw in CHARTS.items():
        if figure := draw(results):
            figure.savefig(options.output / name)
        else:
            # Without these cases in this run, the chart on disk is from an older one and must not be shown.
            lines = [line for line in lines if f"({name})" not in line]
    (options.output / "report.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
