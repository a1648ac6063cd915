"""Task `sanity_check`: is the prepared data fit to be used, and if not, what is left to do?"""

from __future__ import annotations

from typing import Any

from .prepare import Prepared, Table, read_table
from .tables import Refused, features, value_fault

SHOWN = 10


def run(prepared: Prepared, parameters: dict[str, Any]) -> None:
    cases = read_table(prepared.cases_file)
    labels = read_table(prepared.labels_file)
    faults = [
        *_outstanding(read_table(prepared.review_file), cases),
        *_case_faults(cases, features(parameters)),
        *_label_faults(cases, labels),
    ]
    if len(cases) < parameters["minimum_cases"]:
        faults.append(f"expected at least {parameters['minimum_cases']} cases, got {len(cases)}")
    if faults:
        more = f"\n- and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        lines = "".join(f"\n- {fault}" for fault in faults[:SHOWN])
        raise Refused(f"{len(faults)} things to put right:{lines}{more}")
    print(f"{len(cases)} cases are fit for use", flush=True)


def _outstanding(review: Table, cases: Table) -> list[str]:
    faults = []
    for case, line in review.items():
        resolution = line["resolution"].strip()
        if not resolution:
            faults.append(
                f"case {case} ({line['where']}, {line['fault']}) waits for review: in review.csv"
                " set its resolution to drop, or put its cells right and set fixed;"
                " then run prepare again"
            )
        elif resolution == "fixed" and case not in cases:
            faults.append(f"case {case} is marked fixed: run prepare again to take it in")
    return faults


def _case_faults(cases: Table, columns: list[str]) -> list[str]:
    faults = []
    for case, cells in cases.items():
        if list(cells) != columns:
            return ["data.csv: the columns are not the canonical ones in their order"]
        faults += [f"case {case}, {f}" for k, v in cells.items() if (f := value_fault(k, v))]
    return faults


def _label_faults(cases: Table, labels: Table) -> list[str]:
    faults = [f"case {case} has no label" for case in cases if case not in labels]
    faults += [f"label of {case} has no case" for case in labels if case not in cases]
    return faults + [
        f"label of {case}: expected 1 or 0, got {line.get('malignant')!r}"
        for case, line in labels.items()
        if line.get("malignant") not in ("0", "1")
    ]
