"""`housecall-agent doctor`: what is wrong with this site, hop by hop, and what mends it.

It changes nothing, and does not disturb an agent that runs. Rooms: `finding` (words), `scene` (what
the checks look at), `state` (the state folder), `home` (settings, journal, datasets, the running
agent), `engine` (engine, cage, GPUs), `machine` (disk, clock), `papers` (certificates), `wire`
(name, proxy, TCP, TLS), `peer` (the coordinator), `examination` (the table of checks), `screen` and
`bundle` (what is made of it).
"""
