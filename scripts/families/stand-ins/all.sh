#!/usr/bin/env bash
# Every paper's setting that ships, from end to end on stand-ins: each config.yaml as it is, but for the paths.
#
#   bash scripts/families/stand-ins/all.sh OUT [LAYERS]     # LAYERS of every tower (default: the published models' own; 1 takes some ten minutes)
#
# The numbers mean nothing (the models are random): what is shown is that everything is read, merged, measured and written.
set -uo pipefail
out=$1
home=$(cd "$(dirname "$0")/../../.." && pwd)
node "$home/dist/scripts/families/stand-ins/make.js" "$out" --rows 36 ${2:+--layers "$2"}
failed=0
reproduce() { # SETTING EXPERIMENT MORE…
  local setting=$1 experiment=$2 folder=$out/$1
  shift 2
  local prompts=()
  [ -e "$folder/promptsource" ] && prompts=(--prompts "$folder/promptsource")
  node "$home/dist/src/cli/main.js" reproduce "$experiment" --config "$home/experiments/${experiment/\//-}/config.yaml" \
    --base "$folder/base" --experts "$folder/experts" --data "$folder/data" --datasets "" ${prompts[@]+"${prompts[@]}"} \
    --test-per-task 4 --steps 2 --runs "$out/runs/$setting" --out "$out/reproduced/${experiment/\//-}" "$@" > "$out/${experiment/\//-}.log" 2>&1
  local code=$?
  [ $code -le 1 ] && [ -e "$out/reproduced/${experiment/\//-}/results.json" ] || failed=1
  echo "$experiment: exit code $code, $(tail -1 "$out/${experiment/\//-}.log")"
}
unseen=cosmos_qa,social_iqa,paws,quail,wiki_qa,quartz,qasc,ropes
for experiment in supermerge/table-1 supermerge/table-5 supermerge/figure-2 supermerge/figure-3 supermerge/figure-5; do reproduce t0 "$experiment"; done
for experiment in supermerge/table-2 supermerge/table-4; do reproduce t0 "$experiment" --held-out "$unseen"; done
reproduce clip supermerge/table-3
reproduce clip supermerge/table-6 --held-out eurosat,mnist
reproduce clip adamerging/curve
for experiment in dare/drop-rates dare/deltas; do reproduce glue "$experiment"; done
exit $failed
