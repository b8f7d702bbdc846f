# fourstep in a container.
#
#     docker build --tag fourstep .                          the server with its own Postgres, on the CPU
#     docker build --tag fourstep:cuda --target cuda .       the same for NVIDIA's GPUs
#
# Every base can be replaced: --build-arg DEBIAN=registry.example.com/debian:bookworm-slim
# Podman and buildah want --format docker as well: OCI's own format has no health check.

ARG RUST=docker.io/library/rust:1.95-slim-bookworm
ARG DEBIAN=docker.io/library/debian:bookworm-slim
ARG CUDA=docker.io/nvidia/cuda:12.8.1-cudnn-devel-ubuntu24.04
ARG CUDA_RUNTIME=docker.io/nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04

# --- The program, for the CPU -----------------------------------------------------------------------------------------

FROM ${RUST} AS rust
RUN apt-get update && apt-get install --yes --no-install-recommends gcc g++ make libc6-dev binutils \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

FROM rust AS build
# The dependencies first, with a program that does nothing: this layer stays until one of these two files changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir --parents src benches && echo 'fn main() {}' | tee src/main.rs benches/long_polls.rs benches/operations.rs benches/service.rs && touch src/lib.rs \
    && cargo build --release --locked --bin fourstep
COPY . .
# The commit is told, because the build has no git: --build-arg COMMIT=$(git rev-parse --short HEAD)
ARG COMMIT=
# Newer than the program that did nothing. The symbols go into a file of their own, which a debugger finds by its name.
RUN touch src/main.rs src/lib.rs \
    && FOURSTEP_COMMIT=${COMMIT} cargo build --release --locked --bin fourstep \
    && deploy/container/split-symbols target/release/fourstep /out

# --- The file system of the CPU's image: the program, Postgres, and what these two need -------------------------------

FROM ${DEBIAN} AS system
RUN apt-get update && apt-get install --yes --no-install-recommends \
        busybox ca-certificates postgresql tini tzdata util-linux \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/fourstep /usr/bin/fourstep
COPY deploy/container/ /container/
COPY LICENSE /usr/share/doc/fourstep/LICENSE
RUN /container/make-root /image

# --- With symbols, for a debugger or a profiler: --target symbols --output . ------------------------------------------

FROM scratch AS symbols
COPY --from=build /out/fourstep.debug /

# --- For NVIDIA's GPUs ------------------------------------------------------------------------------------------------

FROM ${CUDA} AS cuda-build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc g++ make libc6-dev binutils ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
# The generation of the GPU, as candle's build wants it: 80 (A100), 86, 89 (L4, 4090), 90 (H100), 100, 120.
ARG CUDA_COMPUTE_CAP=80
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH \
    CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP}
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
RUN mkdir --parents src benches && echo 'fn main() {}' | tee src/main.rs benches/long_polls.rs benches/operations.rs benches/service.rs && touch src/lib.rs \
    && cargo build --release --locked --features cuda --bin fourstep
COPY . .
ARG COMMIT=
RUN touch src/main.rs src/lib.rs \
    && FOURSTEP_COMMIT=${COMMIT} cargo build --release --locked --features cuda --bin fourstep \
    && deploy/container/split-symbols target/release/fourstep /out

FROM ${CUDA_RUNTIME} AS cuda
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates postgresql tini tzdata util-linux \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 fourstep \
    && useradd --system --uid 10001 --gid fourstep --home-dir /data --shell /usr/sbin/nologin fourstep \
    && install --directory --owner fourstep --group fourstep --mode 0711 /data
COPY --from=cuda-build /out/fourstep /usr/bin/fourstep
COPY deploy/container/start /usr/bin/start
COPY LICENSE /usr/share/doc/fourstep/LICENSE
ARG COMMIT=
LABEL org.opencontainers.image.title="fourstep" \
      org.opencontainers.image.description="A prediction API server for SDXL-Lightning, for NVIDIA's GPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}"
ENV FOURSTEP_DATA__DIR=/data FOURSTEP_SERVER__LISTEN=0.0.0.0:8000 HF_HOME=/data/huggingface
VOLUME /data
WORKDIR /
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 CMD ["fourstep", "health"]
ENTRYPOINT ["tini", "--", "start"]
CMD ["serve"]

# --- For the CPU: the last one, which is built unless --target names another ------------------------------------------

FROM scratch AS cpu
COPY --from=system /image/ /
ARG COMMIT=
LABEL org.opencontainers.image.title="fourstep" \
      org.opencontainers.image.description="A prediction API server for SDXL-Lightning, with its own Postgres" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}"
ENV PATH=/usr/bin FOURSTEP_DATA__DIR=/data FOURSTEP_SERVER__LISTEN=0.0.0.0:8000 HF_HOME=/data/huggingface
VOLUME /data
WORKDIR /
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=2m --retries=3 CMD ["fourstep", "health"]
ENTRYPOINT ["tini", "--", "start"]
CMD ["serve"]
