#!/usr/bin/env bash
# Makes the environment that benchmarks/engine.py runs toto-ts in: `benchmarks/setup_peer.sh [FOLDER]`.
# Its pins conflict with a current torch, so it is installed without them, apart from everything of ours.
set -euo pipefail
folder=${1:-.autotune/peer}
python=${PYTHON:-python3.11}
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet torch==2.13.0
"$folder/bin/python" -m pip install --quiet --no-deps toto-ts==0.2.0
"$folder/bin/python" -m pip install --quiet gluonts==0.17.0 rotary-embedding-torch==0.9.1 einops==0.8.2 \
  jaxtyping==0.3.11 huggingface_hub==2.4.0 safetensors==0.8.0 scipy==1.17.1 lightning==2.6.6
"$folder/bin/python" -c 'from toto.model.toto import Toto; print("toto-ts is ready in", __import__("sys").prefix)'
