#!/usr/bin/env bash
# Makes the environment that benchmarks/engine2.py runs the public package of Toto 2.0 in:
# `benchmarks/setup_peer2.sh [FOLDER]`. The package and its unit scaling are installed without their pins.
set -euo pipefail
folder=${1:-.autotune/peer2}
python=${PYTHON:-python3.11}
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet torch==2.13.0
"$folder/bin/python" -m pip install --quiet --no-deps timecopilot-toto-2==0.1.1 timecopilot-dd-unit-scaling==0.1.0 \
  unit-scaling==0.3.5
"$folder/bin/python" -m pip install --quiet gluonts==0.17.0 lightning==2.6.6 scipy==1.17.1 einops==0.8.2 \
  jaxtyping==0.3.11 huggingface_hub==2.4.0 safetensors==0.8.0 docstring-parser tabulate
"$folder/bin/python" -W ignore -c 'import toto2; print("Toto 2.0 is ready in", __import__("sys").prefix)'
