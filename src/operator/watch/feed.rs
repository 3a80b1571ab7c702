//! One watch and its store: what is seen enters the store first, then it is told.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    fmt::Debug,
    sync::Arc,
};

use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt,
        reflector::{Lookup, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use crate::operator::concern::Change;

/// What a watch saw, after it entered the store.
pub enum Seen<K> {
    /// Everything anew.
    Listed(Vec<Arc<K>>),
    /// An object that came or changed.
    There {
        /// As it was; `None` when it is new.
        before: Option<Arc<K>>,
        /// As it is.
        after: K,
    },
    /// An object that went, as it last was.
    Gone(K),
}

impl<K: Lookup> Seen<K> {
    /// Namespace and name of the one object; `None` for a list.
    pub fn key(&self) -> Option<(String, String)> {
        match self {
            Self::Listed(_) => None,
            Self::There { after: object, .. } | Self::Gone(object) => {
                Some((object.namespace()?.into_owned(), object.name()?.into_owned()))
            }
        }
    }

    /// Namespaces of all objects.
    pub fn namespaces(&self) -> BTreeSet<String> {
        match self {
            Self::Listed(objects) => {
                objects.iter().filter_map(|object| Some(object.namespace()?.into_owned())).collect()
            }
            Self::There { after: object, .. } | Self::Gone(object) => {
                object.namespace().into_iter().map(Cow::into_owned).collect()
            }
        }
    }

    /// The one object before and after.
    pub fn change(&self) -> Change<'_, K> {
        match self {
            Self::Listed(_) => Change { before: None, after: None },
            Self::There { before, after } => Change { before: before.as_deref(), after: Some(after) },
            Self::Gone(object) => Change { before: Some(object), after: None },
        }
    }
}

/// Feeds a store from a watch for ever; `touched` is told what came, changed or went. `kept` makes of each object what is
/// remembered of it.
pub async fn watch<K, S, F, Fut>(
    api: Api<K>,
    config: watcher::Config,
    mut writer: Writer<S>,
    kept: impl Fn(K) -> S,
    touched: F,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    S: Lookup<DynamicType = ()> + Clone + 'static,
    F: Fn(Seen<S>) -> Fut,
    Fut: Future<Output = ()>,
{
    let kept = |mut object: K| {
        // Half of an object's bytes, and nothing we read.
        object.managed_fields_mut().clear();
        kept(object)
    };
    let store = writer.as_reader();
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(Event::Apply(object)) => Event::Apply(kept(object)),
            Ok(Event::Delete(object)) => Event::Delete(kept(object)),
            Ok(Event::InitApply(object)) => Event::InitApply(kept(object)),
            Ok(Event::Init) => Event::Init,
            Ok(Event::InitDone) => Event::InitDone,
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), error = crate::telemetry::chain(&error), "the watch broke off; trying again");
                continue;
            }
        };
        let before = match &event {
            Event::Apply(object) => store.get(&object.to_object_ref(())),
            _ => None,
        };
        let known = if matches!(event, Event::InitDone) { store.state() } else { Vec::new() };
        writer.apply_watcher_event(&event);
        match event {
            Event::Apply(after) => touched(Seen::There { before, after }).await,
            Event::Delete(object) => touched(Seen::Gone(object)).await,
            // The store is swapped when the list is complete; before that a reconcile would see the old one.
            Event::InitDone => {
                let listed = store.state();
                for object in missing(known, &listed) {
                    touched(Seen::Gone((*object).clone())).await;
                }
                touched(Seen::Listed(listed)).await;
            }
            Event::Init | Event::InitApply(_) => {}
        }
    }
}

/// What went while nobody watched: known before, and not in the list anew.
fn missing<K: Lookup>(known: Vec<Arc<K>>, listed: &[Arc<K>]) -> Vec<Arc<K>> {
    let there: HashSet<_> = listed.iter().filter_map(|object| object.uid()).collect();
    known.into_iter().filter(|object| object.uid().is_some_and(|uid| !there.contains(&uid))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::Pipeline, operator::fixture};

    /// A watch that begins anew skips the deletions of the meantime: queues and footage of the deleted would stay for ever.
    #[test]
    fn a_deletion_between_two_lists_is_seen() {
        let [a, b] = ["a", "b"].map(|name| fixture::pipeline(name).arc());
        let mut recreated = Pipeline::clone(&b);
        recreated.metadata.uid = Some("another".into());
        let gone = |listed: &[Arc<Pipeline>]| -> Vec<String> {
            missing(vec![a.clone(), b.clone()], listed).iter().map(|object| object.name_any()).collect()
        };
        assert!(gone(&[b.clone(), a.clone()]).is_empty());
        assert_eq!(gone(std::slice::from_ref(&a)), ["b"]);
        assert_eq!(gone(&[a.clone(), Arc::new(recreated)]), ["b"], "another of the same name");
    }
}
