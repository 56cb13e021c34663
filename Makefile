# Names for what one does here. What CI runs, and how, stands in .ci/run alone.
.PHONY: help check lint generate test bench dist

help: ## this list
	@sed -n 's/^\([a-z]*\): ## /make \1\t/p' Makefile | expand -t 16

check: ## all that CI runs; commit first
	.ci/run

lint: ## gofmt, go mod tidy, go vet and staticcheck, in every module
	.ci/run lint

generate: ## run Kitex and kitex-etcd-gen again: the example and the golden cases
	.ci/run generate

test: ## the tests of every module, with the race detector; KITEX_ETCD_LONG=1 adds faults that last for minutes
	.ci/run tests

bench: ## measure side by side with other libraries and write bench/REPORT.md; ARGS='-quick -only resolve' does less
	cd bench && go run . $(ARGS)

dist: ## archives of kitex-etcd for other systems, in dist/; VERSION=v0.2.0 names them, git describe does without it
	.ci/run dist
