# The two commands of a newcomer are `make run` and `make test`.
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

.PHONY: run build test race fuzz bench backlog conformance slow torture lint

run: build
	./bin/casegate demo

build:
	go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/casegate ./cmd/casegate

test: build
	.ci/install
	go vet ./...
	go test -timeout 8m ./...

race:
	go test -race -timeout 20m ./...

FUZZTIME ?= 60s
fuzz:
	.ci/fuzz $(FUZZTIME)

# Ours and Postfix side by side, in one run, as ratios.
bench: build
	.ci/install
	.ci/bench

# A queue of 100 000: what it costs to list, claim and flush it, to restart in
# the middle, and to have a dead destination in it.
BACKLOG ?= 100000
backlog:
	CASEGATE_BACKLOG=$(BACKLOG) go test -count 1 -timeout 15m -v -run 'Backlog|DeadDestination|LongOutbox' ./store/bolt ./gateway/relay ./gateway/console

# The public suites of SPF, DKIM, ARC and addresses: cases passed, of how many.
conformance:
	.ci/conformance

# 10 000 clients that send a byte in ten seconds: memory, and what others notice.
# Needs 20 000 file descriptors (ulimit -n) and a quiet machine.
slow: build
	CASEGATE_SLOW_CONNECTIONS=10000 go test -count 1 -v -run 'TestSlowClients$$' ./cmd/casegate

# Processes killed, power cut and system calls failing, so many times, in the
# middle of a load.
ROUNDS ?= 200
torture: build
	CASEGATE_ROUNDS=$(ROUNDS) go test -count 1 -timeout 6h -v -run 'TestKilled$$|TestPowerCut$$|TestKill$$|TestSystemCallsFail$$' ./store/bolt ./cmd/casegate

lint:
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
