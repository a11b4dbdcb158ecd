#!/usr/bin/env bash
# A CUDA 13.0 compiler and link-time libraries without a GPU, from NVIDIA's wheels on PyPI.
#
#   source .ci/cuda-toolchain.sh DIR     # installs into DIR once, then sets the environment
#
# nvcc, headers, cuBLAS, cuRAND, NVRTC and cudart to link with, and a stub libcuda.so so that the link succeeds without
# a driver; a program finds the real libraries when it runs.
_dir=$1
if [ ! -e "$_dir/ok" ]; then
  rm -rf "$_dir" && python3 -m venv "$_dir/venv" && "$_dir/venv/bin/pip" install -q \
    'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-cccl==13.0.*' \
    'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-nvrtc==13.0.*' 'nvidia-cublas>=13.0,<13.2' 'nvidia-curand>=10.4,<10.5' || return 1
  _cu=$(echo "$_dir"/venv/lib/python3*/site-packages/nvidia/cu13)
  mkdir -p "$_dir/link"
  for _l in libnvrtc libcurand libcublas libcublasLt libcudart; do
    ln -sf "$(ls "$_cu"/lib/$_l.so.* | head -1)" "$_dir/link/$_l.so"
  done
  grep -ohE '\bcu[A-Z][A-Za-z0-9_]*' "$_cu/include/cuda.h" | sed -E 's/_v[0-9]+$//' | sort -u \
    | awk '{print "int "$1"(void){return 100;}"; for(v=2;v<=4;v++) print "int "$1"_v"v"(void){return 100;}"}' >"$_dir/stub.c"
  cc -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o "$_dir/link/libcuda.so" "$_dir/stub.c" || return 1
  ln -sfn "$_cu" "$_dir/cuda"
  touch "$_dir/ok"
fi
export CUDA_HOME=$_dir/cuda CUDA_PATH=$_dir/cuda CUDA_ROOT=$_dir/cuda CUDA_TOOLKIT_ROOT_DIR=$_dir/cuda
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90} PATH=$_dir/cuda/bin:$PATH LIBRARY_PATH=$_dir/link${LIBRARY_PATH:+:$LIBRARY_PATH}
