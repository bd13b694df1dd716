#!/bin/sh
# Makes build/serving/venv: what the service needs, at the project's pins, and the servers of others. BentoML has an
# environment of its own, build/serving/venv-bentoml: it takes neither the pinned certifi nor the pinned
# opentelemetry-api, of which the core uses neither.
set -eu
cd "$(dirname "$0")/../../.."
python="${PYTHON:-python3.11}"

# Usage: make_environment FOLDER PINS SERVER...
make_environment() {
	folder="$1"
	pins="$2"
	shift 2
	"$python" -m venv --clear "$folder"
	"$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
		--constraint "$pins" --constraint tests/benchmarks/serving/constraints.txt '.[serve,cpu]' "$@"
}

mkdir -p build/serving
make_environment build/serving/venv constraints.txt litserve mosec
grep -vE '^(certifi|opentelemetry-api)==' constraints.txt >build/serving/constraints-bentoml.txt
make_environment build/serving/venv-bentoml build/serving/constraints-bentoml.txt bentoml
