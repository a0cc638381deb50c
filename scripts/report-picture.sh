#!/usr/bin/env bash
# Makes docs/report.png: the page of the family that ships, as Chromium shows it.
#
#   npm run build && bash scripts/report-picture.sh
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
node dist/src/cli/main.js --tasks rte,cb,copa --out "$work/mini-rte+cb+copa"
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/profile" --virtual-time-budget=6000 \
  --window-size=1280,1930 --screenshot="$PWD/docs/report.png" "file://$work/mini-rte+cb+copa/report.html"
