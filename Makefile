# Two commands do all: `make run` and `make test`. Both install what is missing first.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

CARGO ?= cargo
DATA ?= data
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release/redoubt
# What is measured is built as what is shipped.
BENCH := $(CARGO) bench --profile dist --workspace --locked --bench

.PHONY: help setup setup-servers run attack test lint unit test-stores test-brokers bench soak servers servers-stop cluster-up cluster-down test-cluster test-cluster-short generate clean

help: ## Say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 15

setup: ## Install what building and testing need (a C compiler, Rust's toolchain, RabbitMQ)
	@tests/setup

setup-servers: ## Install the RabbitMQ and the Elasticsearch that tests start for themselves, too
	@tests/setup servers

run: setup ## Run the SIEM here on the sample resources, and play a small attack into it
	$(CARGO) build --release --locked --bin redoubt
	@config/samples/run $(RELEASE) $(DATA)

attack: ## Play the small attack into the SIEM that `make run` started, once more
	@config/samples/play $(RELEASE) $(DATA)

test: setup-servers lint unit ## All checks: formatting, lints, documentation, every test

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

# Tests that need a server which this machine cannot have say so and are passed over; with REDOUBT_REQUIRE_SERVERS=1 they fail.
unit:
	$(CARGO) test --workspace --locked

test-stores: ## The tests of the store with the other servers that it is made for: Elasticsearch 8, OpenSearch 3 and 2
	@for store in elasticsearch-8 opensearch-3 opensearch-2; do \
		echo "$$store"; \
		REDOUBT_TEST_STORE=$$store REDOUBT_REQUIRE_SERVERS=1 $(CARGO) test --workspace --locked --test conformance store::elasticsearch || exit 1; \
	done

test-brokers: ## The tests of the queue with RabbitMQ 4, from Debian 13's packages
	REDOUBT_TEST_BROKER=rabbitmq-4 REDOUBT_REQUIRE_SERVERS=1 $(CARGO) test --workspace --locked --test conformance broker::rabbitmq

servers: setup-servers ## Start the servers that Redoubt works with, for development, and leave them running
	@tests/up

servers-stop: ## Stop them
	@tests/down

cluster-up: ## Start a real Kubernetes of one node for development, and leave it running (needs root, Go, Debian)
	@tests/cluster/cluster up target/cluster

cluster-down: ## End it, with all that runs on it
	@tests/cluster/cluster down target/cluster

test-cluster: test-cluster-short ## All checks that need a Kubernetes: those, the images, and each process by itself at the API
	@tests/images/selftest
	@tests/cluster/api

test-cluster-short: setup-servers ## Those of them that run on each change: it itself, the chart, the operator, many rules, upgrades, chaos
	@tests/cluster/selftest
	@tests/cluster/packaging
	@tests/cluster/operator
	@tests/cluster/scale
	@tests/cluster/upgrade
	@tests/cluster/chaos

bench: setup-servers ## Measure the engine beside bare rule matching, and the whole path from HTTP to the store (needs the corpora)
	$(BENCH) engine
	$(BENCH) pipeline
	$(BENCH) broker
	REDOUBT_TEST_ELASTICSEARCH_HEAP=2g $(BENCH) elastic
	REDOUBT_TEST_ELASTICSEARCH_HEAP=2g $(BENCH) servers

# A million events while every process and server is killed over and over: about half an hour.
soak: setup-servers ## Count a million events while every process and server is killed, ten times each
	REDOUBT_SOAK_EVENTS=$${REDOUBT_SOAK_EVENTS:-1000000} REDOUBT_REQUIRE_SERVERS=1 $(CARGO) test --release --workspace --locked \
		--test e2e -- under_fire --nocapture

generate: ## Write the manifests and reference pages that come from the types
	$(CARGO) run --locked -p redoubt-crds

clean: ## Take away what building and running left behind
	$(CARGO) clean
	rm -rf $(DATA)
