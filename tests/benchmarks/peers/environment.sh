#!/bin/sh
# Makes the libraries' own environment in build/peers/venv: they want older NumPy and SciPy than the project does.
# `--no-deps`, since every package is pinned in requirements.txt; torch and transformers, which libpecos names, are left
# out: XR-Linear does not import them.
set -eu
cd "$(dirname "$0")/../../.."
python="${PYTHON:-python3.11}"
"$python" -m venv --clear build/peers/venv
build/peers/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	--requirement tests/benchmarks/peers/requirements.txt
