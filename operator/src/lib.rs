//! Resources become a running SIEM: the Kubernetes operator of Redoubt.

pub mod siem;
