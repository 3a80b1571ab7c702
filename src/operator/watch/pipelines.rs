//! Pipelines as the watch last saw them, found by the Camera that they may select.
//!
//! Trap: every Camera and every Pipeline asks for its rivals whenever it is looked at. With a thousand Pipelines that each
//! name their Camera, going through all of them each time was a fifth of what the operator did.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use kube::{
    Resource, ResourceExt,
    runtime::{
        reflector::{Store, store::Writer},
        watcher::Event,
    },
};

use super::feed::Memory;
use crate::{
    api::{Camera, Pipeline},
    operator::{claims, context},
};

/// The one who reads.
#[derive(Clone)]
pub struct Pipelines {
    /// All of them.
    pub store: Store<Pipeline>,
    index: Arc<RwLock<Index>>,
}

/// Names of Pipelines, by namespace.
type Index = HashMap<String, InNamespace>;

#[derive(Default)]
struct InNamespace {
    /// By the name of each Camera that they name.
    naming: HashMap<String, BTreeSet<String>>,
    /// With a selector, which may take any Camera.
    with_selector: BTreeSet<String>,
}

impl Pipelines {
    /// Those that select one of these Cameras, each as it is given, in the order of their names.
    pub fn selecting<'a>(&self, cameras: impl IntoIterator<Item = &'a Camera>) -> Vec<Arc<Pipeline>> {
        let cameras: Vec<_> = cameras.into_iter().collect();
        let mut candidates = BTreeSet::new();
        {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            for camera in &cameras {
                let (namespace, name) = (camera.namespace().unwrap_or_default(), camera.name_any());
                if let Some(there) = index.get(&namespace) {
                    let names = there.naming.get(&name).into_iter().flatten().chain(&there.with_selector);
                    candidates.extend(names.map(|name| (namespace.clone(), name.clone())));
                }
            }
        }
        let found = candidates.iter().filter_map(|(namespace, name)| context::get(&self.store, namespace, name));
        found.filter(|pipeline| cameras.iter().any(|camera| claims::selects(pipeline, camera))).collect()
    }
}

/// The one who writes.
pub struct Registrar {
    writer: Writer<Pipeline>,
    index: Arc<RwLock<Index>>,
}

impl Registrar {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { writer: Writer::new(()), index: Arc::default() }
    }

    /// What others read.
    pub fn pipelines(&self) -> Pipelines {
        Pipelines { store: self.writer.as_reader(), index: self.index.clone() }
    }
}

fn enter(index: &mut Index, pipeline: &Pipeline) {
    let (namespace, name) = (pipeline.namespace().unwrap_or_default(), pipeline.name_any());
    let there = index.entry(namespace).or_default();
    for camera in pipeline.spec.cameras.names.iter().flatten() {
        there.naming.entry(camera.clone()).or_default().insert(name.clone());
    }
    if pipeline.spec.cameras.selector.is_some() {
        there.with_selector.insert(name);
    }
}

fn strike(index: &mut Index, pipeline: &Pipeline) {
    let (namespace, name) = (pipeline.namespace().unwrap_or_default(), pipeline.name_any());
    let Some(there) = index.get_mut(&namespace) else { return };
    for camera in pipeline.spec.cameras.names.iter().flatten() {
        if let Some(names) = there.naming.get_mut(camera) {
            names.remove(&name);
            if names.is_empty() {
                there.naming.remove(camera);
            }
        }
    }
    there.with_selector.remove(&name);
    if there.naming.is_empty() && there.with_selector.is_empty() {
        index.remove(&namespace);
    }
}

impl Memory for Registrar {
    type Object = Pipeline;

    fn get(&self, object: &Pipeline) -> Option<Arc<Pipeline>> {
        self.writer.get(object)
    }

    fn all(&self) -> Vec<Arc<Pipeline>> {
        self.writer.all()
    }

    fn uid(object: &Pipeline) -> Option<&str> {
        object.meta().uid.as_deref()
    }

    fn remember(&mut self, event: &Event<Pipeline>) {
        let before = match event {
            Event::Apply(pipeline) | Event::Delete(pipeline) => self.get(pipeline),
            _ => None,
        };
        self.writer.remember(event);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = before {
            strike(&mut index, &before);
        }
        match event {
            Event::Apply(pipeline) => enter(&mut index, pipeline),
            Event::InitDone => {
                index.clear();
                for pipeline in self.writer.all() {
                    enter(&mut index, &pipeline);
                }
            }
            Event::Delete(_) | Event::Init | Event::InitApply(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::fixture;

    fn selecting(registrar: &Registrar, camera: &str) -> Vec<String> {
        let found = registrar.pipelines().selecting([&fixture::camera(camera)]);
        found.iter().map(|pipeline| pipeline.name_any()).collect()
    }

    #[test]
    fn pipelines_are_found_by_the_cameras_they_select_and_no_longer_by_those_they_did() {
        let mut registrar = Registrar::new();
        let [a, b] = ["a", "b"].map(fixture::pipeline);
        assert_eq!(selecting(&registrar, "lobby"), [""; 0]);
        registrar.remember(&Event::Init);
        for pipeline in [a.clone().naming(&["lobby", "dock"]), b.clone().selecting_all()] {
            registrar.remember(&Event::InitApply(pipeline.0));
        }
        registrar.remember(&Event::InitDone);
        assert_eq!(selecting(&registrar, "lobby"), ["a", "b"]);
        assert_eq!(selecting(&registrar, "yard"), ["b"]);
        // Edited: other Cameras, and a selector that takes nothing.
        registrar.remember(&Event::Apply(a.clone().naming(&["yard"]).0));
        registrar.remember(&Event::Apply(b.clone().matching("site", "nowhere").0));
        assert_eq!(selecting(&registrar, "lobby"), [""; 0]);
        assert_eq!(selecting(&registrar, "yard"), ["a"]);
        registrar.remember(&Event::Delete(a.naming(&["yard"]).0));
        assert_eq!(selecting(&registrar, "yard"), [""; 0]);
        registrar.remember(&Event::Delete(b.0));
        assert!(registrar.index.read().expect("no panic").is_empty(), "nothing of the deleted stays");
    }

    #[test]
    fn a_list_anew_forgets_what_is_not_in_it() {
        let mut registrar = Registrar::new();
        registrar.remember(&Event::Apply(fixture::pipeline("a").naming(&["lobby"]).0));
        registrar.remember(&Event::Init);
        registrar.remember(&Event::InitApply(fixture::pipeline("b").naming(&["lobby"]).0));
        assert_eq!(selecting(&registrar, "lobby"), ["a"], "half of a list is no list");
        registrar.remember(&Event::InitDone);
        assert_eq!(selecting(&registrar, "lobby"), ["b"]);
    }

    #[test]
    fn of_several_cameras_each_pipeline_is_found_once() {
        let mut registrar = Registrar::new();
        registrar.remember(&Event::Apply(fixture::pipeline("a").naming(&["lobby", "dock"]).selecting_all().0));
        let [lobby, dock] = ["lobby", "dock"].map(fixture::camera);
        assert_eq!(registrar.pipelines().selecting([&lobby, &dock]).len(), 1);
        let mut elsewhere = lobby;
        elsewhere.metadata.namespace = Some("other".into());
        assert!(registrar.pipelines().selecting([&elsewhere]).is_empty());
    }
}
