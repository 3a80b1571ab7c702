//! The operator's side of the broker: a desk where reconciles leave what they want and read what was heard, and one
//! supervisor task that works it off. A broker that is away delays messages, never a reconcile and never a pod.
//!
//! Not here: AMQP itself ([`crate::clients::broker`]). The pure parts are [`wanted`] (what shall be there) and [`fleet`]
//! (what was heard).

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::Notify;

use self::{
    fleet::{Fleet, Link, SeenSummary, View},
    wanted::{Control, Job, Wanted, WantedInstance},
};
use super::concern::Concerned;
use crate::domain::{
    control::{Activity, CameraConfig, InstanceReport, ObjectRef, StreamConfig, Summary},
    id::{InstanceUid, StreamId},
};

pub mod fleet;
mod heard;
pub mod supervisor;
mod sweep;
pub mod topology;
pub mod wanted;
mod work;

/// Why the broker is of no use at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Stable word.
    pub reason: &'static str,
    /// A sentence for a person.
    pub message: String,
}

/// Where reconciles and the supervisor meet.
pub struct Desk {
    inner: Mutex<Inner>,
    wake: Notify,
}

struct Inner {
    wanted: Wanted,
    fleet: Fleet,
    link: Link,
    trouble: Option<Trouble>,
    /// Pipelines reconciled by this process, by uid: only of those it is known which instances they want.
    settled: HashSet<String>,
    /// Cameras that the recorder takes to exist.
    known_cameras: Vec<CameraConfig>,
    /// Uids of Pipelines and Cameras whose deletion was seen: a reconcile that was under way must not bring them back.
    buried: HashSet<String>,
}

/// The control plane of one instance, as a reconcile sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceView {
    /// Its last word.
    pub view: View,
    /// Queue and assignment.
    pub control: Control,
    /// Highest revision it applied.
    pub applied: u64,
}

impl Concerned {
    /// Adds who looks after an instance.
    fn add(&mut self, instance: &WantedInstance) {
        self.pipelines.insert(instance.pipeline.clone());
        self.cameras.insert(instance.camera.clone());
    }
}

impl Desk {
    /// An empty desk; the broker counts as away since `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            inner: Mutex::new(Inner {
                wanted: Wanted::default(),
                fleet: Fleet::default(),
                link: Link::Down(now),
                trouble: None,
                settled: HashSet::new(),
                known_cameras: Vec::new(),
                buried: HashSet::new(),
            }),
            wake: Notify::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // For reconciles.

    /// An instance shall have its queue and this assignment, the recorder this stream.
    pub fn want_instance(&self, instance: WantedInstance, now: Timestamp) {
        let mut inner = self.inner();
        if inner.buried.contains(&instance.pipeline.uid) {
            return;
        }
        inner.fleet.expect(instance.uid, now);
        if inner.wanted.instance(instance) {
            self.wake.notify_one();
        }
    }

    /// Was this instance asked for?
    pub fn wants(&self, uid: InstanceUid) -> bool {
        self.inner().wanted.get(uid).is_some()
    }

    /// The agents of a namespace shall have their broker user.
    pub fn want_user(&self, namespace: &str) {
        if self.inner().wanted.user(namespace) {
            self.wake.notify_one();
        }
    }

    /// The recorder shall know a Camera.
    pub fn want_camera(&self, config: CameraConfig, revision: u64) {
        let mut inner = self.inner();
        if !inner.buried.contains(&config.camera.uid) && inner.wanted.camera(config, revision) {
            self.wake.notify_one();
        }
    }

    /// An instance left its Pipeline and has nothing to upload any more.
    pub fn forget_instance(&self, uid: InstanceUid, delete_footage: bool) {
        let mut inner = self.inner();
        inner.fleet.forget(uid);
        inner.wanted.forget_instance(uid, delete_footage);
        self.wake.notify_one();
    }

    /// A Pipeline's reconcile has said which instances it wants.
    pub fn settled(&self, pipeline_uid: &str) {
        let mut inner = self.inner();
        if !inner.buried.contains(pipeline_uid) {
            inner.settled.insert(pipeline_uid.to_owned());
        }
    }

    /// The deletion of a Pipeline was seen.
    pub fn pipeline_deleted(&self, pipeline_uid: &str, delete_footage: bool) {
        let mut inner = self.inner();
        let uids: Vec<_> = inner.wanted.instances().filter(|i| i.pipeline.uid == pipeline_uid).map(|i| i.uid).collect();
        for uid in uids {
            inner.fleet.forget(uid);
            inner.wanted.forget_instance(uid, delete_footage);
        }
        inner.fleet.forget_pipeline(pipeline_uid);
        inner.settled.remove(pipeline_uid);
        inner.buried.insert(pipeline_uid.to_owned());
        self.wake.notify_one();
    }

    /// The deletion of a Camera was seen.
    pub fn camera_deleted(&self, config: CameraConfig, revision: u64) {
        let mut inner = self.inner();
        inner.buried.insert(config.camera.uid.clone());
        inner.wanted.forget_camera(config, revision);
        self.wake.notify_one();
    }

    /// What is known of an instance.
    pub fn view(&self, uid: InstanceUid, now: Timestamp) -> InstanceView {
        let inner = self.inner();
        InstanceView {
            view: inner.fleet.view(uid, inner.link, now),
            control: inner.wanted.control(uid),
            applied: inner.fleet.applied_revision(uid),
        }
    }

    /// What the recorder said of a Pipeline.
    pub fn summary(&self, pipeline_uid: &str) -> Option<SeenSummary> {
        self.inner().fleet.summary(pipeline_uid).cloned()
    }

    /// Is the broker there, and if not, why?
    pub fn link(&self) -> (Link, Option<Trouble>) {
        let inner = self.inner();
        (inner.link, inner.trouble.clone())
    }

    // For the supervisor.

    async fn woken(&self) {
        self.wake.notified().await;
    }

    fn connected(&self, now: Timestamp) {
        let mut inner = self.inner();
        inner.link = Link::Up(now);
        inner.trouble = None;
        inner.wanted.connected();
        self.wake.notify_one();
    }

    /// `true` when that is news.
    fn disconnected(&self, trouble: Trouble, now: Timestamp) -> bool {
        let mut inner = self.inner();
        let news = matches!(inner.link, Link::Up(_)) || inner.trouble.as_ref() != Some(&trouble);
        if matches!(inner.link, Link::Up(_)) {
            inner.link = Link::Down(now);
        }
        inner.trouble = Some(trouble);
        news
    }

    fn jobs(&self) -> Vec<Job> {
        self.inner().wanted.jobs()
    }

    fn done(&self, job: &Job) {
        self.inner().wanted.done(job);
    }

    fn failed(&self, job: &Job, why: &str) {
        self.inner().wanted.failed(job, why);
    }

    /// These queues exist: those of other instances are declared again, or nobody would until the next edit.
    fn queues_seen(&self, there: &HashSet<InstanceUid>) {
        let mut inner = self.inner();
        let missing: Vec<_> = inner.wanted.declared().filter(|uid| !there.contains(uid)).collect();
        for uid in &missing {
            tracing::info!(%uid, "a queue is gone; declaring it again");
            inner.wanted.queue_missing(*uid);
        }
        if !missing.is_empty() {
            self.wake.notify_one();
        }
    }

    fn queue_missing(&self, uid: InstanceUid) {
        self.inner().wanted.queue_missing(uid);
        self.wake.notify_one();
    }

    fn recorder_asks(&self) {
        self.inner().wanted.recorder_asks();
        self.wake.notify_one();
    }

    fn cameras_known(&self, cameras: Vec<CameraConfig>) {
        self.inner().known_cameras = cameras;
    }

    fn instance_asks(&self, uid: InstanceUid) {
        self.inner().wanted.instance_asks(uid);
        self.wake.notify_one();
    }

    /// Where an instance that is wanted belongs.
    fn namespace_of(&self, uid: InstanceUid) -> Option<String> {
        self.inner().wanted.get(uid).map(|instance| instance.pipeline.namespace.clone())
    }

    fn reported(&self, uid: InstanceUid, report: InstanceReport, now: Timestamp) -> Concerned {
        let mut inner = self.inner();
        inner.fleet.reported(uid, report, now);
        inner.concerned_by(uid, now)
    }

    fn acknowledged(&self, uid: InstanceUid, revision: u64, now: Timestamp) -> Concerned {
        let mut inner = self.inner();
        inner.fleet.acknowledged(uid, revision);
        inner.concerned_by(uid, now)
    }

    fn summarised(&self, summary: Summary, now: Timestamp) -> Concerned {
        let mut inner = self.inner();
        inner.fleet.summarised(summary, now);
        inner.concerned_by_summaries(now)
    }

    /// Whom the passing of time concerns: silence, lag.
    fn tick(&self, now: Timestamp) -> Concerned {
        let mut inner = self.inner();
        let link = inner.link;
        let mut concerned = inner.concerned_by_summaries(now);
        for uid in inner.fleet.changed_instances(link, now) {
            if let Some(instance) = inner.wanted.get(uid) {
                concerned.add(instance);
            }
        }
        concerned
    }

    /// Everybody.
    fn all(&self) -> Concerned {
        let mut concerned = Concerned::default();
        self.inner().wanted.instances().for_each(|instance| concerned.add(instance));
        concerned
    }

    /// The Pipelines of a namespace that want instances.
    fn pipelines_in(&self, namespace: &str) -> BTreeSet<ObjectRef> {
        let inner = self.inner();
        let here = inner.wanted.instances().filter(|instance| instance.pipeline.namespace == namespace);
        here.map(|instance| instance.pipeline.clone()).collect()
    }

    /// Instances that capture, that shall, and all.
    fn counts(&self, now: Timestamp) -> [usize; 3] {
        let inner = self.inner();
        let wanted = inner.wanted.instances().filter(|instance| instance.activity == Activity::Running).count();
        [inner.fleet.running(inner.link, now), wanted, inner.wanted.instances().count()]
    }

    // For the sweep.

    fn wants_queue(&self, uid: InstanceUid) -> bool {
        self.inner().wanted.get(uid).is_some()
    }

    fn is_settled(&self, pipeline_uid: &str) -> bool {
        self.inner().settled.contains(pipeline_uid)
    }

    fn forget_user(&self, namespace: &str) {
        self.inner().wanted.forget_user(namespace);
    }

    fn delete_queue(&self, uid: InstanceUid) {
        self.inner().wanted.delete_queue(uid);
        self.wake.notify_one();
    }

    fn orphan(&self, stream: StreamId) {
        self.inner().wanted.orphan(stream);
        self.wake.notify_one();
    }

    fn bury_stream(&self, stream: StreamConfig, revision: u64) {
        self.inner().wanted.bury_stream(stream, revision);
        self.wake.notify_one();
    }

    /// Cameras the recorder takes to exist that no reconcile of ours has met.
    fn unmet_cameras(&self) -> Vec<CameraConfig> {
        let inner = self.inner();
        let unmet = |camera: &&CameraConfig| {
            !inner.wanted.has_camera(&camera.camera.uid) && !inner.buried.contains(&camera.camera.uid)
        };
        inner.known_cameras.iter().filter(unmet).cloned().collect()
    }

    /// Streams the recorder speaks about that nobody wants: (pipeline, stream, camera).
    fn unwanted_streams(&self) -> Vec<(ObjectRef, StreamId, ObjectRef)> {
        let inner = self.inner();
        let wanted: HashSet<_> =
            inner.wanted.instances().filter_map(|instance| Some(instance.stream.as_ref()?.stream)).collect();
        inner
            .fleet
            .summaries()
            .flat_map(|summary| summary.streams.iter().map(|s| (summary.pipeline.clone(), s.stream, s.camera.clone())))
            .filter(|(_, stream, _)| !wanted.contains(stream))
            .collect()
    }
}

impl Inner {
    fn concerned_by(&mut self, uid: InstanceUid, now: Timestamp) -> Concerned {
        let mut concerned = Concerned::default();
        if self.fleet.changed(uid, self.link, now)
            && let Some(instance) = self.wanted.get(uid)
        {
            concerned.add(instance);
        }
        concerned
    }

    fn concerned_by_summaries(&mut self, now: Timestamp) -> Concerned {
        let pipelines = self
            .fleet
            .changed_pipelines(now)
            .into_iter()
            .filter_map(|uid| self.fleet.summary(&uid).map(|seen| seen.summary.pipeline.clone()))
            .collect();
        Concerned { pipelines, cameras: BTreeSet::new() }
    }
}
