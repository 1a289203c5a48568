# shellcheck shell=bash
# Finds or makes the Python environment, and installs the package there; sourced by quickstart.sh, lifecycle_demo.sh and
# run_tests.sh. And the steps of the two demos, which keep what is finished.
#
#   source tools/_setup.sh      changes to the folder of the clone
#   set_up [EXTRA]              sets PYTHON to the interpreter of the ready environment; EXTRA of setup.cfg, e.g. test
#   step TITLE COMMAND ...      prints the title and runs the command; where that fails, says how to go on
#   train_once RUN CONFIG ...   trains, goes on with an interrupted run, or keeps a finished one
#   last_checkpoint RUN         the newest whole checkpoint of a run, empty where there is none
#
# `bash tools/_setup.sh [EXTRA]` does the set-up alone. Every failure ends in one sentence with the remedy and status 1.
# The environment: the active one (VIRTUAL_ENV, or conda's unless it is `base`), else .venv in the clone, made with the
# interpreter that the variable PYTHON names, else with the first of python3 ... on the PATH that is new enough.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

stop() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The version of an interpreter, in words that Python 2 understands as well; fails where it is not at least 3.10.
python_version() {
  "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

find_python() {
  local name version found='' candidates=(python3 python python3.13 python3.12 python3.11 python3.10)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for name in "${candidates[@]}"; do
    if version=$(python_version "$name"); then
      PYTHON=$name
      return
    fi
    found=${found:-${version:+, and $name is $version}}
  done
  stop "mmseg_beit needs Python 3.10 or newer${found:-, and ${PYTHON:-python3} does not run}: install one" \
    '(apt-get install -y python3 python3-venv, or conda create -n beit python=3.12 and activate it),' \
    'or name it: PYTHON=/path/to/python3.12 before the command.'
}

make_environment() {
  local minor
  find_python
  minor=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
    stop "$PYTHON ($minor) has no venv module to make an environment with: apt-get install -y python$minor-venv," \
      'or activate an environment of your own (conda, virtualenv), and run this again.'
  echo "Making the environment .venv with $PYTHON ($(python_version "$PYTHON"))."
  if ! "$PYTHON" -m venv .venv >/dev/null 2>&1; then
    rm -rf .venv # only what the line above has begun
    stop "$PYTHON -m venv $PWD/.venv failed: check that the folder can be written and has free space," \
      "that apt-get install -y python$minor-venv has been done, and run this again."
  fi
  PYTHON=$PWD/.venv/bin/python
}

find_environment() {
  local version
  if [ -n "${VIRTUAL_ENV:-}" ]; then
    PYTHON=$VIRTUAL_ENV/bin/python
    version=$(python_version "$PYTHON") ||
      stop "the active environment $VIRTUAL_ENV has Python ${version:-that does not run}, and mmseg_beit needs 3.10 or newer:" \
        'deactivate it (.venv is then made here), or make it anew with a newer Python.'
    echo "Environment: the active one, $VIRTUAL_ENV (Python $version)."
  elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; then
    PYTHON=$CONDA_PREFIX/bin/python
    version=$(python_version "$PYTHON") ||
      stop "the active conda environment $CONDA_PREFIX has Python ${version:-that does not run}, and mmseg_beit needs" \
        '3.10 or newer: conda install python=3.12, or conda deactivate (.venv is then made here).'
    echo "Environment: the active one of conda, $CONDA_PREFIX (Python $version)."
  elif [ -e .venv ]; then
    PYTHON=$PWD/.venv/bin/python
    version=$(python_version "$PYTHON") ||
      stop "$PWD/.venv has no Python 3.10 or newer that runs (was it moved, or its Python removed?):" \
        "rm -rf '$PWD/.venv' and run this again."
    echo "Environment: .venv (Python $version)."
  else
    make_environment
  fi
}

set_up() {
  find_environment
  "$PYTHON" tools/_setup.py ${1:+--extra "$1"} || exit $?
}

step() {
  local title=$1 status demo
  shift
  demo=$(basename -- "$0" .sh)
  printf '\n== %s\n' "$title"
  "$@" || {
    status=$?
    printf '\n%s stopped at the step "%s" (status %s; the reason stands above).\n' "$demo" "$title" "$status" >&2
    printf 'Mend it and type bash tools/%s.sh%s again: what is finished is kept.\n' "$demo" "${SAME_OPTIONS:-}" >&2
    exit "$status"
  }
}

# By name, as the clone may have been moved since.
last_checkpoint() {
  local name
  [ -f "$1/last_checkpoint" ] || return 0
  name=$1/$(basename -- "$(cat "$1/last_checkpoint")")
  [ ! -f "$name" ] || echo "$name"
}

move_aside() {
  local aside
  aside=$1.$(date +%Y%m%d-%H%M%S)
  mv -- "$1" "$aside" || return
  echo "The former run was moved to $aside."
}

# The file `trained` in the run's folder says that training has ended well.
train_once() {
  local run=$1 config=$2 resume=()
  shift 2
  if [ -n "$(last_checkpoint "$run")" ]; then
    if [ -f "$run/trained" ]; then
      echo "Keeping the weights of the finished run in $run; --retrain trains anew."
      [ -z "$(find configs -newer "$run/trained" -name '*.py' -print -quit)" ] ||
        echo 'Note: a config was changed after that run.'
      return
    fi
    resume=(--resume)
    echo "Going on with the interrupted run, from $(last_checkpoint "$run")."
  fi
  "$PYTHON" tools/train.py "$config" --work-dir "$run" ${resume[@]+"${resume[@]}"} "$@" && date >"$run/trained"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set_up "$@"
fi
