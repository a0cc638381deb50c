#!/usr/bin/env bash
# Four families for `train-merge reproduce at-scale/bases`, of a weak and a strong base of two sizes: the base of a family as it is and its
# first layers alone (a mergekit file's slices), each as it is (weak) and fine-tuned on other tasks at once (strong, as an instruction-tuned
# base is); and experts fine-tuned from each of them alike. What is there is not made again.
#
#   bash scripts/families/bases.sh BASE DATA OUT      # such as checkpoints/minilm/base data/text checkpoints/bases
#
# LAYERS (3), OTHERS (tasks of the strong base), TASKS, and MOST (training examples of each task; a strong base takes four times as many)
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
  weak=$out/$name-$size-weak strong=$out/$name-$size-strong
  if [ ! -e "$weak/base" ]; then
    if [ $size = small ]; then merge merge "$file" --out "$weak/base"; else mkdir -p "$weak" && cp -r "$base" "$weak/base"; fi
  fi
  [ -e "$strong/base/finetune.json" ] || merge finetune --multitask --task "$others" --base "$weak/base" --data "$data" --most $((4 * most)) --epochs 2 --lr 1e-4 --out "$strong/base"
  for family in "$weak" "$strong"; do
    for task in ${tasks//,/ }; do
      [ -e "$family/experts/$task/finetune.json" ] || merge finetune --task "$task" --base "$family/base" --data "$data" --most "$most" --lr 1e-4 --out "$family/experts/$task"
    done
  done
done
