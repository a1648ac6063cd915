"""The fault harness: real programs and real containers, hurt on a schedule that a seed decides.

    plan.py       the schedule: which fault, on what, when, for how long
    programs.py   processes that are started again whenever they end
    engine.py     a Docker engine of the harness's own, and its images
    proxy.py      a TCP relay that drops, delays, throttles, cuts and stalls
    disks.py      small disks that fill up, and files that are damaged
    coordinators.py, sites.py, foreign.py   what the world consists of
    world.py      all of it founded, enrolled, ready
    desk.py       a person who says things until there is an answer, and keeps every receipt
    committee.py  what committee and model owner do meanwhile: order, cancel, change policies
    people.py     what each site's own people do meanwhile: bring data, answer reviews
    watch.py      which containers ran when, seen past the engine
    launch.py     starts an agent or a coordinator that dies at a boundary, or is broken on purpose
    faults.py     every kind of fault by its name; links, disks, files, clocks
    kills.py      kills and stops of programs and containers
    boundaries.py kills right before and after durable commits
    variants.py   programs broken on purpose
    rest.py       is anything still under way?
    journals.py   what the agents' journals say
    ledger.py     what the ledger says
    verdict.py    lost, duplicated, stuck
    run.py        all of it in order

`python -m tests.faults` runs it; `docs/faults.md` says what it does and checks.
"""
