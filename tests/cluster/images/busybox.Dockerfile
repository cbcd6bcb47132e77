# Debian's static busybox with all its names, for small workloads; also what holds a pod's namespaces.
FROM scratch
COPY rootfs/ /
CMD ["/bin/sleep", "2147483647"]
