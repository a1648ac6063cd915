"""Both services on one machine, from the bundle to a connected site; and work for it to do."""

from __future__ import annotations

import json
from pathlib import Path

from tests.agent import images
from tests.deploy.machine import BIN, Machine

AGENT, COORDINATOR = "housecall-agent", "housecall-coordinator"
SERVICES = (COORDINATOR, AGENT)
ADDRESS = "127.0.0.1:8443"
IMPATIENT = "[Service]\nWatchdogSec=4\nTimeoutAbortSec=2\nRestartSec=1\n"
GO = "go"
WAIT = f"while [ ! -e /out/data/{GO} ]; do sleep 0.1; done"
PREPARATION = f"""
container_type: DockerImage
image: housecall-test/busybox:1
tasks:
  prepare:
    run_args:
      command: [sh, -c, "{WAIT}; cp /in/data/case /out/data/; cp /in/labels/case /out/labels/"]
    input_volumes:
      data_path: {{mount_path: /in/data, type: directory}}
      labels_path: {{mount_path: /in/labels, type: directory}}
    output_volumes:
      output_path: {{mount_path: /out/data, type: directory}}
      output_labels_path: {{mount_path: /out/labels, type: directory}}
  sanity_check:
    run_args: {{command: ["true"]}}
    input_volumes:
      data_path: {{mount_path: /in/data, type: directory}}
      labels_path: {{mount_path: /in/labels, type: directory}}
  statistics:
    run_args: {{command: [sh, -c, "echo 'cases: 1' > /out/statistics.yaml"]}}
    input_volumes:
      data_path: {{mount_path: /in/data, type: directory}}
      labels_path: {{mount_path: /in/labels, type: directory}}
    output_volumes:
      output_path: {{mount_path: /out/statistics.yaml, type: file}}
"""


def install(machine: Machine, shared: Path, engine_group: int) -> None:
    """From the bundle. The agent's state lies in `shared`: the engine, which is not on the machine,
    has to find it."""
    machine.run(f"echo docker:x:{engine_group}: >> /etc/group")
    machine.write("/etc/housecall/coordinator.toml", f'listen = "{ADDRESS}"\n')
    machine.write(
        "/etc/housecall/agent.toml",
        f'state_dir = "{shared}/state"\nallowed_paths = ["{shared}/hospital"]\n'
        'socket_group = "housecall-users"\nallow_pull = false\ndisk_reserve_bytes = 0\n',
    )
    for service in SERVICES:
        machine.write(f"/etc/systemd/system/{service}.service.d/impatient.conf", IMPATIENT)
    machine.write(
        f"/etc/systemd/system/{AGENT}.service.d/place.conf",
        f"[Service]\nReadWritePaths={shared}/state\n",
    )
    machine.run(f"sh /bundle/install.sh coordinator && {BIN}/{AGENT} install")
    machine.run(f"install -d -m 0700 -o {AGENT} -g {AGENT} {shared}/state")


def as_coordinator(machine: Machine, words: str) -> str:
    """A command of the operator's page: as the service's user, in its folder, with its secrets."""
    return machine.run(
        f"systemd-run --quiet --pipe --wait --property=User={COORDINATOR} "
        f"--property=StateDirectory={COORDINATOR} "
        f"--property=LoadCredential=database_url:{COORDINATOR}.database_url "
        f"{BIN}/housecall-coordinator {words} 2>&1"
    )


def found(machine: Machine) -> None:
    """A coordinator with an operator, and a site whose join token is a credential."""
    init = f"init --trust-domain test --address {ADDRESS} --operator olga"
    as_coordinator(machine, f"{init} --token-out /var/lib/{COORDINATOR}/olga.token")
    machine.run(f"systemctl start {COORDINATOR}")
    machine.housecall(f"enroll --token @/var/lib/{COORDINATOR}/olga.token")
    machine.housecall(f"admin token create --site north --out /etc/credstore/{AGENT}.join_token")
    machine.run(f"systemctl start {AGENT}")


def is_connected(machine: Machine) -> bool:
    code, said = machine.try_run(f"{BIN}/housecall site status --output json")
    return code == 0 and bool(json.loads(said)["connected"])


def dataset(machine: Machine, shared: Path) -> None:
    """Registered, with a preparation that waits for a file."""
    for part in ("data", "labels"):
        folder = shared / "hospital" / part
        folder.mkdir(parents=True)
        (folder / "case").write_text(part)
    machine.housecall("admin token create --person carla --out /srv/carla.token")
    machine.housecall("enroll --token @/srv/carla.token", who="carla")
    machine.write("/srv/preparation.yaml", PREPARATION)
    machine.housecall(
        f"container register --config /srv/preparation.yaml --role preparation --name waits "
        f"--image-digest {images.busybox()}",
        who="carla",
    )
    paths = " ".join(f"--{part}-path {shared}/hospital/{part}" for part in ("data", "labels"))
    machine.housecall(
        f"dataset register --name scans --description scans --location north --container 1 "
        f"{paths} --yes"
    )
