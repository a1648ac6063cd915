"""Containers that are not of these agents: nobody may touch them."""

from __future__ import annotations

from tests.faults.engine import EngineProgram

NAMES = {
    "somebody-elses": {},
    "another-agents": {
        "housecall.agent": "of another machine",
        "housecall.owner": "execution:1",
        "housecall.step": "infer",
    },
}


class Foreign:
    """Two containers that sleep; an engine that ended them starts them again when it comes up."""

    def __init__(self, engine: EngineProgram, image_id: str) -> None:
        self._engine = engine
        self.ids = {name: self._start(name, image_id) for name in NAMES}

    def _start(self, name: str, image_id: str) -> str:
        made = self._engine.ask(
            lambda api: api.create_container(
                image_id,
                ["sleep", "86400"],
                name=name,
                labels=NAMES[name],
                network_disabled=True,
                host_config=api.create_host_config(restart_policy={"Name": "always"}),
            )
        )
        self._engine.ask(lambda api: api.start(made["Id"]))
        return str(made["Id"])

    def touched(self) -> list[str]:
        """Those that are gone or do not run."""
        known = {each["Id"]: each["State"] for each in self._engine.containers()}
        return [
            f"container {name} is {known.get(number, 'gone')}"
            for name, number in self.ids.items()
            if known.get(number) != "running"
        ]

    def remove(self) -> None:
        for number in self.ids.values():
            self._engine.remove(number)
