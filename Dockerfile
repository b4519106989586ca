# The image of the DaemonSet: the plugin, libudev and `ls`. No shell, no package manager.
#
#   docker build --tag ix-device-plugin:0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" .
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REGISTRY/ix-device-plugin:0.1.0 --push .
#
# No cross-compilation: the builder runs all stages on the target platform, native or emulated. Both
# base images are pinned by the digest of their multi-platform index (amd64 and arm64). The compiler is
# the one used by the tests; Cargo.toml has the minimum version.
ARG RUST=rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082
ARG DEBIAN=debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

FROM ${RUST} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libudev-dev lld pkg-config qemu-user \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The metric build_info and the image label have the same commit.
ARG REVISION=unknown
RUN IX_REVISION="${REVISION}" .ci/build-release

# assemble-root copies files only from packages of this base, so its digest also pins their versions.
# Update the base for security updates.
FROM ${DEBIAN} AS root
COPY deploy/image/assemble-root /usr/local/bin/
COPY --from=build /src/target/release/ix-device-plugin /tmp/ix-device-plugin
RUN assemble-root /tmp/ix-device-plugin /image \
    && chroot /image /usr/bin/ix-device-plugin --version \
    && chroot /image /usr/bin/ls /var/lib/kubelet/device-plugins

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="ix-device-plugin" \
      org.opencontainers.image.description="Kubernetes device plugin for Iluvatar CoreX GPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="debian:bookworm-20260824-slim" \
      org.opencontainers.image.base.digest="sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=root /image /
# One pool of memory: what the thread that reads /sys has freed serves the other one too.
ENV PATH=/usr/bin MALLOC_ARENA_MAX=1
# Root owns the kubelet's device plugin directory, which is closed to others. The manifests drop all
# capabilities.
USER 0:0
ENTRYPOINT ["/usr/bin/ix-device-plugin"]
