#!/usr/bin/env bash
# Train one run on TPU VMs of Google Cloud, asked for as a queued resource: wait for it, begin on
# all its workers, watch, and ask for another when it is taken away. When the run is over, it is
# deleted.
#
#     bash launch/train/queued_resources.sh flat-1b v5litepod-256 v2-alpha-tpuv5-lite \
#         REGION-docker.pkg.dev/PROJECT/octavo/octavo:TAG \
#         "flat-1b --data.source gs://bucket/corpora/web --workdir gs://bucket/runs/flat-1b" --spot
#
# Its name, accelerator and runtime, an image (launch/Dockerfile, EXTRAS=tpu,gs), what octavo-train
# is given, then options of `gcloud compute tpus queued-resources create`; --node-count=2 in NODES
# in place of one node asks for two slices. gcloud knows project and zone (gcloud config set ...).
# Containers go on when this script or its connection ends; given again, it watches on. To stop the
# run, with all saved:
#
#     gcloud compute tpus queued-resources ssh flat-1b --node=all --worker=all --batch-size=all \
#         --command="sudo docker stop --time=600 octavo"

set -euo pipefail
name=$1 accelerator=$2 runtime=$3 image=$4 run=$5
shift 5
pause=${PAUSE:-300}

tpus() { gcloud compute tpus queued-resources "$@"; }
there() { # WORKERS SCRIPT
    # By default gcloud goes to 64 workers at a time, and waits for them.
    tpus ssh "$name" --node="$1" --worker="$1" --batch-size=all --command="$2"
}

# "running 0", "exited CODE", or "none". The image begins again by itself (octavo.launch.again), so
# what it ends with is the end; 255 is what docker says when the machine went down.
status="sudo docker inspect --format='{{.State.Status}} {{.State.ExitCode}}' octavo \\
    2> /dev/null | grep . || echo none"
begin="case \$($status) in 'exited 255' | none) ;; *) exit 0 ;; esac
sudo docker rm --force octavo > /dev/null 2>&1
sudo gcloud auth configure-docker ${image%%/*} --quiet
sudo docker run --detach --name=octavo --privileged --network=host --user=root \\
    ${JAX_COMPILATION_CACHE_DIR:+--env=JAX_COMPILATION_CACHE_DIR=$JAX_COMPILATION_CACHE_DIR} \\
    $image octavo-train $run --train.distributed True"

while :; do
    state=$(tpus describe "$name" --format='value(state.state)' 2> /dev/null || echo ABSENT)
    echo "$(date +%T) $name is $state"
    case $state in
        ABSENT)
            tpus create "$name" --accelerator-type="$accelerator" --runtime-version="$runtime" \
                "${NODES:---node-id=$name}" "$@"
            continue
            ;;
        FAILED | SUSPENDED) # as when spot slices are taken away
            tpus delete "$name" --force --quiet
            continue
            ;;
        ACTIVE)
            found=$(there 0 "$status" || true)
            if [[ $found == 'exited '* && $found != 'exited 255' ]]; then
                there 0 'sudo docker logs --tail=100 octavo' || true
                tpus delete "$name" --force --quiet
                exit "${found#exited }"
            fi
            there all "$begin" || true # what went wrong is tried again
            ;;
        *) ;; # it comes, or goes
    esac
    sleep "$pause"
done
