# Every command of the project; `make` alone lists them.
#
# The environment is .venv, made when it is missing or the pins changed. Models are trained once: their files are the
# targets of rules, so a step that was interrupted goes on where it stopped and a finished one is not repeated.

SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help serve demo test lint pins version sbom clean

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
# A point of the test split: no model has seen it.
QUERY ?= python3-requests-ntlm Adds support for NTLM authentication to the requests library

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXTRAS := serve,client,grpc,signing,otel,predictions,monitoring,train,transformer,ray,export,cpu,dev
METHODS := mach declare unidec
ARTIFACTS := $(METHODS:%=build/artifacts/%/config.json)
BUNDLES := $(METHODS:%=build/bundles/%/manifest.json)
PIP_INSTALL := -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt

# A finished bundle does not ask for its artifact back, and make never deletes one.
.SECONDARY: $(ARTIFACTS)

IS_NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'

# Prints the first interpreter that is new enough, or says what is missing.
define find_python
for candidate in $(PYTHON) python3.14 python3.13 python3.12 python3.11; do \
	if "$$candidate" $(IS_NEW_ENOUGH) 2>/dev/null; then \
		echo "$$candidate"; exit; \
	fi; \
done; \
echo "Python 3.11 or newer is needed, but $(PYTHON) is: $$($(PYTHON) --version 2>&1 || true). Name one: make PYTHON=/path/to/python3.11" >&2; \
exit 1
endef

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s%s\n", $$1, $$2 }' Makefile

serve: $(BUNDLES) | $(INSTALLED) ## train and export the sample if that is not done yet, then serve it on port 8000
	@echo "==> Serving on http://127.0.0.1:$(PORT); Ctrl-C ends it. A query to try from another terminal:"
	@echo
	@echo "curl -s http://127.0.0.1:$(PORT)/predict -H 'Content-Type: application/json' \\"
	@echo "     -d '{\"model\": \"unidec\", \"queries\": [\"$(QUERY)\"], \"k\": 5}'"
	@echo
	@exec $(BIN)/xmc-serve run --port $(PORT) $(METHODS:%=--bundle build/bundles/%)

demo: $(BUNDLES) | $(INSTALLED) ## the same without staying: ask every model one query, print its labels, stop
	@echo "==> Starting the server, asking each model one query and stopping it (a few seconds)"
	@$(BIN)/python -m service.demo --query '$(subst ','\'',$(QUERY))' $(BUNDLES:%/manifest.json=%)

test: lint ## what CI runs: the linters, the type checker and every test
	@echo "==> Tests (some minutes)"
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: $(INSTALLED) ## the linters and the type checker alone
	@echo "==> ruff and mypy (the first time takes a minute)"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

build/artifacts/%/config.json: | $(INSTALLED)
	@echo "==> Training $* on the embedded sample (some three minutes on two cores)"
	@$(BIN)/xmc-train fit --data sample --method $* --out build/artifacts/$* --resume

build/bundles/%/manifest.json: build/artifacts/%/config.json
	@echo "==> Exporting $* (some seconds)"
	@$(BIN)/xmc-export build build/artifacts/$* --out build/bundles/$*

$(INSTALLED): constraints.txt pyproject.toml
	@python=$$($(find_python)) || exit 1; \
	echo "==> Installing the pinned packages into $(VENV) (one to three minutes, most of it downloads)"; \
	if ! { $(BIN)/python $(IS_NEW_ENOUGH) && $(BIN)/python -m pip --version; } >/dev/null 2>&1; then \
		"$$python" -m venv --clear $(VENV) || { \
			echo "The environment could not be made. On Debian and Ubuntu, venv is a package: apt install python3-venv" >&2; \
			exit 1; \
		}; \
	fi
	@$(BIN)/python $(PIP_INSTALL) hatchling editables
	@$(BIN)/python $(PIP_INSTALL) --no-build-isolation --editable '.[$(EXTRAS)]'
	@touch $@

# Pins are drawn on the oldest supported Python, because new releases drop it first. A new torch is a decision of its own
# (it moves the measured figures), and the CUDA libraries of some of its builds are left to it.
TORCH := 2.13.0
RESOLVE := -m pip install --dry-run --ignore-installed --disable-pip-version-check

pins: $(INSTALLED) ## draw new pins: the newest versions that fit together, without installing them
	@$(BIN)/python -c 'import sys; sys.exit(None if sys.version_info[:2] == (3, 11) else "Pins are drawn on Python 3.11: make pins VENV=build/venv-pins PYTHON=python3.11")'
	@echo "==> Resolving every extra (one to two minutes)"
	@mkdir -p build
	@$(BIN)/python $(RESOLVE) torch==$(TORCH) '.[$(EXTRAS)]' >build/resolved.txt
	@$(BIN)/python $(RESOLVE) --no-deps onnxruntime-gpu >>build/resolved.txt
	@{ sed -n '/^#/p' constraints.txt; \
	   sed -n 's/^Would install //p' build/resolved.txt | tr ' ' '\n' \
	   | sed -E -e '/^(xmcserve|nvidia|cuda|triton|setuptools)-/d' -e 's/-([0-9][^-]*)$$/==\1/' -e 's/[+].*//' \
	   | LC_ALL=C sort -f -u; } >build/constraints.txt
	@mv build/constraints.txt constraints.txt
	@echo "constraints.txt is written; make test installs and tries it"

# Where tags of images stand; tests/contract/test_version.py finds those that are not said here.
VERSIONED := docker k8s README.md

version: ## write the version NEW=1.2.3 wherever it stands: pyproject.toml, and tags and labels of images
	@echo '$(NEW)' | grep -Eqx '[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?' || { \
		echo "Expected a version, as in make version NEW=1.2.3, but found: $(NEW)" >&2; exit 1; }
	@sed -i.old -E 's/^version = ".*"$$/version = "$(NEW)"/' pyproject.toml
	@grep -rlE '(xmcserve[a-z-]*:|ARG VERSION=|newTag: "?)[0-9]' $(VERSIONED) | while read -r file; do \
		sed -i.old -E 's/(xmcserve[a-z-]*:|ARG VERSION=|newTag: "?)[0-9][0-9a-z.]*/\1$(NEW)/g' "$$file"; rm "$$file.old"; \
	done
	@rm pyproject.toml.old
	@echo "This is $(NEW) now. make test says whether CHANGELOG.md has a section for it."

sbom: $(INSTALLED) ## write bills of materials and licence lists of every extra into build/sbom and build/licences
	@echo "==> Fetching the wheels of the GPU's flavour, which is not installed beside the CPU's (1.6 GB)"
	@mkdir -p build/wheels
	@$(BIN)/python -c 'from tests.release.closure import requirements; print(*requirements("gpu"), sep="\n")' >build/gpu.txt
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --constraint constraints.txt \
		--only-binary :all: --dest build/wheels --requirement build/gpu.txt
	@$(BIN)/python -m tests.release.bills --out build --wheels build/wheels

clean: ## delete trained models, bundles and caches; the environment stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
