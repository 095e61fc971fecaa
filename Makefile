# Reprise. `make` lists what there is.
#
# Everything a target needs beyond Go, Node and make it installs: pinned tools
# into .bin, npm packages by the lock file, and, on Debian as root, the
# packages a target misses.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

BIN  := $(CURDIR)/.bin
PATH := $(BIN):$(PATH)
export PATH

# How long `make fuzz` gives each target and `make soak` runs, and how often a
# conversation has its server killed.
FUZZTIME ?= 10s
SOAK     ?= 10m
SEEDS    ?= 1000
SEED     ?= 1
KILLS    ?= 20

# Connect's conformance suite.
CONFORMANCE := v1.0.7

# What `make bench` runs.
BENCH ?= quick

##@ Every day

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## the command, as ./reprise (the page is embedded as committed; no Node)
	go build -o reprise ./cmd/reprise

.PHONY: test
test: deps ## THE test command: everything, on a fresh Debian machine with Go, Node and make
	@$(MAKE) test-go
	@$(MAKE) test-sim
	@$(MAKE) test-damage
	@$(MAKE) test-fuzz
	@$(MAKE) test-controls
	@$(MAKE) test-faults
	@$(MAKE) test-transcript
	@$(MAKE) test-conformance
	@$(MAKE) test-webclients
	@$(MAKE) test-proxies
	@$(MAKE) test-web
	@$(MAKE) test-conversation
	@$(MAKE) test-bench

.PHONY: test-go
test-go: need-cc ## the quick part: go test -race -timeout 20m ./...
	go test -race -timeout 20m ./...

.PHONY: lint
lint: $(BIN)/buf $(BIN)/golangci-lint web/node_modules ## contract, format, vet, linters, types, go.mod
	buf lint
	buf breaking --against .ci/contract.binpb
	@unformatted=$$(git ls-files -z '*.go' | xargs -0 -r gofmt -l); \
	  if [ -n "$$unformatted" ]; then echo "not formatted, run gofmt -w:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	golangci-lint run ./...
	cd bench && go vet ./... && golangci-lint run ./... && go mod tidy -diff
	npm --prefix web run check
	go mod tidy -diff

.PHONY: generate
generate: $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc web/node_modules ## gen/ from proto/
	buf generate

.PHONY: web
web: web/node_modules ## web/dist, the page that the binary embeds
	npm --prefix web run build

.PHONY: clean
clean: ## remove what builds and tests leave here, but no tools and no data
	rm -rf reprise coverage web/test-results
	find . -name '*.test' -not -path './web/node_modules/*' -type f -delete

##@ Parts of the test command

.PHONY: test-sim
test-sim: ## the simulation: a fixed set of seeds, and new ones for a while
	go test -count=1 -timeout 10m -run '^TestSim$$' ./server/internal/sim -fixed 30 -random 30s

.PHONY: test-damage
test-damage: ## flipped bits and bytes, and cuts, in every file of a data directory; each operation of the file system failing in turn
	go test -count=1 -timeout 10m -v -run '^(TestDamage|TestP1_DiskFaults)$$' ./server/internal/store/pebble -flips 14 -every 1 | sed -E '/^ *(===|--- PASS)/d'

.PHONY: test-fuzz
test-fuzz: ## every fuzz target 3000 times: all that decodes bytes from outside or from disk
	@$(MAKE) fuzz FUZZTIME=3000x # by number: with a time, Go's fuzzer now and then takes its own deadline for a failure

.PHONY: test-controls
test-controls: ## negative controls: break each rule, and require its promise's test to notice
	REPRISE_CONTROLS=1 go test -count=1 -timeout 15m -v -run '^TestControls$$' ./internal/controls

.PHONY: test-faults
test-faults: ## the real server killed, stopped, unplugged and cut off, under load
	REPRISE_FAULTS=1 go test -count=1 -parallel 4 -timeout 15m ./internal/robustness

.PHONY: test-transcript
test-transcript: $(BIN)/grpcurl ## the README's grpcurl lines, against a real server, on a busy machine
	REPRISE_TRANSCRIPT=1 go test -count=1 -run '^TestP12_READMETranscript$$' ./internal/transcript

.PHONY: test-conformance
test-conformance: $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc $(BIN)/connectconformance web/node_modules ## public suites against both edges and the TypeScript SDK: Connect's, grpc-go's interop cases, h2spec
	cd server/internal/conformance && rm -rf gen && go mod download connectrpc.com/conformance@$(CONFORMANCE) && \
	  suite="$$(go list -m -f '{{.Dir}}' connectrpc.com/conformance@$(CONFORMANCE))" && \
	  buf generate "$$suite/proto" && mkdir gen/suites && for s in client_cancellation server_message_size; do \
	    sed '/^mode: /d' "$$suite/internal/app/connectconformance/testsuites/data/$$s.yaml" >gen/suites/$$s.yaml || exit 1; done && \
	  ../../../web/node_modules/.bin/tsc -p . && \
	  go test -count=1 -timeout 10m ./...

.PHONY: test-webclients
test-webclients: internal/webclients/node_modules ## what the gateway refuses, seen through connect-web, Google's grpc-web and @improbable-eng/grpc-web
	REPRISE_WEBCLIENTS=1 go test -count=1 ./internal/webclients

internal/webclients/node_modules: internal/webclients/package-lock.json
	npm --prefix internal/webclients ci --no-audit --no-fund
	@touch $@

.PHONY: test-proxies
test-proxies: ## nginx and HAProxy with the configurations of docs/proxies.md, in front of a server
	@$(call need,nginx,nginx-light,a test runs the real proxies)
	@$(call need,haproxy,haproxy,a test runs the real proxies)
	REPRISE_PROXIES=1 go test -count=1 -run '^TestProxies$$' ./server

.PHONY: test-web
test-web: web/node_modules need-chromium ## the page: its parts in Node, and all of it in Chromium
	npm --prefix web test
	npm --prefix web run e2e

.PHONY: test-conversation
test-conversation: $(BIN)/grpcurl web/node_modules need-cc need-chromium ## Go, grpcurl and the page in one room, the server killed KILLS (20) times
	REPRISE_CONVERSATION=$(KILLS) go test -race -count=1 -timeout 15m -v -run '^TestConversation' ./internal/conversation

.PHONY: test-exactly-once
test-exactly-once: ## the SDK's exactly-once example, killed KILLS (20) times in each of its two ways
	REPRISE_EXACTLY_ONCE=$(KILLS) go test -count=1 -timeout 30m -v -run '^TestP2_ExactlyOnce' ./internal/exactlyonce

.PHONY: test-bench
test-bench: bench/peers/socketio/node_modules ## the benchmarks' own tests: every one of them runs once, with tiny sizes
	cd bench && go test -count=1 -timeout 10m ./...

##@ Benchmarks

.PHONY: bench
bench: bench/peers/socketio/node_modules ## the quick set, a few minutes; say more with BENCH="fanout --rounds 5"
	cd bench && go run . $(BENCH)

.PHONY: bench-full
bench-full: bench/peers/socketio/node_modules ## everything, an hour on a machine that does nothing else; writes docs/benchmarks.md
	cd bench && go run . all --full --doc ../docs/benchmarks.md

bench/peers/socketio/node_modules: bench/peers/socketio/package-lock.json
	npm --prefix bench/peers/socketio ci --no-audit --no-fund
	@touch $@

##@ For CI and releases

.PHONY: check-generated
check-generated: $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc web/node_modules ## fail if gen/ or web/dist is not what its sources make
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	  buf generate -o "$$fresh"; \
	  npm --prefix web run --silent build -- "$$fresh/dist"; \
	  diff -r "$$fresh/gen" gen || { echo "gen/ is not what proto/ makes: run make generate and commit it"; exit 1; }; \
	  diff -r "$$fresh/dist" web/dist || { echo "web/dist is not what web/ makes: run make web and commit it"; exit 1; }; \
	  echo "gen/ and web/dist are what their sources make"

.PHONY: contract
contract: $(BIN)/buf ## at a release: the contract that buf breaking holds from now on
	buf build --exclude-source-info -o .ci/contract.binpb

.PHONY: vuln
vuln: $(BIN)/govulncheck ## known vulnerabilities; asks vuln.go.dev, which not every machine reaches, so no part of lint
	govulncheck ./...

##@ Long runs

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (10s)
	@targets=$$(git grep -hoE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | wc -l); echo "$$targets fuzz targets, $(FUZZTIME) each"; \
	  git grep -oE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | while IFS=: read -r file target; do \
	    echo "== $$(dirname "$$file") $${target#func }"; \
	    go test -run '^$$' -fuzz "^$${target#func }$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s "./$$(dirname "$$file")" </dev/null; \
	  done

.PHONY: sim
sim: ## the simulation with SEEDS (1000) seeds from SEED (1) on
	go test -count=1 -timeout 0 -run '^TestSim$$' ./server/internal/sim -seeds $(SEEDS) -seed $(SEED)

.PHONY: faults
faults: ## test-faults for long, and a soak of SOAK (10m): 200 kills, 50 power cuts, 50 full disks, ...; then the table in docs/promises.md
	rm -f docs/faults.json
	REPRISE_FAULTS=1 REPRISE_REPORT=$(CURDIR)/docs/faults.json \
	  REPRISE_KILLS=200 REPRISE_POINTS=10 REPRISE_SPELLS=8 REPRISE_PAUSES=10 REPRISE_PAUSE=20s REPRISE_POWERCUTS=50 REPRISE_CROSSINGS=50 \
	  go test -count=1 -parallel 4 -timeout 0 -v ./internal/robustness
	REPRISE_REPORT=$(CURDIR)/docs/faults.json $(MAKE) soak
	go run ./internal/robustness/table

.PHONY: soak
soak: ## everything at once for SOAK (10m), ending with what it began with
	REPRISE_SOAK=$(SOAK) go test -count=1 -timeout 0 -v -run '^TestSoak$$' ./internal/robustness

##@ What they need

.PHONY: deps
deps: $(BIN)/grpcurl web/node_modules need-cc need-chromium ## all of it

.PHONY: need-cc
need-cc:
	@$(call need,gcc,gcc libc6-dev,the race detector needs a C compiler)

.PHONY: need-chromium
need-chromium:
	@$(call need,chromium,chromium,the browser tests drive a real Chromium)

# $(call need,command,packages,why): installs the packages if the command is
# missing, or says how.
define need
command -v $(1) >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "$(3): installing $(2)"; \
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(2); \
	  else \
	    echo "$(3): there is no $(1). On Debian: sudo apt-get install $(2)"; exit 1; \
	  fi; }
endef

web/node_modules: web/package-lock.json
	npm --prefix web ci --no-audit --no-fund
	@touch $@

# Tools, each at one version. The stamp is what make compares, so that a
# version changed here is installed.
define tool
$(BIN)/$(1): $(BIN)/.stamps/$(1)@$(3)
	@touch $$@
$(BIN)/.stamps/$(1)@$(3):
	GOBIN=$(BIN) go install $(2)@$(3)
	@mkdir -p $$(@D) && rm -f $$(@D)/$(1)@* && touch $$@
endef
$(eval $(call tool,buf,github.com/bufbuild/buf/cmd/buf,v1.75.0))
$(eval $(call tool,protoc-gen-go,google.golang.org/protobuf/cmd/protoc-gen-go,v1.36.12))
$(eval $(call tool,protoc-gen-go-grpc,google.golang.org/grpc/cmd/protoc-gen-go-grpc,v1.6.2))
$(eval $(call tool,grpcurl,github.com/fullstorydev/grpcurl/cmd/grpcurl,v1.9.4))
$(eval $(call tool,golangci-lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,v2.15.0))
$(eval $(call tool,connectconformance,connectrpc.com/conformance/cmd/connectconformance,$(CONFORMANCE)))
$(eval $(call tool,govulncheck,golang.org/x/vuln/cmd/govulncheck,v1.9.0))
