# Grid Functions. Every target is a script in scripts/, which can be called directly as well.
.PHONY: help run test check bench fuzz images clean

help:
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: ## Installs what is missing, builds, starts Grid in the foreground and deploys the examples
	@scripts/run

test: ## Does its own set-up and runs all tests
	@scripts/test

check: ## Format, lints, docs, dependencies and licences: what CI checks besides the tests
	@scripts/check

bench: ## Measures Grid side by side with others
	@loadtests/bench

fuzz: ## Feeds what reads foreign bytes with bytes that nobody would think of, for ten minutes
	@scripts/fuzz

images: ## Gets the runtimes' base images, without a registry from Debian packages
	@scripts/setup && scripts/engine && scripts/images

clean: ## Removes what was built; the data in .grid and the images stay
	@cargo clean
