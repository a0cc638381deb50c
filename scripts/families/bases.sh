#!/usr/bin/env bash
# Four families for `train-merge reproduce at-scale/bases`, of two bases in two sizes: the base of a family and its first layers alone (a
# mergekit file's slices), each as it is and fine-tuned on other tasks at once, which is the nearest that a small encoder has to instruction
# tuning; and experts fine-tuned from each of the four alike. What is there is not made again.
#
#   bash scripts/families/bases.sh BASE DATA OUT      # such as checkpoints/minilm/base data/text checkpoints/bases
#
# LAYERS (3), OTHERS (what the tuned bases are tuned on), TASKS, and MOST (training examples of each task; four times as many for a tuned base)
# may be set.
set -euo pipefail
base=$1 data=$2 out=$3
layers=${LAYERS:-3} others=${OTHERS:-mrpc,cola,wic} tasks=${TASKS:-cb,trec6,sst2,rte,copa} most=${MOST:-1000}
merge() { node "$(dirname "$0")/../../dist/src/cli/main.js" "$@"; }
name=$(basename "$(dirname "$base")")
mkdir -p "$out"

file=$(mktemp) # where the first layers are named
trap 'rm -f "$file"' EXIT
printf 'merge_method: passthrough\nslices:\n  - sources:\n      - model: %s\n        layer_range: [0, %s]\n' "$(realpath "$base")" "$layers" > "$file"

for size in small large; do
  plain=$out/$name-$size tuned=$out/$name-$size-tuned
  if [ ! -e "$plain/base" ]; then
    if [ $size = small ]; then merge merge "$file" --out "$plain/base"; else mkdir -p "$plain" && cp -r "$base" "$plain/base"; fi
  fi
  [ -e "$tuned/base/finetune.json" ] || merge finetune --multitask --task "$others" --base "$plain/base" --data "$data" --most $((4 * most)) --epochs 2 --lr 1e-4 --out "$tuned/base"
  for family in "$plain" "$tuned"; do
    for task in ${tasks//,/ }; do
      [ -e "$family/experts/$task/finetune.json" ] || merge finetune --task "$task" --base "$family/base" --data "$data" --most "$most" --lr 1e-4 --out "$family/experts/$task"
    done
  done
done
