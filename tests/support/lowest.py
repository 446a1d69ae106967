"""Print the lowest versions that pyproject.toml allows as constraints: `make test LANE=oldest`.

It runs before anything is installed, so it needs nothing beside Python.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

TOOLS = "dev", "docs", "readers"
"""Extras of tools, which lakelog itself does not need: they come as new as the others allow."""
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*>=\s*([0-9][0-9A-Za-z.]*)")


def lowest(pyproject: Path) -> dict[str, str]:
    """Return each package that lakelog or its extras ask for, with its least version."""
    project = tomllib.loads(pyproject.read_text("utf-8"))
    requirements = list(project["project"]["dependencies"])
    for name, extra in project["project"]["optional-dependencies"].items():
        requirements += [] if name in TOOLS else extra
    bounds = (REQUIREMENT.match(requirement) for requirement in requirements)
    return {bound[1]: bound[2] for bound in bounds if bound}


if __name__ == "__main__":
    for package, version in sorted(lowest(Path(sys.argv[1])).items()):
        print(f"{package}=={version}")
