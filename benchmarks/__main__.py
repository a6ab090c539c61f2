"""`python -m benchmarks`: run the workloads, record every run, write tables and pictures."""

import signal
import subprocess
import sys
from pathlib import Path

import click

from benchmarks import record, report
from benchmarks.arena import open_arena
from benchmarks.process import ROOT, Broken
from benchmarks.stage import Stage
from benchmarks.suite import WORKLOADS


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(list(WORKLOADS)), help="Run only these.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option(
    "--scale",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Of all sizes; a small one shows that everything runs.",
)
@click.option(
    "--out",
    default=ROOT / "docs",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for bench/results.json, performance.md and the pictures  [default: docs]",
)
@click.option(
    "--peers-python",
    "peers",
    default=ROOT / ".venv-peers" / "bin" / "python",
    type=click.Path(path_type=Path),
    help="Python with the peers installed  [default: that of .venv-peers]",
)
def main(only: tuple[str, ...], repeats: int, scale: float, out: Path, peers: Path) -> None:
    """Run Batchord and its peers side by side on this machine.

    What was recorded before of workloads that do not run now is kept.
    """
    if not peers.exists():
        raise click.ClickException("the peers are not installed: run `make bench`")
    out.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    results = out / "bench" / "results.json"
    try:
        for name in only or tuple(WORKLOADS):
            _run(name, results, peers, repeats=repeats, scale=scale)
    except Broken as error:
        raise click.ClickException(str(error)) from None
    finally:
        _show(results, out, peers)


def _show(results: Path, out: Path, peers: Path) -> None:
    """Write the page and the pictures of all that is recorded; also if the last one broke."""
    workloads = record.load(results)
    if not workloads:
        return
    report.write(out / "performance.md", workloads)
    subprocess.run([peers, "-m", "benchmarks.plots", results, out], cwd=ROOT, check=True)
    click.echo(f"written: bench/{results.name}, performance.md, pictures in {out.name}/", err=True)


def _run(name: str, results: Path, peers: Path, *, repeats: int, scale: float) -> None:
    """Run one workload on a server of its own, and record it at once: the next one may break."""
    click.echo(name, err=True)
    options = f"--only {name} --repeats {repeats} --scale {scale:g}"
    with open_arena(ours=Path(sys.executable), peers=peers) as arena:
        rows = WORKLOADS[name].run(Stage(arena=arena, scale=scale, repeats=repeats))
        about = record.about(
            arena,
            peers=peers,
            command=f"make bench ARGS='{options}'",
            scale=scale,
            repeats=repeats,
        )
    workloads = record.load(results)
    workloads[name] = {"about": about, "rows": rows}
    ordered = {name: workloads[name] for name in WORKLOADS if name in workloads}
    record.save(results, ordered)


if __name__ == "__main__":
    # As Ctrl-C: whatever was started ends with us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
