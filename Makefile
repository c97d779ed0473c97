# Two commands do all the set-up on a fresh machine: make engine, make test. All of it stays in .venv and build/.
PYTHON ?= python3
ARTIFACTS ?= build/ccnet
RESULTS ?= build/result
WEIGHTS ?=
FRAME ?= $(shell $(BIN)/python -c "import importlib.util as u, pathlib as p; print(p.Path(u.find_spec('skimage').origin).parent / 'data/coffee.png')")
BUNDLE ?=
TARGET ?=
DATA ?= ../shared/data
MINUTES ?= 60
JOBS ?= 2

BIN := .venv/bin
INSTALLED := .venv/installed
DEVICE := .venv/device
CCNET := $(BIN)/ccnet
weights := $(if $(WEIGHTS),--weights $(WEIGHTS))
CHECK_PYTHON := 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "Python 3.10 or later is needed: make PYTHON=...")'
target := $(if $(TARGET),--target $(TARGET))

.DEFAULT_GOAL := help
.PHONY: help install engine bundle demo dist test test-fast test-arm64 lint docs sanitize soak train evaluate cameras pictures bench bench-train gpu-day clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED)  ## the environment, .venv, for this machine or for TARGET=cpu, gpu, gpu-cu12, jetson, rtx

# Another TARGET than the environment was made for: install again
.PHONY: $(if $(TARGET),$(foreach stamp,$(INSTALLED) $(DEVICE)/installed,\
  $(if $(filter $(TARGET),$(shell cat $(stamp) 2> /dev/null)),,$(stamp))))

$(INSTALLED): pyproject.toml constraints.txt $(wildcard ccnet/csrc/*/*.[ch])
	@$(PYTHON) -c $(CHECK_PYTHON)
	@$(PYTHON) -m export.install .venv $(target)

ifdef BUNDLE
# On a camera's computer: TensorRT (on a Jetson the system's), numpy and ONNX Runtime, no torch
engine: $(DEVICE)/installed
	$(DEVICE)/bin/python -m ccnet.export.device '$(BUNDLE)' $(ARTIFACTS)
else
engine: $(INSTALLED)  ## weights to ONNX to the best engine here, and a real FRAME through it, compared with PyTorch; on a device without torch: BUNDLE=
	$(CCNET) export $(ARTIFACTS) $(weights)
	$(CCNET) build $(ARTIFACTS)
	$(CCNET) check $(ARTIFACTS) $(weights) --frames '$(FRAME)' --out $(RESULTS)
endif

$(DEVICE)/installed: pyproject.toml constraints.txt $(wildcard ccnet/csrc/*/*.[ch])
	@$(PYTHON) -c $(CHECK_PYTHON)
	@$(PYTHON) -m export.install $(DEVICE) --device $(target)

bundle: $(INSTALLED)  ## the graphs and golden outputs of FRAME in one file, for make engine BUNDLE=... on a device
	$(CCNET) export $(ARTIFACTS) $(weights)
	$(CCNET) bundle $(ARTIFACTS) $(weights) --frames '$(FRAME)' --out build/ccnet-bundle.zip

dist: $(INSTALLED)  ## for other machines, in dist: an archive of the sources, which compiles there, and a wheel without C code
	rm -rf dist
	$(BIN)/python -W ignore -c 'import setuptools.build_meta as build; build.build_sdist("dist")' > /dev/null
	CCNET_PURE=1 $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-cache-dir --no-deps --wheel-dir dist dist/*.tar.gz

demo: $(INSTALLED)  ## FRAME to its cube and picture with what make engine built
	$(CCNET) reconstruct '$(FRAME)' --artifacts $(ARTIFACTS) -o $(RESULTS)/demo.hdr --picture $(RESULTS)/demo.png

test: lint  ## lint, types and all tests, in JOBS processes
	$(BIN)/pytest -n $(JOBS) --dist loadfile --durations 10

test-fast: $(INSTALLED)  ## the tests without the slow ones
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m 'not slow'

test-arm64: dist  ## what make dist wrote and a bundle, on an emulated arm64 Debian; skipped with a reason where that cannot be had
	$(BIN)/python tests/arm64/arm64.py build/arm64 '$(FRAME)'

lint: $(INSTALLED)  ## style, docstrings, spelling and types; 'pre-commit install' runs the same before each commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy -p ccnet

docs: $(INSTALLED)  ## the documents and the reference of the API as web pages in build/docs; a warning is an error
	$(BIN)/sphinx-build -q -W --keep-going docs build/docs

# A copy of the package with the C code built for the sanitizers; Python itself is not, so their runtime is preloaded
SANITIZE := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -DCCNET_NO_CLONES
sanitize: $(INSTALLED)  ## the C code's tests under the address and the undefined behaviour sanitizer, with gcc
	rm -rf build/sanitize && mkdir -p build/sanitize
	cp -RL ccnet tests pyproject.toml build/sanitize/
	rm -f build/sanitize/ccnet/csrc/_kernels*
	gcc -std=c11 $(SANITIZE) -shared -fPIC -ffast-math -fno-finite-math-only -Iccnet/csrc ccnet/csrc/*/*.c -lm \
	  -o build/sanitize/ccnet/csrc/_kernels.so
	cd build/sanitize && PYTHONPATH=$$PWD LD_PRELOAD=$$(gcc -print-file-name=libasan.so):$$(gcc -print-file-name=libubsan.so) \
	  ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=2 $(abspath $(BIN))/pytest -p no:cacheprovider \
	  tests/ccnet/ops tests/ccnet/csrc tests/ccnet/model/test_layers.py tests/export/graph/test_fuse.py

soak: $(INSTALLED)  ## two cameras and a second writer for half an hour, with faults of every kind, on what make engine built
	$(BIN)/python tests/soak/soak.py --artifacts $(ARTIFACTS)

train: $(INSTALLED)  ## weights for the benchmark camera from the CAVE folders in DATA, in MINUTES
	$(CCNET) train --preset short --minutes $(MINUTES) --data cave:$(DATA)/cave/train --val cave:$(DATA)/cave/val \
	  --camera $(DATA)/cameras/cie_1964_w_gain.npz --out runs/cave

evaluate: $(INSTALLED)  ## the shipped weights, or WEIGHTS, and the regressions on the validation scenes, with pictures
	$(CCNET) evaluate $(weights) --correct --data cave:$(DATA)/cave/val --train cave:$(DATA)/cave/train \
	  --camera $(DATA)/cameras/cie_1964_w_gain.npz --out build/evaluation

cameras: $(INSTALLED)  ## the same on cameras of brands that weights were not trained on, behind colour matrices, and on photographs
	$(CCNET) evaluate-cameras $(weights) --data cave:$(DATA)/cave/val --train cave:$(DATA)/cave/train --camera $(DATA)/cameras/camera \
	  $(addprefix --held-out-brand ,ARRI Arashi Fujifilm Hasselblad Nikon Panasonic) --threads 1 --json build/cameras.json

pictures: $(INSTALLED)  ## the viewer's pictures in docs/images, in a headless chromium, on what make engine built; skipped with a reason without it
	$(BIN)/python tests/runtime/apps/view/pictures.py '$(FRAME)' --artifacts $(ARTIFACTS) --out docs/images

bench: $(INSTALLED)  ## inference beside the paper's loop, PyTorch, OpenVINO and MST++'s design, on this CPU, in half an hour
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(CCNET) bench

bench-train: $(INSTALLED)  ## the training step beside the paper's loop through autograd, on this CPU
	$(CCNET) bench-train

# With torch for CUDA: that of .venv where there is one, else of PYTHON; nothing is installed
gpu-day:  ## on a machine with a GPU: measurements that decide designs, in eight minutes, to RESULTS/gpu-day.json and .md
	@mkdir -p $(RESULTS)
	@PYTHONPATH='$(CURDIR)' $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m ccnet.export.gpu_day --out $(RESULTS)/gpu-day.json

clean:  ## remove what was built, not the environment
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
