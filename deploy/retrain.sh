#!/bin/sh
# Trains a model that ships anew, into a copy of its bundle, and judges it. A run that was stopped goes on.
#
#   deploy/retrain.sh MODEL DATA OUT [DEVICE]
#
# MODEL   lung_ct (12 minutes on 2 CPU cores) or chest_ct (a GPU, or START and two hours of 2 CPU cores)
# DATA    folder that holds chest_ct/ and ct_other/, the scans that the model cards name
# OUT     folder for scans, weights, reports and the new bundle, OUT/MODEL
# DEVICE  cpu, cuda (the default), cuda:1 ...
#
# START   for chest_ct, in the environment: a bundle whose nodule weights to go on from, in smaller steps
#
# PYTHON, WORKERS (processes that draw), PHANTOMS, INSERTED, HELD (scans to calibrate on), STEPS and JUDGED change what
# their names say.
set -eu
[ $# -ge 3 ] || { sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }
model=$1 data=$2 out=$3 device=${4:-cuda}
python=${PYTHON:-.venv/bin/python}
bundles=$(dirname "$0")/../ai/bundles
case $model in lung_ct | chest_ct) ;; *) echo "no such model: $model" >&2; exit 2 ;; esac

mkdir -p "$out"
[ -d "$out/$model" ] || cp -R "$bundles/$model" "$out/$model"

if [ "$model" = lung_ct ]; then
    "$python" -m ai train lung --data "$data" --bundle "$out/lung_ct" --steps "${STEPS:-800}"
    "$python" -m ai evaluate lung --bundle "$out/lung_ct" --data "$data" --seen -o "$out/report"
    exit
fi

[ -f "$out/backgrounds.npz" ] || "$python" -m ai chest backgrounds --data "$data" \
    --cases boost-breast cptac-c3l00189 -o "$out/backgrounds.npz"
phantoms=${PHANTOMS:-80} inserted=${INSERTED:-30} held=${HELD:-20}
unseen=$((phantoms > inserted ? phantoms : inserted))
"$python" -m ai chest draw --set train --phantoms "$phantoms" --nodules 12 \
    --backgrounds "$out/backgrounds.npz" --inserted "$inserted" --workers "${WORKERS:-2}" --device "$device" -o "$out/train"
if [ -n "${START:-}" ]; then
    how="--start $START --rate 0.0008 --batch 2 --size 64 --steps ${STEPS:-3500}"
else
    how="--steps ${STEPS:-2800}"
fi
# shellcheck disable=SC2086  # the options are words
[ -f "$out/run/nodules.pt" ] || "$python" -m ai chest train --scans "$out/train" $how --device "$device" -o "$out/run"
"$python" -m ai chest draw --set train --first "$unseen" --phantoms "$held" --nodules 12 \
    --backgrounds "$out/backgrounds.npz" --inserted "$((held / 2))" --workers "${WORKERS:-2}" --device "$device" -o "$out/held"
[ -f "$out/run/calibration.pt" ] || "$python" -m ai chest calibrate --run "$out/run" --scans "$out/held" --device "$device"
"$python" -m ai chest pack --lungs "$bundles/lung_ct/models/model.pt" --nodules "$out/run" --bundle "$out/chest_ct"
"$python" -m ai evaluate chest --bundle "$out/chest_ct" --data "$data" --phantoms "${JUDGED:-200}" --inserted 50 \
    --lidc-0314 --device "$device" -o "$out/report"
"$python" -m ai evaluate robustness --bundle "$out/chest_ct" --phantoms 20 --device "$device" -o "$out/robustness"
