//! Step 3, pure: the children of a Pipeline, one file and one snapshot each.
//!
//! The Deployment's template does not depend on the assignment: pausing, resuming and editing the capture settings must
//! not touch the pod.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

use super::plan::{Instance, Plan};
use crate::operator::labels;

pub mod agent_secret;
pub mod assignment;
pub mod deployment;
pub mod live_service;
pub mod spool;

/// Component of all children of a Pipeline.
pub const COMPONENT: &str = "capture";

/// Metadata of what belongs to one instance.
fn instance_metadata(plan: &Plan, instance: &Instance) -> ObjectMeta {
    ObjectMeta {
        name: Some(instance.name.clone()),
        namespace: Some(plan.pipeline.namespace.clone()),
        labels: Some(labels::instance(&plan.pipeline.name, &instance.camera.name, instance.uid, COMPONENT)),
        owner_references: Some(owners(plan)),
        ..ObjectMeta::default()
    }
}

fn owners(plan: &Plan) -> Vec<OwnerReference> {
    vec![plan.owner.clone()]
}

#[cfg(test)]
mod fixture {
    use super::{Instance, Plan};
    use crate::operator::{
        fixture::{self, PipelineFixture},
        pipeline::plan::tests::{observed, plan},
    };

    /// A plan with one camera `lobby`.
    pub fn planned(pipeline: &PipelineFixture) -> (Plan, Instance) {
        let plan = plan(pipeline, &observed(&["lobby"]));
        let instance = plan.instances[0].clone();
        (plan, instance)
    }

    /// The simplest Pipeline over it.
    pub fn simple() -> PipelineFixture {
        fixture::pipeline("main").selecting_all()
    }
}
