"""What runs inside the container; `python3 -m project <task>` is its entry."""
