"""What containers of each role must be able to do, and which volumes a task may and must have.

One table, after MedPerf's contract; checking a configuration against it is left to
`container_config.py`, mounting to the agent.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Role(enum.Enum):
    """What a container is for; decides its tasks."""

    PREPARATION = "preparation"
    MODEL = "model"
    EVALUATOR = "evaluator"


@dataclass(frozen=True)
class LabelRule:
    """What a label must be; an input that a container leaves out is simply not mounted, so
    only those without which the task makes no sense are required."""

    type: str
    required: bool


DIRECTORY, FILE = LabelRule("directory", True), LabelRule("file", True)
MAY_DIRECTORY, MAY_FILE = LabelRule("directory", False), LabelRule("file", False)

_SETTINGS = {"parameters_file": MAY_FILE, "additional_files": MAY_DIRECTORY}
_PREPARED = {"data_path": DIRECTORY, "labels_path": MAY_DIRECTORY, "metadata_path": MAY_DIRECTORY}

TASKS: Mapping[Role, Mapping[str, Mapping[str, Mapping[str, LabelRule]]]] = {
    Role.PREPARATION: {
        "prepare": {
            "input_volumes": {"data_path": DIRECTORY, "labels_path": MAY_DIRECTORY, **_SETTINGS},
            "output_volumes": {
                "output_path": DIRECTORY,
                "output_labels_path": DIRECTORY,
                "metadata_path": MAY_DIRECTORY,
                "report_file": MAY_FILE,
            },
        },
        "sanity_check": {"input_volumes": {**_PREPARED, **_SETTINGS}, "output_volumes": {}},
        "statistics": {
            "input_volumes": {**_PREPARED, **_SETTINGS},
            "output_volumes": {"output_path": FILE},
        },
    },
    Role.MODEL: {
        "infer": {
            "input_volumes": {"data_path": DIRECTORY, **_SETTINGS},
            "output_volumes": {"output_path": DIRECTORY},
        },
    },
    Role.EVALUATOR: {
        "evaluate": {
            "input_volumes": {"predictions": DIRECTORY, "labels": DIRECTORY, **_SETTINGS},
            "output_volumes": {"output_path": FILE, "local_outputs_path": MAY_DIRECTORY},
        },
    },
}
"""The tasks that a role must have, and for each the labels that may and must be mounted."""
