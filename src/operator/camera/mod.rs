//! The Camera controller: says who records a camera and how it is, and tells the recorder that it exists.
//!
//! observe (reads) → desk (what the recorder shall know) → status (pure, then one write). It makes no children:
//! recording is the Pipeline's business.

use std::{sync::Arc, time::Instant};

use kube::{ResourceExt, runtime::controller::Action};

use super::{
    apply::{self, Manager},
    context::Context,
    error::Error,
    pipeline::plan::object_ref,
    settling::Whose,
};
use crate::{api::Camera, domain::control::CameraConfig};

pub mod credentials;
pub mod observe;
pub mod status;

/// Brings one Camera's status to what is known of it (rows K2, B3).
pub async fn reconcile(camera: Arc<Camera>, ctx: Arc<Context>) -> Result<Action, Error> {
    if camera.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    ctx.desk.want_camera(config(&camera), revision(&camera));
    // Who records a new one is hardly known yet: neither is its Secret read nor its status written until then.
    let whose = Whose::Camera(object_ref(&*camera));
    if camera.status.is_none() {
        ctx.settling.begin(&whose, Instant::now());
    }
    if ctx.settling.waits(&whose, Instant::now()) {
        return Ok(Action::await_change());
    }
    let observed = observe::camera(&camera, &ctx).await?;
    apply::status(&ctx, Manager::Camera, &*camera, status::camera(&camera, &observed)).await?;
    Ok(observed.again.map_or_else(Action::await_change, Action::requeue))
}

/// The deletion of a Camera was seen: the recorder is told.
pub fn deleted(ctx: &Context, camera: &Camera) {
    tracing::info!(namespace = camera.namespace(), name = camera.name_any(), "Camera deleted");
    ctx.settling.forget(&camera.uid().unwrap_or_default());
    ctx.desk.camera_deleted(config(camera), revision(camera));
}

/// What the recorder knows of a Camera; all of it is spec, so the generation orders it.
fn config(camera: &Camera) -> CameraConfig {
    CameraConfig { camera: object_ref(camera), site: camera.effective_site(), deleted: false }
}

fn revision(camera: &Camera) -> u64 {
    camera.metadata.generation.unwrap_or_default().unsigned_abs()
}
