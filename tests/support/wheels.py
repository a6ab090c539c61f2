"""Wheels of this tree, and environments that have them beside some of our dependencies."""

import importlib.metadata
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
_PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this tree into a folder; return its path."""
    command = [*_PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    [built] = folder.glob("batchord-*.whl")
    return built


def make_environment(folder: Path, wheel: Path) -> Path:
    """Make an environment that has the wheel and nothing else; return its Python."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    install = ["install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*_PIP, "--python", str(python), *install], check=True)
    return python


def site_of(folder: Path) -> Path:
    """Return the folder of an environment's packages."""
    [site] = folder.glob("lib/python*/site-packages")
    return site


def link_dependencies(site: Path, wheel_extras: Iterable[str] = ()) -> set[str]:
    """Link what the installed wheel requires, and no more, from this environment into `site`.

    Return the names of the packages.
    """
    [info] = site.glob("batchord-*.dist-info")
    ours = importlib.metadata.Distribution.at(info)
    wanted = [*_needed(ours.requires, {"", *wheel_extras})]
    found: dict[str, set[str]] = {}
    while wanted:
        name, extras = wanted.pop()
        known = found.get(name)
        if known is not None and extras <= known:
            continue
        found[name] = extras | (known or set())
        wanted += _needed(importlib.metadata.distribution(name).requires, {"", *found[name]})
    for name in found:
        _link(importlib.metadata.distribution(name), site)
    return set(found)


def _needed(lines: list[str] | None, extras: set[str]) -> Iterable[tuple[str, set[str]]]:
    for requirement in map(Requirement, lines or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            yield requirement.name, set(requirement.extras)


def _link(distribution: importlib.metadata.Distribution, site: Path) -> None:
    tops = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
    for top in tops - {"__pycache__"}:
        target = Path(str(distribution.locate_file(top)))
        if target.exists() and not (site / top).exists():
            (site / top).symlink_to(target)
