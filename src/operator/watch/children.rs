//! The children of one kind, as the watch last saw them, found by their name and by whom they belong to.
//!
//! Trap: a store that only knows names is gone through from end to end by whoever looks for his own: with a thousand
//! Pipelines, each of which looks a few times while it is made, that was most of what the operator did.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::{
    feed::Memory,
    packed::{Packed, Tag},
};

/// Under which words a child is filed, beside its name.
type Words = fn(&Tag) -> Vec<&str>;

/// The one who reads.
pub struct Children<K>(Arc<Shelves<K>>);

impl<K> Clone for Children<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

type ByNamespace<K> = HashMap<Box<str>, Shelf<K>>;

struct Shelves<K> {
    shelves: RwLock<ByNamespace<K>>,
    complete: watch::Receiver<bool>,
}

/// The children in one namespace.
struct Shelf<K> {
    named: HashMap<Box<str>, Arc<Packed<K>>>,
    /// By each of their words.
    filed: HashMap<Box<str>, Vec<Arc<Packed<K>>>>,
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self { named: HashMap::new(), filed: HashMap::new() }
    }
}

impl<K> Shelf<K> {
    fn put(&mut self, child: Arc<Packed<K>>, words: Words) {
        self.take(&child.tag().name, words);
        for word in words(child.tag()) {
            // A word is kept once, not once for each who bears it; and one who bears it twice is filed once.
            match self.filed.get_mut(word) {
                Some(filed) if filed.last().is_some_and(|last| Arc::ptr_eq(last, &child)) => {}
                Some(filed) => filed.push(child.clone()),
                None => drop(self.filed.insert(word.into(), vec![child.clone()])),
            }
        }
        self.named.insert(child.tag().name.clone(), child);
    }

    fn take(&mut self, name: &str, words: Words) {
        let Some(child) = self.named.remove(name) else { return };
        for word in words(child.tag()) {
            let Some(filed) = self.filed.get_mut(word) else { continue };
            filed.retain(|other| !Arc::ptr_eq(other, &child));
            if filed.is_empty() {
                self.filed.remove(word);
            }
        }
    }
}

fn put<K: Clone>(shelves: &mut ByNamespace<K>, child: &Packed<K>, words: Words) {
    shelves.entry(child.tag().namespace.clone()).or_default().put(Arc::new(child.clone()), words);
}

impl<K> Children<K> {
    /// One by name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Packed<K>>> {
        let shelves = self.0.shelves.read().unwrap_or_else(PoisonError::into_inner);
        shelves.get(namespace)?.named.get(name).cloned()
    }

    /// Those filed under this word that `keep` takes, in the order of their names.
    pub fn of(&self, namespace: &str, word: &str, keep: impl Fn(&Tag) -> bool) -> Vec<Arc<Packed<K>>> {
        let shelves = self.0.shelves.read().unwrap_or_else(PoisonError::into_inner);
        let filed = shelves.get(namespace).and_then(|shelf| shelf.filed.get(word)).into_iter().flatten();
        let mut found: Vec<_> = filed.filter(|child| keep(child.tag())).cloned().collect();
        drop(shelves);
        found.sort_by(|a, b| a.tag().name.cmp(&b.tag().name));
        found
    }

    /// Waits until the first list is complete; an error means that the watch is gone.
    pub async fn wait_until_ready(&self) -> Result<(), watch::error::RecvError> {
        self.0.complete.clone().wait_for(|complete| *complete).await.map(drop)
    }
}

/// The one who writes.
pub struct Filing<K> {
    children: Children<K>,
    words: Words,
    complete: watch::Sender<bool>,
    /// A list that is being read; nobody sees half of it.
    listing: ByNamespace<K>,
}

impl<K> Filing<K> {
    /// Nothing yet; `words`: under which each child will be found.
    pub fn by(words: Words) -> Self {
        let (complete, seen) = watch::channel(false);
        let shelves = Shelves { shelves: RwLock::default(), complete: seen };
        Self { children: Children(Arc::new(shelves)), words, complete, listing: HashMap::new() }
    }

    /// What others read.
    pub fn children(&self) -> Children<K> {
        self.children.clone()
    }
}

impl<K: Clone> Memory for Filing<K> {
    type Object = Packed<K>;

    fn get(&self, object: &Packed<K>) -> Option<Arc<Packed<K>>> {
        self.children.get(&object.tag().namespace, &object.tag().name)
    }

    fn all(&self) -> Vec<Arc<Packed<K>>> {
        let shelves = self.children.0.shelves.read().unwrap_or_else(PoisonError::into_inner);
        shelves.values().flat_map(|shelf| shelf.named.values().cloned()).collect()
    }

    fn uid(object: &Packed<K>) -> Option<&str> {
        Some(&object.tag().uid)
    }

    fn remember(&mut self, event: &Event<Packed<K>>) {
        let words = self.words;
        let mut shelves = self.children.0.shelves.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(child) => put(&mut shelves, child, words),
            Event::Delete(child) => {
                if let Some(shelf) = shelves.get_mut(&child.tag().namespace) {
                    shelf.take(&child.tag().name, words);
                    if shelf.named.is_empty() {
                        shelves.remove(&child.tag().namespace);
                    }
                }
            }
            Event::Init => self.listing.clear(),
            Event::InitApply(child) => put(&mut self.listing, child, words),
            Event::InitDone => {
                *shelves = std::mem::take(&mut self.listing);
                self.complete.send_replace(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use serde_json::json;

    use super::*;
    use crate::operator::watch::packed::Packer;

    fn child(namespace: &str, name: &str, owner: &str) -> Packed<ConfigMap> {
        let owner = json!({"apiVersion": "v1", "kind": "P", "name": "p", "uid": owner, "controller": true});
        let value = json!({"metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"),
                                        "ownerReferences": [owner]}});
        Packer::default().pack(&serde_json::from_value(value).expect("a ConfigMap"))
    }

    fn of(children: &Children<ConfigMap>, namespace: &str, owner: &str) -> Vec<String> {
        children.of(namespace, owner, |_| true).iter().map(|child| child.tag().name.to_string()).collect()
    }

    #[test]
    fn children_are_found_by_their_owner_in_the_order_of_their_names() {
        let mut filing = Filing::by(Tag::by_owner);
        let children = filing.children();
        for event in [("n", "b", "one"), ("n", "a", "one"), ("n", "c", "two"), ("other", "d", "one")] {
            filing.remember(&Event::Apply(child(event.0, event.1, event.2)));
        }
        assert_eq!(of(&children, "n", "one"), ["a", "b"]);
        assert_eq!(of(&children, "other", "one"), ["d"]);
        assert!(children.get("n", "c").is_some() && children.get("other", "c").is_none());
        assert_eq!(of(&children, "nowhere", "one"), [""; 0]);
    }

    #[test]
    fn a_child_that_changes_hands_or_goes_is_nobody_elses_any_more() {
        let mut filing = Filing::by(Tag::by_owner);
        let children = filing.children();
        for owner in ["one", "one", "two"] {
            filing.remember(&Event::Apply(child("n", "a", owner)));
        }
        assert_eq!((of(&children, "n", "one"), of(&children, "n", "two")), (vec![], vec!["a".into()]));
        // What is deleted may carry other owners than what was seen.
        filing.remember(&Event::Delete(child("n", "a", "three")));
        assert_eq!(of(&children, "n", "two"), [""; 0]);
        assert!(children.0.shelves.read().expect("no panic").is_empty(), "nothing of it stays");
    }

    #[test]
    fn nobody_sees_half_of_a_list() {
        let mut filing = Filing::by(Tag::by_owner);
        let children = filing.children();
        let ready = || *children.0.complete.borrow();
        filing.remember(&Event::Init);
        filing.remember(&Event::InitApply(child("n", "a", "one")));
        assert!(!ready() && of(&children, "n", "one").is_empty());
        filing.remember(&Event::InitDone);
        assert!(ready() && of(&children, "n", "one") == ["a"]);
        // The watch broke off in the middle of the next list, and begins again.
        filing.remember(&Event::Init);
        filing.remember(&Event::InitApply(child("n", "half", "one")));
        assert_eq!(of(&children, "n", "one"), ["a"]);
        filing.remember(&Event::Init);
        filing.remember(&Event::InitApply(child("n", "b", "one")));
        filing.remember(&Event::InitDone);
        assert_eq!(of(&children, "n", "one"), ["b"]);
    }

    /// Names of a Pipeline and of a `StorageNode` may be the same, and a child may have two owners.
    #[test]
    fn a_child_is_found_once_under_each_of_its_words() {
        let pod = |name: &str, labels: &[&str]| {
            let labels: serde_json::Map<_, _> =
                labels.iter().map(|label| (format!("dsn.network/{label}"), json!("x"))).collect();
            let value = json!({"metadata": {"namespace": "n", "name": name, "labels": labels}});
            Packer::default().pack(&serde_json::from_value(value).expect("a Pod"))
        };
        let mut filing = Filing::<Pod>::by(Tag::by_label);
        let children = filing.children();
        for (name, labels) in
            [("a", &["pipeline"][..]), ("b", &["storage-node"]), ("c", &["pipeline", "storage-node"]), ("d", &[])]
        {
            filing.remember(&Event::Apply(pod(name, labels)));
        }
        let of = |keep: fn(&Tag) -> bool| -> Vec<String> {
            children.of("n", "x", keep).iter().map(|child| child.tag().name.to_string()).collect()
        };
        assert_eq!(of(|_| true), ["a", "b", "c"]);
        assert_eq!(of(|tag| tag.pipeline.as_deref() == Some("x")), ["a", "c"]);
        assert_eq!(of(|tag| tag.storage_node.as_deref() == Some("x")), ["b", "c"]);
        filing.remember(&Event::Delete(pod("c", &[])));
        assert_eq!(of(|_| true), ["a", "b"]);
    }
}
