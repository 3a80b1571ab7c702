//! Whom a change of a Pipeline or a Camera concerns, beside the object itself; and a list of those whom anything concerns.
//!
//! Reads only. Not everybody in the namespace: with a thousand Pipelines, each of which writes its status a few times, that is
//! millions of reconciles that change nothing. Called by [`super::watch`].

use std::{collections::BTreeSet, sync::Arc};

use kube::{Resource, ResourceExt, runtime::reflector::Store};

use super::{context, watch::Pipelines};
use crate::{
    api::{Camera, Pipeline},
    domain::control::ObjectRef,
};

/// Those to reconcile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Concerned {
    /// Pipelines.
    pub pipelines: BTreeSet<ObjectRef>,
    /// Cameras.
    pub cameras: BTreeSet<ObjectRef>,
}

/// An object as it was, unless it is new, and as it is, unless it is gone.
#[derive(Debug)]
pub struct Change<'a, K> {
    /// Before.
    pub before: Option<&'a K>,
    /// After.
    pub after: Option<&'a K>,
}

impl<K: Resource> Change<'_, K> {
    /// Both versions that there are.
    fn versions(&self) -> impl Iterator<Item = &K> {
        self.before.into_iter().chain(self.after)
    }

    /// Did more change than status and annotations?
    fn is_of_substance(&self) -> bool {
        let substance = |object: &K| {
            let metadata = object.meta();
            (metadata.uid.clone(), metadata.generation, metadata.deletion_timestamp.is_some())
        };
        self.before.map(substance) != self.after.map(substance)
    }
}

impl Change<'_, Pipeline> {
    /// The Cameras that it selects or did: their status shows how the Pipeline does.
    pub fn cameras(&self, cameras: &Store<Camera>) -> Vec<Arc<Camera>> {
        let mut concerned: Vec<_> = self.versions().flat_map(|pipeline| context::selected(cameras, pipeline)).collect();
        concerned.sort_by_key(|camera| camera.name_any());
        concerned.dedup_by_key(|camera| camera.name_any());
        concerned
    }

    /// Pipelines that may win or lose one of those `cameras`, which it concerns: only when its claims may have changed.
    pub fn rivals(&self, cameras: &[Arc<Camera>], pipelines: &Pipelines) -> Vec<Arc<Pipeline>> {
        let cameras = if self.is_of_substance() { cameras } else { &[] };
        pipelines.selecting(cameras.iter().map(AsRef::as_ref))
    }
}

impl Change<'_, Camera> {
    /// Pipelines that select it as it is, or did so as it was: they record it, let it go or tell its trouble.
    pub fn pipelines(&self, pipelines: &Pipelines) -> Vec<Arc<Pipeline>> {
        pipelines.selecting(self.before.into_iter().chain(self.after))
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::operator::{
        context::Stores,
        fixture::{self, PipelineFixture},
        watch::{self, Memory},
    };

    fn of_site(name: &str, site: &str) -> Camera {
        let mut camera = fixture::camera(name);
        camera.labels_mut().insert("site".into(), site.into());
        camera
    }

    /// Two that name their camera, two rivals over a third.
    fn world() -> (Stores, [PipelineFixture; 4]) {
        let pipelines = [
            fixture::pipeline("a").naming(&["lobby"]),
            fixture::pipeline("b").naming(&["dock"]),
            fixture::pipeline("c").naming(&["yard"]),
            fixture::pipeline("d").matching("site", "yard"),
        ];
        let (stores, mut writers) = watch::stores();
        for name in ["lobby", "dock", "yard"] {
            writers.cameras.remember(&Event::Apply(of_site(name, name)));
        }
        for pipeline in &pipelines {
            writers.pipelines.remember(&Event::Apply(pipeline.0.clone()));
        }
        (stores, pipelines)
    }

    fn names_of<K: ResourceExt>(objects: &[Arc<K>]) -> Vec<String> {
        objects.iter().map(|object| object.name_any()).collect()
    }

    /// Names of the Cameras and of the Pipelines that a change of a Pipeline concerns.
    fn concerned(before: Option<&Pipeline>, after: Option<&Pipeline>) -> (Vec<String>, Vec<String>) {
        let (stores, _) = world();
        let change = Change { before, after };
        let cameras = change.cameras(&stores.cameras);
        (names_of(&cameras), names_of(&change.rivals(&cameras, &stores.pipelines)))
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_status_that_is_written_concerns_the_cameras_that_are_recorded_and_nobody_else() {
        let (_, pipelines) = world();
        let it = &pipelines[2].0;
        assert_eq!(concerned(Some(it), Some(it)), (names(&["yard"]), names(&[])));
    }

    #[test]
    fn what_comes_goes_or_is_edited_concerns_its_rivals() {
        let (_, pipelines) = world();
        let it = &pipelines[2].0;
        let mut edited = pipelines[2].clone().naming(&["dock"]).0;
        edited.metadata.generation = Some(2);
        let deleted = pipelines[2].clone().deleted().0;
        for (before, after, of_cameras, of_pipelines) in [
            (None, Some(it), names(&["yard"]), names(&["c", "d"])),
            (Some(it), None, names(&["yard"]), names(&["c", "d"])),
            (Some(it), Some(&deleted), names(&["yard"]), names(&["c", "d"])),
            // What it took and what it let go.
            (Some(it), Some(&edited), names(&["dock", "yard"]), names(&["b", "c", "d"])),
        ] {
            assert_eq!(concerned(before, after), (of_cameras, of_pipelines), "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_camera_concerns_those_that_select_it_and_those_that_did() {
        let (stores, _) = world();
        let concerned = |before: &Camera, after: Option<&Camera>| {
            names_of(&Change { before: Some(before), after }.pipelines(&stores.pipelines))
        };
        assert_eq!(concerned(&of_site("gate", "yard"), Some(&of_site("gate", "hq"))), names(&["d"]));
        assert_eq!(concerned(&of_site("lobby", "yard"), Some(&of_site("lobby", "yard"))), names(&["a", "d"]));
        assert_eq!(concerned(&of_site("lobby", "yard"), None), names(&["a", "d"]));
    }
}
