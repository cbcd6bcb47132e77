//! Wakes a Siem when somebody touches its objects of kinds that a cluster may lack.
//!
//! A watch of a kind that is not there fails for ever, so each begins when discovery tells of the kind; after its end that is asked anew.

use std::time::Duration;

use futures::{Stream, StreamExt, future, stream};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, PartialObjectMeta},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::time::sleep;
use tracing::debug;

use super::{Foreign, is_served};
use crate::siem::place::Place;

/// How often it is asked whether a kind is there, and how long nobody watches after a watch has failed.
const PAUSE: Duration = Duration::from_secs(15);

/// Those of the objects that somebody touches.
pub(crate) fn touched(place: &Place, kind: Foreign, ours: watcher::Config) -> impl Stream<Item = PartialObjectMeta<DynamicObject>> + use<> {
    let (client, namespace) = (place.client.clone(), place.namespace.clone());
    stream::repeat(())
        .then({
            let client = client.clone();
            move |()| comes(client.clone(), kind)
        })
        .flat_map(move |()| {
            let resource = kind.resource();
            let api: Api<PartialObjectMeta<DynamicObject>> = match &namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            let touched = watcher(api, ours.clone()).touched_objects();
            touched
                .inspect(move |touched| match touched {
                    Ok(object) => debug!(?kind, name = object.name_any(), "touched"),
                    Err(error) => debug!(?kind, %error, "the watch has ended"),
                })
                .take_while(|touched| future::ready(touched.is_ok()))
                .filter_map(|touched| future::ready(touched.ok()))
        })
}

/// Waits until the kind is there.
async fn comes(client: Client, kind: Foreign) {
    loop {
        sleep(PAUSE).await;
        match is_served(&client, kind).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => debug!(?kind, %error, "discovery gives no answer"),
        }
    }
}
