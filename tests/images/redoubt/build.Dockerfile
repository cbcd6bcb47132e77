FROM redoubt.test/busybox:1
COPY redoubt redoubt-operator /built/
COPY cargo /usr/local/bin/cargo
ENV PATH=/usr/local/bin:/bin
