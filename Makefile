# All the set-up there is. `make run` and `make test` install what is missing where they can, and else say what to do.

# Where `make run` keeps its database, its key and its pictures.
DATA ?= ./data
# More flags for the server: make run ARGS="--listen 127.0.0.1:9000"
ARGS ?=

# A build for the GPU, where there is one and NVIDIA's compiler.
CUDA := $(shell command -v nvcc >/dev/null && nvidia-smi -L >/dev/null 2>&1 && echo --features cuda)

.PHONY: help run test check bench gpu image sbom fmt

help: ## What there is to make
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

run: ## Build the server and run it, with everything it needs
	@tools/set-up
	@cargo run --release --locked $(CUDA) --bin fourstep -- serve --data-dir $(DATA) $(ARGS)

# A throwaway Postgres, unless DATABASE_URL names one whose user may create databases.
test: check ## Check and test everything
ifdef DATABASE_URL
	cargo test --locked --no-fail-fast
else
	tools/with-postgres cargo test --locked --no-fail-fast
endif

check:
	@tools/set-up --tests
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# With MODEL=DIR also the pipeline, with the weights in DIR, beside the SDXL that comes with candle; with PEERS=DIR also beside
# diffusers, from that Python environment.
bench: ## Measure the service on this machine
	@tools/set-up
	cargo bench --locked --bench service
ifdef MODEL
	cargo build --release --locked --bin fourstep
	cargo build --release --locked --manifest-path benches/candle/Cargo.toml --target-dir target/candle
	python3 benches/pipeline.py $(MODEL) --candle target/candle/release/fourstep-candle-peer $(if $(PEERS),--peers $(PEERS))
endif

# Where there is a GPU; OUT=DIR takes what was measured. See benches/gpu.sh.
gpu: ## Measure a GPU, with diffusers beside it
	cargo build --release --locked --features cuda --bin fourstep
	benches/gpu.sh $(or $(OUT),target/gpu)

image: ## Build the container image
	docker build --tag fourstep --build-arg COMMIT=$$(git rev-parse --short HEAD) .

sbom: ## Write fourstep.cdx.json: every dependency, its version and its hash (CycloneDX)
	npx --yes @cyclonedx/cdxgen@12.8.4 --type rust --no-install-deps --output fourstep.cdx.json .

fmt: ## Format the code
	cargo fmt
