//! Which Pipeline records a Camera: the older of those that select it.
//!
//! Pure, and the same function for both controllers, so that they can't disagree. Not here: what follows from a claim.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};

use crate::api::{Camera, Pipeline};

/// Does the selector take an object with these labels? An operator the API server let through and nobody knows takes
/// nothing; [`check_selector`] says so to the person.
fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

/// What is wrong with a Pipeline's selector, if anything.
pub fn check_selector(pipeline: &Pipeline) -> Result<(), String> {
    match &pipeline.spec.cameras.selector {
        Some(selector) => Selector::try_from(selector.clone()).map(|_| ()).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

/// Does the Pipeline name or select the Camera?
pub fn selects(pipeline: &Pipeline, camera: &Camera) -> bool {
    let set = &pipeline.spec.cameras;
    let named = set.names.as_ref().zip(camera.metadata.name.as_ref()).is_some_and(|(names, name)| names.contains(name));
    named || set.selector.as_ref().is_some_and(|selector| matches(selector, camera.labels()))
}

/// The Pipeline that records the Camera: of those that select it and aren't being deleted, the oldest, then the one
/// with the smaller uid.
pub fn claimant<'a>(camera: &Camera, pipelines: &'a [Arc<Pipeline>]) -> Option<&'a Arc<Pipeline>> {
    if camera.metadata.deletion_timestamp.is_some() {
        return None;
    }
    pipelines
        .iter()
        .filter(|pipeline| pipeline.metadata.deletion_timestamp.is_none() && selects(pipeline, camera))
        .min_by_key(|pipeline| {
            (pipeline.metadata.creation_timestamp.as_ref().map(|time| time.0), pipeline.metadata.uid.clone())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::fixture;

    #[test]
    fn the_older_pipeline_wins_then_the_smaller_uid() {
        let camera = fixture::camera("lobby");
        let older = fixture::pipeline("z").created(10).selecting_all();
        let younger = fixture::pipeline("a").created(20).selecting_all();
        let twin = fixture::pipeline("b").created(10).selecting_all();
        let all = [younger.arc(), older.arc()];
        assert_eq!(claimant(&camera, &all).map(|p| p.name_any()), Some("z".into()));
        // uids of the fixture follow the names.
        let all = [older.arc(), twin.arc()];
        assert_eq!(claimant(&camera, &all).map(|p| p.name_any()), Some("b".into()));
    }

    #[test]
    fn a_pipeline_that_is_being_deleted_claims_nothing() {
        let camera = fixture::camera("lobby");
        let leaving = fixture::pipeline("a").created(10).selecting_all().deleted();
        let other = fixture::pipeline("b").created(20).selecting_all();
        assert_eq!(claimant(&camera, &[leaving.arc(), other.arc()]).map(|p| p.name_any()), Some("b".into()));
    }

    #[test]
    fn names_and_labels_are_a_union() {
        let mut camera = fixture::camera("lobby");
        camera.labels_mut().insert("site".into(), "hq".into());
        for (pipeline, selected) in [
            (fixture::pipeline("p").naming(&["lobby"]), true),
            (fixture::pipeline("p").naming(&["dock"]), false),
            (fixture::pipeline("p").naming(&["dock"]).matching("site", "hq"), true),
            (fixture::pipeline("p").matching("site", "yard"), false),
            (fixture::pipeline("p").selecting_all(), true),
        ] {
            assert_eq!(selects(&pipeline.arc(), &camera), selected);
        }
    }
}
