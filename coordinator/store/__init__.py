"""The store: sessions and queries, the only SQL of the coordinator.

`Store` owns the engine, `Reader` is a session with the questions that rules and servicers ask,
`Writer` is the one session that also writes. `migrate` brings an older store up to date.
"""

from coordinator.store.engine import Store, migrate
from coordinator.store.reader import Reader
from coordinator.store.writer import Writer

__all__ = ["Reader", "Store", "Writer", "migrate"]
