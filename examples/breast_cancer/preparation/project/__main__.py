"""Entry of the container: `prepare`, `sanity_check` or `statistics`, at the customary paths."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from . import checks, prepare, statistics
from .tables import Refused

VOLUMES = Path("/mlcommons/volumes")


def main(arguments: list[str]) -> int:
    tasks = ("prepare", "sanity_check", "statistics")
    if len(arguments) != 1 or arguments[0] not in tasks:
        print(f"expected one of {', '.join(tasks)}, got {arguments}", file=sys.stderr)
        return 64
    parameters = yaml.safe_load((VOLUMES / "parameters/parameters_file.yaml").read_text())
    prepared = prepare.Prepared(data=VOLUMES / "data", labels=VOLUMES / "labels")
    try:
        if arguments[0] == "prepare":
            raw = prepare.Raw(VOLUMES / "raw_data", VOLUMES / "raw_labels")
            prepare.run(raw, prepared, VOLUMES / "report/report.yaml", parameters)
        elif arguments[0] == "sanity_check":
            checks.run(prepared, parameters)
        else:
            statistics.run(prepared, VOLUMES / "statistics/statistics.yaml", parameters)
    except Refused as reason:
        print(f"{arguments[0]}: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
