"""The demo world: four sites, a coordinator and three people on one machine, and their story.

processes.py starts and stops daemons; world.py founds the coordinator and enrols everyone;
benchmark.py is what committee and model owner do beforehand; story.py is the hospitals' journey;
summary.py verifies what came of it. Everything goes through the commands that a user types.
"""
