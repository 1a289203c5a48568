#!/usr/bin/env bash
# Tests in NUM processes on this machine: one per GPU, or NUM on the CPU where there is no GPU.
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT NUM [options of tools/test.py]
#
# Several machines: the same command on each, with NNODES, NODE_RANK (0, 1, ...), MASTER_ADDR (of node 0) and PORT set.
set -euo pipefail
# shellcheck source=tools/_python.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/_python.sh"
exec "$PYTHON" "$TOOLS/_launch.py" test.py "$@"
