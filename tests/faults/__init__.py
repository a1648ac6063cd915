"""The fault harness: real programs and real containers, hurt on a schedule that a seed decides.

    plan.py       the schedule: which fault, on what, when, for how long
    programs.py   processes that are started again whenever they end
    engine.py     a Docker engine of the harness's own, and its images
    proxy.py      a TCP relay that drops, delays, throttles, cuts and stalls
    namespaces.py a network of its own for each agent
    disks.py      small disks that fill up, and files that are damaged
    coordinators.py, sites.py, foreign.py   what the world consists of
    world.py, founding.py   all of it; founded, enrolled, ready
    joining.py    join tokens and those who enrol with them
    desk.py       a person who says things until there is an answer, and keeps every receipt
    committee.py  what the committee does meanwhile: order, cancel, decide, change policies
    offers.py     what model owners do meanwhile: offer models, take them back
    newcomers.py  what the operator does meanwhile: people join, and are shown out
    people.py     what each site's own people do meanwhile: bring data, answer reviews
    watch.py      which containers ran when, seen past the engine
    launch.py     starts an agent or a coordinator that dies at a boundary, or is broken on purpose
    faults.py     every kind of fault by its name; links and clocks
    wires.py      faults of packets, made by the kernel
    files.py      disks and files: full, damaged, gone for a while
    kills.py      kills and stops of programs and containers
    boundaries.py kills right before and after durable commits
    variants.py   programs broken on purpose
    rest.py       is anything still under way?
    journals.py   what the agents' journals say
    acknowledged.py   which orders the agents acknowledged
    ledger.py     what the ledger says
    verdict.py    lost, duplicated, stuck
    run.py        all of it in order
    evidence.py   what a run prints and leaves behind

`python -m tests.faults` runs it; `docs/faults.md` says what it does and checks.
"""
