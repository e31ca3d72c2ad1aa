#!/usr/bin/env bash
# Train one run on SLURM: a process a GPU, on nodes of eight. They find each other by what SLURM
# says.
#
#     sbatch --nodes=4 launch/train/slurm.sh flat-1b --data.source /shared/corpora/web \
#         --workdir /shared/runs/flat-1b --train.steps 100000
#
# It is submitted where python is that of the environment, from a checkout that all nodes see.
# Options of sbatch go before the script, and win over what stands here.

#SBATCH --job-name=octavo
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
# Of the node, not of the task: JAX takes the GPU with the number of the task from among all of
# them.
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
# Ten minutes before the time is up, all tasks save and end with 75.
#SBATCH --signal=TERM@600
# After a node was lost, SLURM begins the job again by itself.
#SBATCH --requeue

set -euo pipefail

# Where a task ends, the others do so by themselves, and host 0 still finishes the checkpoint: srun
# is not to kill them (--kill-on-bad-exit), only what is left after ten minutes.
code=0
python -m octavo.launch.again --except 75 \
    srun --kill-on-bad-exit=0 --wait=600 python train.py "$@" --train.distributed True || code=$?

if ((code == 75 && ${SLURM_RESTART_COUNT:-0} < 50)); then # for the next 24 hours
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
