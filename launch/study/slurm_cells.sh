#!/usr/bin/env bash
# A study on SLURM, a job a cell: an array of those that try learning rates; when it is over, an array
# of the rest; then one job for what failed, the timing and the page. OUT lies on storage that all
# nodes see.
#
#     python ablate.py ARM ... --flops A,B,C --out OUT --print-commands     # writes and shows the plan
#     bash launch/study/slurm_cells.sh OUT --cpus-per-task=4 --mem=16G --time=2:00:00    # options of sbatch
#
# Given again, it submits what is not done. SLURM's MaxArraySize bounds the numbers of cells.

set -euo pipefail
out=$1
shift

commands=$(python ablate.py --out "$out" --print-commands)
numbers() { sed -n 's/^python ablate.py .*--cell \([0-9]*\)$/\1/p' | paste -sd, -; }
first=$(sed '/^# when/,$d' <<< "$commands" | numbers)
rest=$(sed '1,/^# when/d' <<< "$commands" | numbers)

run="srun --ntasks=1 python ablate.py --out ${out@Q}" # srun: the signal reaches Python, which saves
submit() { sbatch --parsable --requeue --signal=TERM@180 "$@"; }
after=()
for cells in "$first" "$rest"; do
    [[ -n $cells ]] || continue
    job=$(submit "$@" --job-name=cells "${after[@]}" --array="$cells" \
        --wrap="$run --cell \$SLURM_ARRAY_TASK_ID")
    echo "cells $cells: job $job"
    after=(--dependency="afterany:${job%%;*}") # any: a try that gave up is a result, too
done
echo "the page: job $(submit "$@" --job-name=page "${after[@]}" --wrap="$run")"
