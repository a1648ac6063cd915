"""What the containers of the world do: three scripts of one small image.

A model says how far it is, takes its time, and writes its own stamp as every prediction; the
evaluator copies the stamp into the metrics and counts the cases. So a result shows whether it was
made from whole predictions of the right model.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from housecall import statement
from housecall.v1 import statements_pb2 as pb

CASES = 4
TICK_S = 0.25

_PREPARE = """
set -e
n=0
for f in /raw/data/*; do
  b=${f##*/}
  if [ ! -e /data/$b ]; then cat $f > /tmp/x; sleep 0.2; cp /tmp/x /data/$b; fi
  cp /raw/labels/$b /labels/$b
  n=$((n+1)); echo "case $n"
done
"""
_SANITY = 'test "$(ls /data | wc -l)" = "$(ls /labels | wc -l)"'
_STATISTICS = 'set -e; echo "cases: $(ls /data | wc -l)" > /statistics.yaml'
_INFER = """
set -e
stamp=$(sed -n 's/^stamp: //p' /parameters.yaml)
ticks=$(sed -n 's/^ticks: //p' /parameters.yaml)
i=0
while [ $i -lt $ticks ]; do echo "tick $i"; sleep 0.25; i=$((i+1)); done
if [ -e /files/stamp ]; then stamp=$(cat /files/stamp); fi
for f in /in/data/*; do echo $stamp > /out/${f##*/}; done
if [ $((stamp % 23)) = 0 ]; then echo "this model fails"; exit 3; fi
"""
_EVALUATE = """
set -e
stamp=$(cat /in/predictions/* | sort | uniq)
cases=$(ls /in/predictions | wc -l)
sleep 0.25
echo "stamp: ${stamp:-0}" > /out/results.yaml
echo "cases: $cases" >> /out/results.yaml
"""


def fails(stamp: int) -> bool:
    """Some models always fail: an order may end that way too."""
    return stamp % 23 == 0


def parameters(stamp: int, ticks: int) -> str:
    """Of a model: what makes it another one, and how many ticks it takes."""
    return f"stamp: {stamp}\nticks: {ticks}\n"


def additional_files(stamp: int, folder: Path) -> pb.AdditionalFiles:
    """A tarball from which a model takes its stamp, as others take their weights."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{stamp}.tar"
    content = f"{stamp}\n".encode()
    with tarfile.open(file, "w") as archive:
        member = tarfile.TarInfo("stamp")
        member.size, member.mode = len(content), 0o644
        archive.addfile(member, io.BytesIO(content))
    return pb.AdditionalFiles(uri=file.as_uri(), digest=statement.digest(file.read_bytes()))


def preparation() -> str:
    raw = {"data_path": "/raw/data", "labels_path": "/raw/labels"}
    prepared = {"data_path": "/data", "labels_path": "/labels"}
    made = {"output_path": "/data", "output_labels_path": "/labels"}
    return _config(
        prepare=_task(_PREPARE, _folders(raw), _folders(made)),
        sanity_check=_task(_SANITY, _folders(prepared), {}),
        statistics=_task(
            _STATISTICS, _folders(prepared), {"output_path": _file("/statistics.yaml")}
        ),
    )


def model() -> str:
    inputs = _folders({"data_path": "/in/data"})
    inputs["parameters_file"] = _file("/parameters.yaml")
    inputs |= _folders({"additional_files": "/files"})
    return _config(infer=_task(_INFER, inputs, _folders({"output_path": "/out"})))


def evaluator() -> str:
    inputs = _folders({"predictions": "/in/predictions", "labels": "/in/labels"})
    return _config(evaluate=_task(_EVALUATE, inputs, {"output_path": _file("/out/results.yaml")}))


def _config(**tasks: object) -> str:
    """JSON is YAML."""
    document = {"container_type": "DockerImage", "image": "faults:1", "tasks": tasks}
    return json.dumps(document, indent=1)


def _task(
    script: str, inputs: dict[str, dict[str, str]], outputs: dict[str, dict[str, str]]
) -> dict[str, object]:
    run = {"entrypoint": ["sh", "-c"], "command": [script]}
    return {"run_args": run, "input_volumes": inputs, "output_volumes": outputs}


def _folders(paths: dict[str, str]) -> dict[str, dict[str, str]]:
    return {label: {"mount_path": path, "type": "directory"} for label, path in paths.items()}


def _file(path: str) -> dict[str, str]:
    return {"mount_path": path, "type": "file"}
