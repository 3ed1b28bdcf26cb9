//! Stores that have just failed somebody, who says so: they are looked at before their time.

use crate::api::BackupStore;
use futures::{Stream, stream};
use kube::ResourceExt;
use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};
use tokio::sync::watch;

/// What is doubted, by namespace and name.
#[derive(Debug, Default)]
pub struct Doubts {
    of: Mutex<HashSet<(String, String)>>,
    heard: watch::Sender<()>,
}

impl Doubts {
    /// Doubts a store, if that is what a failure is about.
    pub(crate) fn hear(&self, reason: &str, namespace: &str, store: &str) {
        if !matches!(reason, "StoreUnreachable" | "StoreDenied" | "StoreFull" | "Store") {
            return;
        }
        let doubted = (namespace.to_owned(), store.to_owned());
        self.of.lock().unwrap_or_else(PoisonError::into_inner).insert(doubted);
        self.heard.send_replace(());
    }

    /// Whether a store is doubted. It is not any more then: who asks looks at it.
    pub(super) fn take(&self, store: &BackupStore) -> bool {
        let store = (store.namespace().unwrap_or_default(), store.name_any());
        self.of.lock().unwrap_or_else(PoisonError::into_inner).remove(&store)
    }

    /// Whenever a store is doubted.
    pub(super) fn heard(&self) -> impl Stream<Item = ()> + Send + Sync + 'static {
        stream::unfold(self.heard.subscribe(), |mut heard| async move {
            heard.changed().await.ok()?;
            Some(((), heard))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use serde_json::json;

    #[tokio::test]
    async fn a_store_that_failed_somebody_is_doubted_once() {
        let doubts = Doubts::default();
        let spec = serde_json::from_value(json!({ "url": "s3://bucket" })).unwrap();
        let mut store = BackupStore::new("s", spec);
        store.metadata.namespace = Some("prod".to_owned());
        let mut heard = Box::pin(doubts.heard());
        doubts.hear("Cluster", "prod", "s");
        doubts.hear("StoreUnreachable", "other", "s");
        assert!(!doubts.take(&store));
        doubts.hear("StoreUnreachable", "prod", "s");
        assert_eq!(heard.next().await, Some(()));
        assert!(doubts.take(&store));
        assert!(!doubts.take(&store));
    }
}
