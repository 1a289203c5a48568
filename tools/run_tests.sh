#!/usr/bin/env bash
# Sets the environment up, then runs the tests; arguments go to pytest.
#
#   bash tools/run_tests.sh                     all but the slow ones, offline, on the CPU
#   bash tools/run_tests.sh -m slow             the slow ones
#   bash tools/run_tests.sh tests/models -k beit
set -euo pipefail
# shellcheck source=tools/_setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/_setup.sh"

set_up test
exec "$PYTHON" -m pytest "$@"
