//! Whom a change of a Pipeline or a Camera concerns, beside the object itself; and a list of those whom anything concerns.
//!
//! Pure. Not everybody in the namespace: with a thousand Pipelines, each of which writes its status a few times, that is
//! millions of reconciles that change nothing. Called by [`super::watch`].

use std::{collections::BTreeSet, sync::Arc};

use kube::Resource;

use super::claims;
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
    /// Does it select this Camera, or did it? Its status shows how the Pipeline does.
    pub fn concerns_camera(&self, camera: &Camera) -> bool {
        self.versions().any(|pipeline| claims::selects(pipeline, camera))
    }

    /// May this Pipeline win or lose one of those `cameras`, which it concerns? Only when its claims may have changed.
    pub fn concerns_rival(&self, rival: &Pipeline, cameras: &[Arc<Camera>]) -> bool {
        self.is_of_substance() && cameras.iter().any(|camera| claims::selects(rival, camera))
    }
}

impl Change<'_, Camera> {
    /// Does this Pipeline select it as it is, or did so as it was? It records it, lets it go or tells its trouble.
    pub fn concerns_pipeline(&self, pipeline: &Pipeline) -> bool {
        self.versions().any(|camera| claims::selects(pipeline, camera))
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;

    use super::*;
    use crate::operator::fixture::{self, PipelineFixture};

    fn of_site(name: &str, site: &str) -> Camera {
        let mut camera = fixture::camera(name);
        camera.labels_mut().insert("site".into(), site.into());
        camera
    }

    /// Two that name their camera, two rivals over a third.
    fn world() -> (Vec<Arc<Camera>>, [PipelineFixture; 4]) {
        let cameras = ["lobby", "dock", "yard"].map(|name| Arc::new(of_site(name, name)));
        let pipelines = [
            fixture::pipeline("a").naming(&["lobby"]),
            fixture::pipeline("b").naming(&["dock"]),
            fixture::pipeline("c").naming(&["yard"]),
            fixture::pipeline("d").matching("site", "yard"),
        ];
        (cameras.into(), pipelines)
    }

    /// Names of the Cameras and of the Pipelines that a change of a Pipeline concerns.
    fn concerned(before: Option<&Pipeline>, after: Option<&Pipeline>) -> (Vec<String>, Vec<String>) {
        let (mut cameras, pipelines) = world();
        let change = Change { before, after };
        cameras.retain(|camera| change.concerns_camera(camera));
        let rivals = pipelines.iter().filter(|rival| change.concerns_rival(&rival.0, &cameras));
        let rivals = rivals.map(|rival| rival.0.name_any()).collect();
        (cameras.iter().map(|camera| camera.name_any()).collect(), rivals)
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
        let (_, pipelines) = world();
        let concerned = |before: &Camera, after: Option<&Camera>| -> Vec<String> {
            let change = Change { before: Some(before), after };
            let concerned = pipelines.iter().filter(|pipeline| change.concerns_pipeline(&pipeline.0));
            concerned.map(|pipeline| pipeline.0.name_any()).collect()
        };
        assert_eq!(concerned(&of_site("gate", "yard"), Some(&of_site("gate", "hq"))), names(&["d"]));
        assert_eq!(concerned(&of_site("lobby", "yard"), Some(&of_site("lobby", "yard"))), names(&["a", "d"]));
        assert_eq!(concerned(&of_site("lobby", "yard"), None), names(&["a", "d"]));
    }
}
