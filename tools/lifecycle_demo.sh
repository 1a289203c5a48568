#!/usr/bin/env bash
# The whole life of a checkpoint on a CPU, in 16 minutes on two cores: trains a tiny tokenizer (VQ-KD),
# pre-trains a tiny BEiT with it on pictures without labels, fine-tunes that as a classifier, then trains segmentation
# on few labelled pictures from scratch and from both files, with the same steps; prints mIoU by start, plots the curves.
#
#   bash tools/lifecycle_demo.sh              on rendered scenes; a second time it goes on where it stopped
#   bash tools/lifecycle_demo.sh --data DIR   on pictures of yours: DIR/{images,annotations}/{training,validation},
#                            masks as ADE20K's (0 = unlabelled), names in DIR/classes.txt (index, tab, name)
#   --labelled N   training pictures whose masks segmentation sees (default: 60 of the scenes, all of DIR)
#   --seeds N      segmentation runs of each start (default: 3)
#   --quick        eight steps of each stage, one seed: shows within minutes that everything runs, and nothing else
#   --work-dir RUN where everything goes (default: work_dirs/lifecycle, or work_dirs/lifecycle_NAME_OF_DIR)
#   --retrain      trains all stages anew; the runs that are there are moved aside, not deleted
set -euo pipefail
CALLED_FROM=$PWD
# shellcheck source=tools/_setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/_setup.sh"

DATA=data/lifecycle_scenes
SEEDS=3
LABELLED='' GIVEN='' RUN='' AMP='' RETRAIN=false QUICK=false TRAIN=1500 VAL=120
SAME_OPTIONS=${*:+ $*}

number() {
  [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || stop "$1 takes a number from 1, not ${2:-nothing}."
}

while [ $# -gt 0 ]; do
  case $1 in
    --data | --seeds | --labelled | --work-dir)
      [ $# -gt 1 ] || stop "$1 takes a value: see bash tools/lifecycle_demo.sh --help."
      case $1 in
        --data) GIVEN=$2 ;;
        --seeds) number "$1" "$2" && SEEDS=$2 ;;
        --labelled) number "$1" "$2" && LABELLED=$2 ;;
        --work-dir) RUN=$2 ;;
      esac
      shift
      ;;
    --retrain) RETRAIN=true ;;
    --quick) QUICK=true ;;
    -h | --help) sed -n '2,14s/^# \{0,1\}//p' tools/lifecycle_demo.sh && exit ;;
    *) stop "tools/lifecycle_demo.sh has no option $1: see bash tools/lifecycle_demo.sh --help." ;;
  esac
  shift
done

# Paths are the caller's, and this script works in the folder of the clone.
absolute() {
  case $1 in
    /*) echo "${1%/}" ;;
    *) echo "$CALLED_FROM/${1%/}" ;;
  esac
}

$QUICK && suffix=_quick || suffix=''
if [ -n "$GIVEN" ]; then
  DATA=$(absolute "$GIVEN")
  for folder in images/training images/validation annotations/training annotations/validation; do
    [ -d "$DATA/$folder" ] || stop "folder $DATA/$folder does not exist: --data takes a folder in ADE20K's layout," \
      'with images/{training,validation} and annotations/{training,validation}.'
  done
  RUN=${RUN:+$(absolute "$RUN")}
  RUN=${RUN:-work_dirs/lifecycle_$(basename -- "$DATA")$suffix}
else
  RUN=${RUN:+$(absolute "$RUN")}
  RUN=${RUN:-work_dirs/lifecycle$suffix}
  LABELLED=${LABELLED:-60}
fi
if $QUICK; then
  SEEDS=1
  [ -n "$GIVEN" ] || { DATA=${DATA}_quick TRAIN=64 VAL=16 LABELLED=32; }
fi
[ ! -f "$RUN/data.txt" ] || [ "$(cat "$RUN/data.txt")" = "$DATA" ] ||
  stop "$RUN was made with the pictures of $(cat "$RUN/data.txt"): name another folder with --work-dir."

prepare() {
  set_up
  if $RETRAIN && [ -e "$RUN" ]; then
    move_aside "$RUN" || return
  fi
  mkdir -p "$RUN"
  echo "$DATA" >"$RUN/data.txt"
  # Half the time where the processor multiplies in bfloat16; where it does not, float32 is faster.
  AMP=$("$PYTHON" -c 'import torch
print("--amp" if torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() else "")') || return
  echo "Precision: $([ -n "$AMP" ] && echo mixed || echo float32)."
}

data() {
  [ -n "$GIVEN" ] || "$PYTHON" tools/make_scenes.py --out "$DATA" --train $TRAIN --val $VAL --size 160x120 || return
  if [ ! -e "$RUN/folders" ]; then
    local arguments=() line lines
    lines=$("$PYTHON" tools/_lifecycle.py labels "$DATA") || return
    while read -r line; do arguments+=("$line"); done <<<"$lines"
    rm -rf "$RUN/folders.part" # links, of a run that was interrupted
    "$PYTHON" tools/make_image_folder.py "$DATA/images" --out "$RUN/folders.part" "${arguments[@]}" || return
    mv -- "$RUN/folders.part" "$RUN/folders"
  fi
  "$PYTHON" tools/_lifecycle.py configs "$DATA" "$RUN" ${LABELLED:+--labelled "$LABELLED"}
}

# Trains RUN/NAME with RUN/configs/CONFIG.py, from the last checkpoint of RUN/START where one is given.
stage() {
  local name=$1 config=$2 start=$3 field=$4 begin=() from
  shift 4
  if $QUICK; then
    set -- "$@" default_hooks.logger.interval=4
    set -- "$@" train_cfg.max_iters=8 train_cfg.val_interval=8 default_hooks.checkpoint.interval=8
  fi
  if [ -n "$start" ]; then
    from=$(whole_checkpoint "$start") || return
    begin=("$field.type=Pretrained" "$field.checkpoint=$from")
    [ ! -f "$RUN/$name/trained" ] || [ ! "$from" -nt "$RUN/$name/trained" ] ||
      echo "Note: $from is newer than this run; --retrain trains anew."
  fi
  train_once "$RUN/$name" "$RUN/configs/$config.py" $AMP \
    --cfg-options ${begin[@]+"${begin[@]}"} "randomness.seed=${SEED:-0}" "$@" || return
  whole_checkpoint "$name" >/dev/null
}

# The last checkpoint of RUN/NAME; a sentence where it is damaged, or there is none.
whole_checkpoint() {
  local path
  path=$(last_checkpoint "$RUN/$1")
  if [ -z "$path" ]; then
    echo "error: $RUN/$1 holds no checkpoint though its training has ended: rm $RUN/$1/trained and run this again." >&2
    return 1
  fi
  "$PYTHON" -m zipfile -t "$path" >/dev/null 2>&1 || {
    echo "error: $path is damaged: remove it (rm $path), and run this again to train that stage anew." >&2
    return 1
  }
  echo "$path"
}

classify() {
  stage classification classification pretraining model.backbone.init_cfg || return
  "$PYTHON" tools/test.py "$RUN/configs/classification.py" "$(last_checkpoint "$RUN/classification")" \
    --work-dir "$RUN/classification"
}

# One segmentation run, START_SEED; its whole output goes to RUN/START_SEED.log.
fine_tune() {
  local name=$1 start='' decay=0.65 # as the paper: what is learnt already changes less
  case $name in
    scratch_*) decay=1 ;;
    mim_*) start=pretraining ;;
    classes_*) start=classification ;;
  esac
  SEED=${name##*_} stage "$name" segmentation "$start" model.backbone.init_cfg \
    optim_wrapper.paramwise_cfg.layer_decay_rate=$decay 2>&1 | tee -a "$RUN/$name.log" |
    awk -v name="$name" '/iter |val at|Keeping|Going on|Note:|rror/ { print name ": " $0; fflush() }'
}

# Two at a time: for so small a model two processes are faster than one of twice the threads.
segment() {
  local seed threads
  threads=$("$PYTHON" -c 'import os; print(max(1, (os.cpu_count() or 2) // 2))')
  export RUN PYTHON QUICK AMP OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}
  export -f stop fine_tune stage train_once last_checkpoint whole_checkpoint
  for ((seed = 0; seed < SEEDS; seed++)); do
    printf '%s\n' "scratch_$seed" "mim_$seed" "classes_$seed"
  done | xargs -P 2 -I '{}' bash -c 'set -euo pipefail; fine_tune {}'
}

begin=$SECONDS
step '1/8 environment' prepare
step '2/8 data: pictures, class folders, configs' data
step '3/8 tokenizer: 128 visual words by VQ-KD, without labels' stage tokenizer tokenizer '' ''
step '4/8 masked image modelling: predicting the words of hidden patches, without labels' \
  stage pretraining pretraining tokenizer model.tokenizer.init_cfg
step '5/8 classification: classes of pictures, from the pre-trained backbone' classify
step "6/8 segmentation: three starts, $SEEDS seeds, two runs at a time" segment
step '7/8 table by class of one run' "$PYTHON" tools/test.py "$RUN/configs/segmentation.py" \
  "$(last_checkpoint "$RUN/classes_0")" --work-dir "$RUN/classes_0"
step '8/8 mIoU by start' "$PYTHON" tools/_lifecycle.py report "$RUN"

echo "Done in $((SECONDS - begin)) s; all files are in $RUN."
