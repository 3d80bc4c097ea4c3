# Everything runs inside .venv, which the first target that needs it makes. `make` alone lists the targets.

.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON ?= python3
# extra words for the installation of torch alone, such as an --index-url of CPU builds
TORCH_ARGS ?=
# where `make ui` listens on this machine
PORT ?= 3000
Q ?=
SELECT ?= report
# for `make demo` and `make plan`: a folder of pictures, a table, tar shards, a dataset; the command line alone gives it, with any signs in it, and no variable of the shell's does
ifeq ($(origin SOURCE),command line)
override SOURCE := $(value SOURCE)
else
SOURCE :=
endif
# for `make rollback`: a tag or number of `make versions`; without it, the publish before the visible one. From the command line alone, too
ifneq ($(origin VERSION),command line)
VERSION :=
endif
export Q SELECT NAME SOURCE VERSION TO
# for `make share`: an address, from the command line alone
ifneq ($(origin TO),command line)
TO :=
endif
# for `make seeds`: how many, and how many side by side
N ?= 3
J ?= 1
# for `make profile`: demo, vit_b_32, vit_l_14_336 or siglip_so400m
NAME ?=

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export DAGSTER_HOME := $(CURDIR)/.dagster

VENV := .venv/installed
RUN := .venv/bin/python -m

.PHONY: help demo test lint format lock report seeds search serve judgements versions rollback share promote record gains code materialize ui benchmark profile check-profiles clean scm plan

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(VENV) scm ## make everything that is out of date, then show the results: make demo, or make demo SOURCE=/path/to/pictures
	@test -z "$$SOURCE" || $(RUN) assets.commands.source "$$SOURCE"
	@$(RUN) assets.commands.code --sources
	@stages="$$($(RUN) assets --check)" && $(RUN) assets.commands.plan || exit $$?; \
	  code=0; $(RUN) dvc repro $$stages || { code=$$?; $(RUN) dvc status --quiet --with-deps report; } \
	  && { $(RUN) assets.commands.summary || code=$$?; }; exit $$code

plan: $(VENV) ## what `make demo` would do: counts, time, memory, what cannot be measured. SOURCE=… is set as there
	@test -z "$$SOURCE" || $(RUN) assets.commands.source "$$SOURCE"
	@$(RUN) assets.commands.code --sources
	@stages="$$($(RUN) assets --check)" && $(RUN) assets.commands.plan

test: lint ## everything that .ci/run checks: lint, README and dvc.yaml against what they show, pytest
	$(RUN) assets.commands.record --check
	$(RUN) assets.commands.code --check
	$(RUN) pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV) ## ruff, mypy, and the rules of who may import whom
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	.venv/bin/python .venv/bin/lint-imports

format: $(VENV) ## rewrite the code as ruff wants it
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

report: $(VENV) scm ## bring the report up to date
	@$(RUN) dvc repro report

seeds: $(VENV) scm ## repeat training and evaluation with N seeds, J at a time: make seeds N=3 J=1
	@$(RUN) orchestration.seeds "$(N)" "$(J)"

search: $(VENV) ## search the table: make search Q="a red heart"; without Q, open its page as `make serve` does
	@if [ -n "$$Q" ]; then exec $(RUN) assets.search_table "$$Q"; else exec $(RUN) assets.service; fi

serve: $(VENV) ## a page and a JSON API for searching the table, on this machine alone: make serve, or make serve PORT=8001
	@exec $(RUN) assets.service $(if $(filter command line,$(origin PORT)),--port "$(PORT)")

versions: $(VENV) ## list the published versions of the table
	@$(RUN) assets.commands.versions

judgements: $(VENV) ## compare each published version with what people judged on its page
	@$(RUN) assets.commands.judgements

rollback: $(VENV) ## show an earlier version of the table again: make rollback, or make rollback VERSION=publish-0007
	@$(RUN) assets.commands.rollback "$$VERSION"

share: $(VENV) ## copy the published table, its versions and models to an address: make share TO=s3://bucket/lancedb
	@$(RUN) assets.commands.share "$$TO"

promote: $(VENV) scm ## make the published recipe the champion, which later ones are compared with
	@$(RUN) assets.commands.promote && $(RUN) dvc repro --single-item champion

record: $(VENV) ## copy this run's figures and pictures to data/record and write them into README.md
	@$(RUN) assets.commands.record

gains: $(VENV) ## record what the defaults gain on the pictures at hand: make gains NAME=photographs
	@$(RUN) assets.commands.gains "$$NAME"

code: $(VENV) ## write into dvc.yaml which files under assets/ each stage imports, and the sources' paths
	@$(RUN) assets.commands.code

materialize: $(VENV) scm ## run stages through Dagster: make materialize SELECT='evaluation/mcip_rea+'
	@mkdir -p .dagster && cp orchestration/dagster.yaml .dagster/dagster.yaml
	@exec $(RUN) dagster asset materialize --select "$$SELECT" -m orchestration.definitions

ui: $(VENV) scm ## open Dagster's pages on http://127.0.0.1:3000 (or PORT=3001)
	@mkdir -p .dagster && cp orchestration/dagster.yaml .dagster/dagster.yaml
	@exec $(RUN) dagster dev -m orchestration.definitions -h 127.0.0.1 -p $(PORT)

benchmark: $(VENV) ## measure speed and memory as ratios; the machine should be idle otherwise
	@for module in $(basename $(notdir $(wildcard tests/benchmarks/*.py))); do echo "== $$module"; $(RUN) tests.benchmarks.$$module || exit 1; done

profile: $(VENV) ## put a profile's settings into params.yaml: make profile NAME=vit_b_32
	@$(RUN) assets.profiles use "$$NAME" && $(RUN) assets.commands.code --sources

check-profiles: $(VENV) ## check every profile and print what training it costs
	@$(RUN) assets.profiles

lock: $(VENV) ## write requirements.lock from pyproject.toml, keeping versions that still fit
	@test -x .cache/uv/bin/uv || { .venv/bin/python -m venv .cache/uv && .cache/uv/bin/python -m pip install --quiet uv; }
	.cache/uv/bin/uv pip compile pyproject.toml --group dev --quiet --output-file requirements.lock

clean: ## remove caches and training state, but nothing that the pipeline made
	rm -rf .cache dvc_plots .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find assets orchestration tests -name __pycache__ -type d -prune -exec rm -rf {} +

# dvc asks for git unless told otherwise. In a checkout without one, such as an unpacked archive, it is told; once git is there, no longer.
scm: $(VENV)
	@above="$$PWD"; while [ ! -e "$$above/.git" ] && [ "$$above" != / ]; do above="$$(dirname "$$above")"; done; \
	  if [ -e "$$above/.git" ]; then \
	    if grep -qs '^ *no_scm' .dvc/config.local; then $(RUN) dvc config --local --unset core.no_scm; fi; \
	  elif ! grep -qs '^ *no_scm' .dvc/config.local; then \
	    $(RUN) dvc config --local core.no_scm true && echo "no git here: dvc works without it (.dvc/config.local, core.no_scm), except \`dvc metrics diff\`" >&2; \
	  fi

# torch comes in one build per accelerator, so the lock leaves out torch and its CUDA libraries: pip picks the build, pyproject.toml the version.
$(VENV): requirements.lock pyproject.toml .ci/torchvision_without_cuda.py
	@$(RUN) pip --version >/dev/null 2>&1 || { \
	  for python in "$(PYTHON)" python3 python3.14 python3.13 python3.12 python3.11; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	  done; \
	  test -n "$$python" || { echo "error: no Python 3.11 or later on PATH (python3: $$(python3 -V 2>/dev/null || echo none)). Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	  echo "making .venv with $$("$$python" -V); installing takes a few minutes, once"; \
	  "$$python" -m venv --clear .venv || { rm -rf .venv; echo "error: $$python -m venv failed. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	}
	@$(RUN) pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(RUN) pip install --quiet --disable-pip-version-check $(TORCH_ARGS) "$$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
	@packages="$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" && \
	  cp .ci/torchvision_without_cuda.py "$$packages/" && echo 'import torchvision_without_cuda' > "$$packages/torchvision_without_cuda.pth"
	@touch $@
