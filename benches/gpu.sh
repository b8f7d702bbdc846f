#!/bin/bash
# gpu.sh OUT_DIR: everything worth knowing of a GPU, in one call of under ten minutes, written to OUT_DIR.
#
# Needs a build with CUDA (FOURSTEP, else target/release/fourstep) and a Python with torch, transformers and diffusers
# (PEERS, an environment's folder). In this order, because a call may be cut off at its end: what machine it is; whether
# the device draws diffusers' pictures; whether CUDA graphs change them, and what they save; our times and diffusers' at 1024 and
# 512; diffusers' once more through torch.compile.
#
# A dry run where there is no GPU: DEVICE=cpu WEIGHTS=tests/fixtures/pipeline/tiny SIZES=64 DTYPES=f32 RUNS=1 benches/gpu.sh OUT_DIR
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: benches/gpu.sh OUT_DIR}
mkdir -p "$out"
# Where the driver keeps what it compiles for the GPU, so that the second process finds it.
if [ -z "${CUDA_CACHE_PATH:-}" ]; then
  CUDA_CACHE_PATH=$(mktemp -d)
  export CUDA_CACHE_PATH
  trap 'rm -rf "$CUDA_CACHE_PATH"' EXIT
fi
device=${DEVICE:-cuda:0}
sizes=${SIZES:-1024,512}
dtypes=${DTYPES:-f16,bf16}
runs=${RUNS:-5}
weights=${WEIGHTS:-$out/../full-size}
program=${FOURSTEP:-target/release/fourstep}
peers=${PEERS:-$(dirname "$(dirname "$(command -v python3)")")}
python=$peers/bin/python3
failed=0

# One part: its name, the seconds it may take, its command. What it says is kept, and a part that fails does not stop the rest.
part() {
  local name=$1 seconds=$2 began=$SECONDS
  shift 2
  echo "== $name"
  if timeout "$seconds" "$@" 2>"$out/$name.err" | tee "$out/$name.md"; then
    echo "== $name took $((SECONDS - began)) s"
  else
    echo "== $name FAILED after $((SECONDS - began)) s: $(tail -n 3 "$out/$name.err")"
    failed=1
  fi
}

[ "$device" = cpu ] || part machine 30 nvidia-smi
part versions 60 "$python" -c 'import torch, diffusers; print("torch", torch.__version__, "diffusers", diffusers.__version__)'
part goldens 150 "$python" benches/goldens.py --fourstep "$program" --device "$device" --dtypes "f32,${dtypes%%,*}"
[ -e "$weights/unet" ] || part weights 180 "$python" tools/full_size.py "$weights"
measure=("$python" benches/pipeline.py "$weights" --device "$device" --peers "$peers" --fourstep "$program" --runs "$runs")
graphs=("$python" benches/graphs.py "$weights" --device "$device" --fourstep "$program" --size "${sizes##*,}" --dtype "${dtypes%%,*}")
part graphs 60 "${graphs[@]}"
part eager 240 "${measure[@]}" --sizes "$sizes" --dtypes "$dtypes"
part compiled 240 "${measure[@]}" --sizes "${sizes%%,*}" --dtypes "${dtypes%%,*}" --compile
exit "$failed"
