//! One watch and its memory: what is seen enters the memory first, then it is told.

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

/// What a watch saw, after it entered the memory.
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

/// Where what a watch sees is remembered.
pub trait Memory {
    /// What of an object.
    type Object;
    /// This object as it is remembered.
    fn get(&self, object: &Self::Object) -> Option<Arc<Self::Object>>;
    /// Everything.
    fn all(&self) -> Vec<Arc<Self::Object>>;
    /// The object's uid.
    fn uid(object: &Self::Object) -> Option<&str>;
    /// An event of the watch happened; readers see a list only when it is complete.
    fn remember(&mut self, event: &Event<Self::Object>);
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Memory for Writer<K> {
    type Object = K;

    fn get(&self, object: &K) -> Option<Arc<K>> {
        self.as_reader().get(&object.to_object_ref(()))
    }

    fn all(&self) -> Vec<Arc<K>> {
        self.as_reader().state()
    }

    fn uid(object: &K) -> Option<&str> {
        object.meta().uid.as_deref()
    }

    fn remember(&mut self, event: &Event<K>) {
        self.apply_watcher_event(event);
    }
}

/// Feeds a memory from a watch for ever; `touched` is told what came, changed or went. `kept` makes of each object what is
/// remembered of it.
pub async fn watch<K, M, F, Fut>(
    api: Api<K>,
    config: watcher::Config,
    mut memory: M,
    mut kept: impl FnMut(K) -> M::Object,
    touched: F,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    M: Memory<Object: Clone>,
    F: Fn(Seen<M::Object>) -> Fut,
    Fut: Future<Output = ()>,
{
    let mut kept = |mut object: K| {
        // Half of an object's bytes, and nothing we read.
        object.managed_fields_mut().clear();
        kept(object)
    };
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
            Event::Apply(object) => memory.get(object),
            _ => None,
        };
        let known = if matches!(event, Event::InitDone) { memory.all() } else { Vec::new() };
        memory.remember(&event);
        match event {
            Event::Apply(after) => touched(Seen::There { before, after }).await,
            Event::Delete(object) => touched(Seen::Gone(object)).await,
            // It is swapped when the list is complete; before that a reconcile would see the old one.
            Event::InitDone => {
                let listed = memory.all();
                for object in missing::<M>(known, &listed) {
                    touched(Seen::Gone((*object).clone())).await;
                }
                touched(Seen::Listed(listed)).await;
            }
            Event::Init | Event::InitApply(_) => {}
        }
    }
}

/// What went while nobody watched: known before, and not in the list anew.
fn missing<M: Memory>(known: Vec<Arc<M::Object>>, listed: &[Arc<M::Object>]) -> Vec<Arc<M::Object>> {
    let there: HashSet<_> = listed.iter().filter_map(|object| M::uid(object)).collect();
    known.into_iter().filter(|object| M::uid(object).is_some_and(|uid| !there.contains(uid))).collect()
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
            missing::<Writer<Pipeline>>(vec![a.clone(), b.clone()], listed)
                .iter()
                .map(|object| object.name_any())
                .collect()
        };
        assert!(gone(&[b.clone(), a.clone()]).is_empty());
        assert_eq!(gone(std::slice::from_ref(&a)), ["b"]);
        assert_eq!(gone(&[a.clone(), Arc::new(recreated)]), ["b"], "another of the same name");
    }
}
