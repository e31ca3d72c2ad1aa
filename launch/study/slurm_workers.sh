#!/usr/bin/env bash
# A study on SLURM, the simple way: every task of this array does cells that no other does, and the
# last one times the arms and writes the page. OUT lies on storage that all nodes see.
#
#     python ablate.py ARM ... --flops A,B,C --out OUT --dry-run      # look at the plan; makes the text
#     sbatch launch/study/slurm_workers.sh ARM ... --flops A,B,C --out OUT
#
# Stopped or preempted tasks lose nothing: the same sbatch goes on.

#SBATCH --job-name=study
# Eight workers; one that starts late takes what is left. For a GPU each: --gpus-per-task=1
#SBATCH --array=0-7
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --requeue
# Before the time is up, save.
#SBATCH --signal=TERM@180

set -euo pipefail
srun --ntasks=1 python ablate.py "$@"
