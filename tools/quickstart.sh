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

retrain=false
for argument in "$@"; do
  case $argument in
    --retrain) retrain=true ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' tools/quickstart.sh && exit ;;
    *) stop "tools/quickstart.sh has no option $argument: it knows --retrain and --help." ;;
  esac
done

train() {
  if $retrain && [ -e $RUN ]; then
    move_aside $RUN || return
  fi
  train_once $RUN $CONFIG
}

evaluate() {
  "$PYTHON" tools/test.py $CONFIG "$(last_checkpoint $RUN)" --work-dir $RUN
}

overlay() { # every fifth picture of the validation set: a dozen
  "$PYTHON" tools/image_demo.py 'data/scenes/images/validation/*[05].jpg' $CONFIG "$(last_checkpoint $RUN)" \
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
  $(last_checkpoint $RUN): the weights; the log and metrics.json beside it
  $RUN/overlays: a dozen validation images with what the model sees in them

What to try next (PY stands for $PYTHON):
  PY tools/image_demo.py YOUR_PICTURE.jpg $CONFIG $(last_checkpoint $RUN) --out-dir overlays --with-legend
  PY tools/test.py $CONFIG $(last_checkpoint $RUN) --tta
  bash tools/run_tests.sh
  bash tools/dist_train.sh configs/beit_upernet_ade20k.py 8     (needs ADE20K and start weights: see README.md)
END
