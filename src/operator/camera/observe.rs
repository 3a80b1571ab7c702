//! Step 1: who records the Camera, what its instance says, and whether its Secret is there.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::ResourceExt;

use crate::{
    api::{Camera, Pipeline},
    domain::{
        control::Problem,
        diagnosis::SECRET_MISSING,
        id::{InstanceUid, Role},
        name,
    },
    operator::{
        broker::{
            Trouble,
            fleet::{Link, View},
        },
        claims,
        context::Context,
        error::Error,
    },
};

/// What there is.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Pipeline that records it.
    pub claimant: Option<Arc<Pipeline>>,
    /// What its instance says.
    pub view: View,
    /// Deployment of its instance.
    pub deployment: Option<Arc<Deployment>>,
    /// Pods of its instance.
    pub pods: Vec<Arc<Pod>>,
    /// What is wrong with its Secret.
    pub secret: Option<Problem>,
    /// When to look at the Secret again.
    pub again: Option<Duration>,
    /// The broker.
    pub link: Link,
    /// Why the broker is away.
    pub trouble: Option<Trouble>,
    /// When this was read.
    pub now: Timestamp,
}

/// Reads; the one call is for a Secret that was not seen to be all right before.
pub async fn camera(camera: &Camera, ctx: &Context) -> Result<Observed, Error> {
    let namespace = camera.namespace().unwrap_or_default();
    let now = ctx.now();
    let rivals = ctx.stores.pipelines.selecting([camera]);
    let claimant = claims::claimant(camera, &rivals).cloned();
    let instance = claimant.as_ref().map(|pipeline| {
        InstanceUid::of(&pipeline.uid().unwrap_or_default(), &camera.uid().unwrap_or_default(), Role::Capture, 0)
    });
    let view = instance.map_or(View::Awaiting, |instance| ctx.desk.view(instance, now).view);
    let pods = claimant.as_ref().map_or_else(Vec::new, |pipeline| {
        ctx.stores.pods.of(&namespace, &pipeline.name_any(), |pod| pod.instance == instance)
    });
    let pods = pods.iter().map(|pod| pod.unpack()).collect();
    let deployment = instance.zip(claimant.as_ref()).and_then(|(instance, pipeline)| {
        let name = name::instance(&pipeline.name_any(), &camera.name_any(), &instance.to_string());
        ctx.stores.deployments.get(&namespace, &name)
    });
    let doubted = matches!(&view, View::Fresh(report)
        if report.problem.as_ref().is_some_and(|problem| problem.reason == SECRET_MISSING));
    let (secret, again) = match &camera.spec.source.credentials_secret_ref {
        Some(reference) => {
            let check = ctx.credentials.check(ctx, &namespace, &reference.name, doubted).await?;
            (check.problem, check.again)
        }
        None => (None, None),
    };
    let (link, trouble) = ctx.desk.link();
    Ok(Observed {
        claimant,
        view,
        deployment: deployment.map(|deployment| deployment.unpack()),
        pods,
        secret,
        again,
        link,
        trouble,
        now,
    })
}
