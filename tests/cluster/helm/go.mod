// Helm, built from its published module by tests/cluster/install.
module redoubt.dev/tests/cluster/helm

go 1.24.0

require helm.sh/helm/v3 v3.22.0

tool helm.sh/helm/v3/cmd/helm
