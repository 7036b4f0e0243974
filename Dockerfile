# Grid Functions itself. It drives the host's Docker Engine, so it needs the engine's socket; whoever has
# that is as good as root on the host, which is why no other user is set up here.
#
#   docker build -t grid .
#   docker run -d --name grid --restart unless-stopped --network host --cap-add NET_ADMIN \
#     -v /var/run/docker.sock:/var/run/docker.sock \
#     -v /var/lib/grid:/var/lib/grid \
#     grid
#
# The data directory has the same path inside and outside, since the engine resolves the bind mounts of
# the functions' containers on the host. To keep it elsewhere:
#
#     -v /srv/grid:/srv/grid -e GRID_DATA_DIR=/srv/grid
#
# NET_ADMIN is for the firewall of the functions, which belongs to the host's network (docs/security.md).
# With --network host the admin API stays on the host's loopback. Its token: /var/lib/grid/token.
# Where another registry holds the base images: --build-arg BUILD_IMAGE=… --build-arg RUNTIME_IMAGE=…
ARG BUILD_IMAGE=rust:1-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
RUN command -v cmake >/dev/null && command -v c++ >/dev/null \
 || { apt-get update && apt-get install -y --no-install-recommends cmake g++ make pkg-config; }
WORKDIR /src
COPY . .
ARG PROFILE=bench-lto
RUN cargo build --locked --profile "${PROFILE}" --bin grid \
 && install -s "target/${PROFILE}/grid" /grid

FROM ${RUNTIME_IMAGE}
RUN command -v nft >/dev/null && command -v ip >/dev/null \
 || { apt-get update && apt-get install -y --no-install-recommends iproute2 nftables \
 && rm -rf /var/lib/apt/lists/*; }
COPY --from=build /grid /usr/local/bin/grid
COPY LICENSE /usr/share/doc/grid/LICENSE
COPY runners /usr/share/grid/runners
COPY config /usr/share/grid/config
ENV GRID_SHARE_DIR=/usr/share/grid GRID_DATA_DIR=/var/lib/grid
WORKDIR /var/lib/grid
EXPOSE 8080
# Grid ends in an orderly way on SIGTERM and leaves the functions' containers to its next start.
STOPSIGNAL SIGTERM
ENTRYPOINT ["grid"]
CMD ["serve"]
