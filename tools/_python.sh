# shellcheck shell=bash
# Sets TOOLS and PYTHON for the launch scripts; sourced by them. The interpreter: $PYTHON, the active environment's, .venv's
# in the clone, else python3. The clone comes first on the path, so that the tools run uninstalled too.
TOOLS=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${PYTHON:-}" ]; then
  if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || [ ! -x "$TOOLS/../.venv/bin/python" ]; then
    PYTHON=$(command -v python || command -v python3)
  else
    PYTHON=$TOOLS/../.venv/bin/python
  fi
fi
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
