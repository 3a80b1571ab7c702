//! The Pipeline controller: one capture Deployment, assignment, volume and queue for each camera it records.
//!
//! observe (reads) → plan (pure) → desired (pure) → apply (writes) → status (pure, then one write). A deletion is not
//! handled here: the watch hands it to the desk, and Kubernetes collects the children.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use jiff::SignedDuration;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod},
};
use kube::{ResourceExt, runtime::controller::Action};

use self::{
    observe::Observed,
    plan::{Instance, Plan},
};
use super::{
    AT_ONCE,
    apply::{self, Manager, Outcome},
    broker::{fleet::RECORDER_SILENCE, wanted::WantedInstance},
    context::Context,
    error::Error,
    settling::Whose,
    watch::Tag,
};
use crate::{api::Pipeline, domain::name::AGENT_SECRET};

pub mod desired;
pub mod observe;
pub mod plan;
pub mod revision;
pub mod status;

/// Brings one Pipeline's children and external state to what its spec says (rows K2, K4, C1).
pub async fn reconcile(pipeline: Arc<Pipeline>, ctx: Arc<Context>) -> Result<Action, Error> {
    if pipeline.metadata.deletion_timestamp.is_some() {
        // Its children are being collected: nothing is made anew.
        return Ok(Action::await_change());
    }
    let uid = pipeline.uid().unwrap_or_default();
    if let Some(left) = ctx.settling.echo(&uid, false, Instant::now()) {
        return Ok(Action::requeue(left));
    }
    let observed = observe::pipeline(&pipeline, &ctx);
    let plan = plan::pipeline(&pipeline, &observed);
    let began = Instant::now();
    let applied = match &plan {
        Ok(plan) => apply_all(&ctx, plan, &observed, began).await,
        Err(invalid) => Err(Error::Invalid { reason: invalid.reason(), message: invalid.to_string() }),
    };
    let whose = Whose::Pipeline(plan::object_ref(&*pipeline));
    let waits = applied.as_ref().is_ok_and(|applied| {
        if applied.wrote || applied.asked == Asked::NotYet {
            ctx.settling.begin(&whose, began);
        }
        match applied.asked {
            Asked::Now => ctx.settling.waits_for_answer(&whose, Instant::now()),
            Asked::Before => ctx.settling.waits(&whose, began),
            // Its time may have come since that was decided. Told now, it would speak of what nobody has asked for.
            Asked::NotYet => true,
        }
    });
    if waits {
        ctx.settling.echo(&uid, true, Instant::now());
        return Ok(Action::await_change());
    }
    let status = status::pipeline(&pipeline, &observed, plan.as_ref().ok(), applied.as_ref());
    apply::status(&ctx, Manager::Pipeline, &*pipeline, status).await?;
    applied?;
    Ok(next_look(plan.as_ref().ok(), &observed))
}

/// What became of the writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Something was written.
    pub wrote: bool,
    /// What was asked of the broker.
    pub asked: Asked,
    /// The agents' Secret that is there is not the one we would make.
    pub agent_secret_stale: bool,
}

/// Was the broker asked for what the instances of a Pipeline need there? Of several the last in this order counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// There is nothing new.
    #[default]
    Before,
    /// For an instance that is new, just now.
    Now,
    /// An instance that is new waits for it.
    NotYet,
}

/// Configuration before workloads; the broker hears of an assignment only after it stands in its `ConfigMap`.
///
/// `began`: when this look was taken; the wait for a lull is counted from the same moment.
async fn apply_all(ctx: &Context, plan: &Plan, observed: &Observed, began: Instant) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    if !plan.instances.is_empty() {
        applied.agent_secret_stale = agent_secret(ctx, plan, observed).await?;
        ctx.desk.want_user(&plan.pipeline.namespace);
        applied.wrote |=
            apply::child(ctx, Manager::Pipeline, desired::live_service::service(plan)).await? == Outcome::Written;
    }
    // One camera's failure is not the others', and the last of a thousand does not wait for each before it. Outcomes come in
    // order: of several failures it is always the same that is told.
    let mut failure = None;
    for instances in plan.instances.chunks(AT_ONCE) {
        let outcomes = instances.iter().map(|instance| apply_instance(ctx, plan, instance, observed, began));
        for outcome in join_all(outcomes).await {
            match outcome {
                Ok(one) => {
                    applied.wrote |= one.wrote;
                    applied.asked = applied.asked.max(one.asked);
                }
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
    }
    for uid in &plan.finished {
        if let Err(error) = remove_instance(ctx, plan, observed, *uid).await {
            failure.get_or_insert(error);
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    // Only now: an instance that failed was not asked for, and the sweep would take its queue and stream for left over.
    if applied.asked != Asked::NotYet {
        ctx.desk.settled(&plan.pipeline.uid);
    }
    Ok(applied)
}

async fn apply_instance(
    ctx: &Context,
    plan: &Plan,
    instance: &Instance,
    observed: &Observed,
    began: Instant,
) -> Result<Applied, Error> {
    let mut wrote = false;
    if let Some(claim) = desired::spool::claim(plan, instance)
        && !observed.volume_claims.contains_key(&instance.uid)
    {
        wrote |= apply::child(ctx, Manager::Pipeline, claim).await? == Outcome::Written;
    }
    let config_map = desired::assignment::config_map(plan, instance);
    wrote |= apply::child(ctx, Manager::Pipeline, config_map).await? == Outcome::Written;
    // Who is there already is told at once: an edit shall not wait.
    let is_held = observed.held.contains_key(&instance.uid);
    let asked = match ctx.desk.wants(instance.uid) {
        true => Asked::Before,
        // What a leader before us has made is not new, and what became of it since shall not wait either.
        false if ctx.settling.may_ask(&plan.pipeline.uid, wrote && !is_held, began) => Asked::Now,
        false => Asked::NotYet,
    };
    if asked != Asked::NotYet {
        ask_for(ctx, plan, instance, observed);
    }
    let deployment = desired::deployment::deployment(plan, instance, &ctx.config.images);
    wrote |= apply::child(ctx, Manager::Pipeline, deployment).await? == Outcome::Written;
    Ok(Applied { wrote, asked, ..Applied::default() })
}

/// Says at the desk what the broker shall hold for an instance whose assignment stands in its `ConfigMap`.
fn ask_for(ctx: &Context, plan: &Plan, instance: &Instance, observed: &Observed) {
    let wanted = WantedInstance {
        uid: instance.uid,
        pipeline: plan.pipeline.clone(),
        camera: instance.camera.clone(),
        activity: instance.assignment.envelope.data.activity,
        command: instance.assignment.command(),
        revision: instance.assignment.envelope.revision,
        text: instance.assignment.text.clone(),
        stream: Some(Arc::new(instance.assignment.stream.clone())),
    };
    if let Some(ladder) = &instance.assignment.ladder {
        let transcoder = WantedInstance {
            uid: ladder.envelope.data.instance,
            command: ladder.command(),
            revision: ladder.envelope.revision,
            text: ladder.text.clone(),
            stream: None,
            ..wanted.clone()
        };
        ctx.desk.want_instance(transcoder, observed.now);
    }
    if let Some(retired) = instance.retired {
        ctx.desk.forget_instance(retired, false);
    }
    ctx.desk.want_instance(wanted, observed.now);
}

/// Removes what an instance that has drained leaves behind; the assignment last, for the others are found by it.
async fn remove_instance(
    ctx: &Context,
    plan: &Plan,
    observed: &Observed,
    uid: crate::domain::id::InstanceUid,
) -> Result<(), Error> {
    let (namespace, owner) = (&plan.pipeline.namespace, &plan.pipeline.uid);
    let stale = |child: &Tag| child.instance == Some(uid);
    apply::prune::<Deployment>(ctx, namespace, owner, stale).await?;
    apply::prune::<PersistentVolumeClaim>(ctx, namespace, owner, stale).await?;
    // The camera left the Pipeline: that is no deletion of footage, which stays until its retention ends.
    ctx.desk.forget_instance(uid, false);
    if let Some(ladder) = observed.held.get(&uid).and_then(|held| held.ladder.as_ref()) {
        ctx.desk.forget_instance(ladder.envelope.data.instance, false);
    }
    apply::prune::<ConfigMap>(ctx, namespace, owner, stale).await?;
    debug_assert!(observed.held.contains_key(&uid));
    Ok(())
}

/// Makes the agents' Secret when it is missing; is the one that is there another than ours would be?
async fn agent_secret(ctx: &Context, plan: &Plan, observed: &Observed) -> Result<bool, Error> {
    let namespace = &plan.pipeline.namespace;
    let (known, stale) = (format!("{namespace}/{AGENT_SECRET}"), format!("{namespace}/{AGENT_SECRET} stale"));
    // Secrets aren't watched: pods that don't come up are the sign to look again.
    let unavailable = observed.deployments.values().any(|deployment| {
        let status = deployment.status.as_ref();
        status.and_then(|s| s.unavailable_replicas).is_some_and(|unavailable| unavailable > 0)
    });
    let pending = |pod: &Arc<Pod>| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending");
    let waiting = observed.pods.values().flatten().any(pending);
    let doubt = unavailable || waiting || ctx.known.contains(&stale);
    if ctx.known.contains(&known) && !(doubt && ctx.known.is_old(&known)) {
        return Ok(ctx.known.contains(&stale));
    }
    let wanted = desired::agent_secret::secret(namespace, &ctx.config.broker, &ctx.master);
    let found = apply::secret_once(ctx, namespace, AGENT_SECRET, || wanted.clone()).await?;
    ctx.known.insert(known);
    let current = desired::agent_secret::is_current(&found, &wanted);
    if current {
        ctx.known.forget(&stale);
    } else {
        ctx.known.insert(stale);
    }
    Ok(!current)
}

/// When time alone changes something: a draining instance runs into its bound, an assignment stays unacknowledged.
fn next_look(plan: Option<&Plan>, observed: &Observed) -> Action {
    let Some(plan) = plan else { return Action::await_change() };
    let unacknowledged = plan
        .instances
        .iter()
        .flat_map(Instance::participants)
        .any(|(uid, revision, _)| observed.views.get(&uid).is_none_or(|view| view.applied < revision));
    let drained = plan.look_again.map(|time| time.duration_since(observed.now).unsigned_abs());
    // A new leader repeats what its predecessor heard of the recorder, and only so long.
    let heard =
        observed.summary.is_none().then(|| observed.link.since() + RECORDER_SILENCE + SignedDuration::from_secs(1));
    let heard = heard.map(|time| time.duration_since(observed.now)).filter(SignedDuration::is_positive);
    let bound = drained.into_iter().chain(heard.map(SignedDuration::unsigned_abs)).min();
    match (bound, unacknowledged) {
        (None, false) => Action::await_change(),
        (Some(bound), false) => Action::requeue(bound),
        (bound, true) => {
            let patience = Duration::from_secs(35);
            Action::requeue(bound.map_or(patience, |bound| bound.min(patience)))
        }
    }
}

/// The deletion of a Pipeline was seen: its queues go and its streams are buried at once.
pub fn deleted(ctx: &Context, pipeline: &Pipeline) {
    let delete = pipeline.spec.effective().deletion_policy == crate::api::pipeline::DeletionPolicy::Delete;
    tracing::info!(namespace = pipeline.namespace(), name = pipeline.name_any(), delete, "Pipeline deleted");
    let uid = pipeline.uid().unwrap_or_default();
    ctx.settling.forget(&uid);
    ctx.desk.pipeline_deleted(&uid, delete);
}
