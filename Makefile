# Thin over the scripts in hack/: what happens stands there. `make` or `make help` lists the targets.
SHELL := bash
.DEFAULT_GOAL := help

KIND_CLUSTER ?= kind

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: YES=1 (demo asks nothing), DSN_E2E_KUBECONFIG=FILE (use that cluster), REGISTRY=… (images)"

.PHONY: demo demo-down
demo: ## A cluster, two cameras, footage on IPFS, a page to watch it
	@hack/demo up
demo-down: ## Remove everything that `make demo` started
	@hack/demo down

.PHONY: test e2e
test: ## Every test, end to end on a real cluster; from a fresh clone on a fresh machine
	@hack/test
e2e: ## Only the end-to-end tests (cluster `test`; some cannot pass with DSN_E2E_KUBECONFIG)
	@hack/test program tools cluster e2e

.PHONY: bench
bench: ## Measure against floors and peers, an hour or more (ONLY=converge; WRITE=1 into docs/benchmarks.md)
	@hack/bench $(ONLY)

.PHONY: build ui lint fmt crds install-yaml deny
build: ui ## The program: target/release/dsn
	cargo build --release
ui: ## What the page is made of, from npm
	npm ci --prefix ui --no-audit --no-fund
lint: ## Format, clippy, shellcheck
	@hack/test format shell ui clippy
fmt: ## Format the sources
	cargo fmt
crds: ## Write crds/ and the chart's copies from the types in src/api
	hack/crds
install-yaml: ## Write manifests/install.yaml from the chart
	hack/install-yaml
deny: ## Licences, bans and sources of the dependencies (installs cargo-deny)
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny check licenses bans sources

.PHONY: images kind-load
images: build ## Container images; with REGISTRY=registry.example.com/dsn they are pushed there too
	hack/images build
	@if [[ -n "$(REGISTRY)" ]]; then hack/images push "$(REGISTRY)"; fi
kind-load: build ## Load the images into a kind cluster (KIND_CLUSTER=kind)
	hack/images kind-load "$(KIND_CLUSTER)"

.PHONY: cluster-up cluster-down
cluster-up: ## Only the local cluster `demo`
	hack/cluster/cluster up demo
cluster-down: ## Remove the local clusters `demo` and `test`
	hack/cluster/cluster down demo
	hack/cluster/cluster down test
