#!/bin/sh
# Makes build/serving/venv: what the service needs, at the project's pins, and the servers of others.
set -eu
cd "$(dirname "$0")/../../.."
python="${PYTHON:-python3.11}"
"$python" -m venv --clear build/serving/venv
build/serving/venv/bin/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt --constraint tests/benchmarks/serving/constraints.txt '.[serve,cpu]' litserve mosec
