FROM redoubt.test/busybox:1
COPY rootfs/ /
RUN echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin' >>/etc/passwd && echo 'nonroot:x:65532:' >>/etc/group
ENV PATH=/usr/local/bin:/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
