# One image with both commands: `redoubt`, which the pods of the roles run, and `redoubt-operator`.
#
#   docker build -t registry.example.com/redoubt:dev .
#
# No entrypoint: who starts a container says which command. Nothing in it needs to be written, and nothing runs as root.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
# glibc, certificates of the public authorities, time zones; no shell, no package manager.
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
# Names of functions stay in the programs, for what they say of a crash; lines do not, which would make them five times as large.
ENV CARGO_PROFILE_DIST_STRIP=debuginfo
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin redoubt --bin redoubt-operator && \
    mkdir -p /out && cp target/dist/redoubt target/dist/redoubt-operator /out

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="Redoubt" \
      org.opencontainers.image.description="A SIEM that is declared in YAML" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/ /usr/local/bin/
USER 65532:65532
CMD ["/usr/local/bin/redoubt", "help"]
