#!/usr/bin/env bash
# From a bare clone to mask overlays: sets the environment up, renders the embedded data set, trains a tiny BEiT + UperNet
# on it, prints the mIoU table and writes overlays. One command, some minutes on two CPU cores:
#
#   bash tools/quickstart.sh              a second time it goes on where it stopped, and keeps a finished run's weights
#   bash tools/quickstart.sh --retrain    trains anew; the run that is there is moved aside, not deleted
set -euo pipefail
# shellcheck source=tools/_setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/_setup.sh"

CONFIG=configs/beit_tiny_upernet_scenes.py
RUN=work_dirs/quickstart
TRAINED=$RUN/trained # written after training has ended well

retrain=false
for argument in "$@"; do
  case $argument in
    --retrain) retrain=true ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' tools/quickstart.sh && exit ;;
    *) stop "tools/quickstart.sh has no option $argument: it knows --retrain and --help." ;;
  esac
done

# Prints a step's title and runs its command; where that fails, says how to go on.
step() {
  local title=$1 status
  shift
  printf '\n== %s\n' "$title"
  "$@" || {
    status=$?
    printf '\nquickstart stopped at the step "%s" (status %s; the reason stands above).\n' "$title" "$status" >&2
    printf 'Mend it and type bash tools/quickstart.sh again: what is finished is kept.\n' >&2
    exit "$status"
  }
}

# The newest whole checkpoint of the run, empty where there is none; by name, as the clone may have been moved since.
last_checkpoint() {
  local name
  [ -f $RUN/last_checkpoint ] || return 0
  name=$RUN/$(basename -- "$(cat $RUN/last_checkpoint)")
  [ ! -f "$name" ] || echo "$name"
}

train() {
  local resume=() aside
  if $retrain && [ -e $RUN ]; then
    aside=$RUN.$(date +%Y%m%d-%H%M%S)
    mv -- $RUN "$aside" || return
    echo "The former run was moved to $aside."
  elif [ -n "$(last_checkpoint)" ]; then
    resume=(--resume)
    if [ -f $TRAINED ]; then
      echo "Keeping the weights of the finished run in $RUN; bash tools/quickstart.sh --retrain trains anew."
      [ -z "$(find configs -newer $TRAINED -name '*.py' -print -quit)" ] ||
        echo 'Note: a config was changed after that run.'
      return
    fi
    echo "Going on with the interrupted run, from $(last_checkpoint)."
  fi
  "$PYTHON" tools/train.py $CONFIG --work-dir $RUN ${resume[@]+"${resume[@]}"} && date >$TRAINED
}

evaluate() {
  "$PYTHON" tools/test.py $CONFIG "$(last_checkpoint)" --work-dir $RUN
}

overlay() { # every fifth picture of the validation set: a dozen
  "$PYTHON" tools/image_demo.py 'data/scenes/images/validation/*[05].jpg' $CONFIG "$(last_checkpoint)" \
    --out-dir $RUN/overlays --with-legend
}

begin=$SECONDS
step '1/5 environment' set_up
step '2/5 data: rendering street and landscape scenes' "$PYTHON" tools/make_scenes.py
step '3/5 training a tiny BEiT + UperNet (at most five minutes on two CPU cores)' train
step '4/5 evaluation on the validation images' evaluate
step '5/5 overlays' overlay

cat <<END

Done in $((SECONDS - begin)) s. In $PWD:
  data/scenes: the rendered images and their masks, in ADE20K's layout
  $(last_checkpoint): the weights; the log and metrics.json beside it
  $RUN/overlays: a dozen validation images with what the model sees in them

What to try next (PY stands for $PYTHON):
  PY tools/image_demo.py YOUR_PICTURE.jpg $CONFIG $(last_checkpoint) --out-dir overlays --with-legend
  PY tools/test.py $CONFIG $(last_checkpoint) --tta
  bash tools/run_tests.sh
  bash tools/dist_train.sh configs/beit_upernet_ade20k.py 8     (needs ADE20K and start weights: see README.md)
END
