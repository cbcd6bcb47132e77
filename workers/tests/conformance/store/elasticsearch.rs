//! The store in a real Elasticsearch: the suite, and what is its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redoubt::secrets::Secrets;
use redoubt::store::Store;
use redoubt::store::elasticsearch::{ElasticsearchStore, Options};
use redoubt_crds::ExternalStore;
use serde_json::json;

use super::fixture::Harness;
use crate::elasticsearch_server::{shared, unique_prefix};

pub(super) fn options() -> Options {
    Options { refresh: Duration::from_millis(100), ..Options::default() }
}

/// The cluster at an address, under a prefix.
pub(super) fn cluster(url: &str, prefix: &str) -> ExternalStore {
    serde_json::from_value(json!({"urls": [url], "prefix": prefix, "replicas": 0})).unwrap()
}

pub(super) async fn open(spec: &ExternalStore) -> Arc<ElasticsearchStore> {
    Arc::new(ElasticsearchStore::open(spec, Secrets::new("no-secrets"), &options()).await.unwrap())
}

struct Elasticsearch {
    spec: ExternalStore,
    store: Arc<ElasticsearchStore>,
}

#[async_trait]
impl Harness for Elasticsearch {
    fn absent() -> Option<String> {
        shared().err().map(str::to_owned)
    }

    async fn fresh() -> Self {
        let spec = cluster(shared().expect("asked above").url(), &unique_prefix());
        let store = open(&spec).await;
        Self { spec, store }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    /// What is durable is the server's, and the server outlives its clients; so a crash is one of the client. That of the server is a test
    /// of its own.
    async fn crash_and_reopen(&mut self) {
        self.store = open(&self.spec).await;
    }
}

store_conformance!(Elasticsearch);
