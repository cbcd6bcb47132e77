// CoreDNS with the plugins that a cluster's DNS needs, built by tests/cluster/install.
module redoubt.dev/tests/cluster/coredns

go 1.24.0

require github.com/coredns/coredns v1.15.0
