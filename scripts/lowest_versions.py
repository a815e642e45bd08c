"""Print the lowest supported version of every dependency, one `name==version` a line, for `pip install -c`.

python scripts/lowest_versions.py
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
BOUND = re.compile(r"(?P<name>[\w.-]+)>=(?P<version>[\w.]+)")


def lowest_versions(project: Path = PROJECT) -> dict[str, str]:
    """Versions by name, of what the programs and all extras need; the higher one where two bounds differ."""
    read = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    groups = [read["dependencies"], *read["optional-dependencies"].values()]
    found = [BOUND.match(requirement) for group in groups for requirement in group]
    return {each["name"]: each["version"] for each in found if each is not None}


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in lowest_versions().items()))
