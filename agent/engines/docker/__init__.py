"""The Docker engine, or whatever else answers Docker's API: the only room that knows `docker`.

Everything runs in the cage of `port.py`; nothing here can be switched off. What a step may ask
for is checked in the port; when and how often to run it is left to the pipeline.

Rooms: `engine` (the port's calls), `cage` (how a container is shut in), `endings` (whether it ended
by itself), `images` and `pulling`, `lines` (logs), `connection`, and `failures`, which turns the
SDK's errors into refusals.
"""

from __future__ import annotations

from agent.engines.docker.engine import DockerEngine

__all__ = ["DockerEngine"]
