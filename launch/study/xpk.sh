#!/usr/bin/env bash
# A study on Google Cloud with xpk: workers that share it in a bucket, a workload each. A workload of
# several slices, or of a slice of several hosts, would be one run over all of them; so each has one
# slice of one host.
#
#     octavo-ablate ARM ... --flops A,B,C --out gs://bucket/studies/mine --dry-run
#     bash launch/study/xpk.sh 8 "ARM ... --flops A,B,C --out gs://bucket/studies/mine" \
#         --cluster=CLUSTER --project=PROJECT --zone=ZONE --tpu-type=v6e-1 \
#         --docker-image=REGISTRY/octavo      # with pip install '.[tpu,gs]'
#
# --device-type=n2-standard-32-1 in place of --tpu-type for CPUs. The chips of a host share each run:
# their number divides its batch. Given again, it goes on.

set -euo pipefail
workers=$1 study=$2
shift 2

for ((i = 0; i < workers; i++)); do
    xpk workload create --workload="study-$(date +%m%d%H%M%S)-$i" --num-slices=1 \
        --max-restarts=50 --restart-on-exit-codes=75 --termination-grace-period-seconds=180 \
        --command="octavo-ablate $study" "$@"
done
