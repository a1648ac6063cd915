"""Tests mirror the rooms; then stories and faults."""

import os

# Tests start programs while gRPC's threads work in this process. Its fork handlers can abort the
# child before it becomes the program (https://github.com/grpc/grpc/issues/43055): off, before
# gRPC is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
