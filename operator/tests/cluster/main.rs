//! The operator on a real Kubernetes: its process beside the cluster, with no more rights than the page on the operator lists.
//!
//! `REDOUBT_TEST_KUBECONFIG` names the kubeconfig of an administrator, as `tests/cluster/cluster up` writes it; beside it are `bin/kubectl`
//! and the audit log. Without it each test says so and passes over.
#![allow(missing_docs, reason = "part of a test binary")]
#![allow(clippy::unwrap_used, reason = "a harness that fails is a test that fails")]

mod leader;
mod namespace;
mod operator;
mod permissions;
mod rest;
mod statuses;
mod workers;
