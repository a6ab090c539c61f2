"""`python -m chaos`: try every fault, have each batch judged, and write the report."""

import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import click

from chaos import report
from chaos.ground import Run, ground
from chaos.scenarios import SCENARIOS, Scenario
from tests.support.judge import Verdict

ROOT = Path(__file__).parent.parent
NAMES = [scenario.name for scenario in SCENARIOS]
#: Sequences that the state machine of the ledger is driven through.
EXAMPLES = 2000


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice([*NAMES, "machine"]), help="Run these.")
@click.option(
    "--scale",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Of items, faults and sequences; a small one shows that everything runs.",
)
@click.option("--seed", default=1, show_default=True, help="Of when and where faults strike.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The report  [docs/chaos.md if everything is run, at full scale; else none]",
)
def main(only: tuple[str, ...], scale: float, seed: int, out: Path | None) -> None:
    """Try every fault on this machine, in 45 minutes at most.

    Exit code 1: a batch broke its promise, or the plain chord was not found out.
    """
    began = time.monotonic()
    runs: list[Run] = []
    for scenario in SCENARIOS:
        if not only or scenario.name in only:
            runs += _runs(scenario, scale=scale, seed=seed)
    extra, whole = [], True
    if not only or "machine" in only:
        words, whole = _machine(round(EXAMPLES * scale))
        extra.append(words)
    page = report.report(runs, extra, minutes=(time.monotonic() - began) / 60)
    if out is None and not only and scale == 1:
        out = ROOT / "docs" / "chaos.md"
    if out is not None:
        report.write(out, page)
    click.echo(page)
    if not whole or not report.as_it_should(runs):
        sys.exit(1)


def _runs(scenario: Scenario, *, scale: float, seed: int) -> list[Run]:
    found = []
    for pool in scenario.pools:
        for number in range(scenario.runs):
            click.echo(f"{scenario.name} {pool} {number + 1}/{scenario.runs} ...", err=True)
            run = _run(scenario, pool, scale, seed + number)
            found.append(run)
            click.echo(
                f"  struck {run.struck}, lost {run.verdict.lost}, repeated "
                f"{run.verdict.repeated}, ended after {run.seconds:.1f} s: "
                f"{'; '.join(run.verdict.problems) or 'as promised'}",
                err=True,
            )
    return found


def _run(scenario: Scenario, pool: str, scale: float, seed: int) -> Run:
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        try:
            with ground(
                Path(folder) / "ground",
                pool=pool,
                scale=scale,
                seed=seed,
                max_attempts=scenario.max_attempts,
                forgotten=scenario.forgotten,
            ) as here:
                run = scenario.run(here)
                here.deployment.check_leaks()
        except Exception as error:  # noqa: BLE001
            # A run that does not come to its end is the worst that can be told of it.
            click.echo(traceback.format_exc(), err=True)
            verdict = Verdict(0, 0, 0, 0, [f"{type(error).__name__}: {error}"])
            return Run(fault=scenario.name, pool=pool, struck=0, verdict=verdict, seconds=0)
    if run.struck == 0:
        verdict = Verdict(run.verdict.items, 0, 0, 0, ["the fault never struck"])
        return Run(fault=run.fault, pool=pool, struck=0, verdict=verdict, seconds=run.seconds)
    return run


def _machine(examples: int) -> tuple[str, bool]:
    """Drive the ledger's scripts against their model; what to say of it, and whether it held."""
    click.echo(f"machine {examples} ...", err=True)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--timeout=1500",
            "tests/ledger/test_ledger_machine.py",
        ],
        cwd=ROOT,
        env={**os.environ, "BATCHORD_TEST_EXAMPLES": str(examples)},
        capture_output=True,
        text=True,
        check=False,
    )
    good = done.returncode == 0
    if not good:
        click.echo(done.stdout[-20_000:], err=True)
    return (
        f"The ledger's scripts were driven through {examples:,} random sequences of steps and "
        f"faults (`tests/ledger/test_ledger_machine.py`), against a model in Python: "
        f"{'they agree' if good else '**they do not agree**'}.",
        good,
    )


if __name__ == "__main__":
    main()
