#!/usr/bin/env bash
# Train one run on Google Cloud's TPUs with xpk: all hosts of all slices are one run.
#
#     bash launch/train/xpk.sh flat-1b \
#         "flat-1b --data.source gs://bucket/corpora/web --workdir gs://bucket/runs/flat-1b" \
#         --cluster=CLUSTER --project=PROJECT --zone=ZONE --tpu-type=v5litepod-256 --num-slices=1 \
#         --docker-image=REGISTRY/octavo:TAG --env JAX_COMPILATION_CACHE_DIR=gs://bucket/programs
#
# The first word names the workload, then comes what octavo-train is given, then options of xpk. It
# begins again on 75 (stopped, all saved), 70 (nothing moved, or a host was lost) and from 127 on,
# which xpk has by itself; all of them count. Given again, it goes on, as another workload.

set -euo pipefail
name=$1 run=$2
shift 2

xpk workload create --workload="$name-$(date +%m%d%H%M)" \
    --max-restarts=100 --restart-on-exit-codes=70,75 --termination-grace-period-seconds=600 \
    --command="octavo-train $run --train.distributed True" "$@"
