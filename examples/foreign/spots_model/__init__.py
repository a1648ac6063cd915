"""A model with one entry script that takes the task and its folders as flags."""
