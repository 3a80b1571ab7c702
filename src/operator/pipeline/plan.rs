//! Step 2, pure: from spec and observation to a plan in which nothing can be wrong any more.
//!
//! After it nothing fails for reasons of input: cameras are resolved and claimed, defaults are in effect, assignments
//! are numbered, and each instance is either to be there or finished.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::PersistentVolumeClaim, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Resource, ResourceExt};

use super::{
    observe::Observed,
    revision::{self, Numbered},
};
use crate::{
    api::{
        Camera, Pipeline,
        camera::Transport,
        pipeline::{self as api, DeletionPolicy, EffectiveSettings, PipelineState, PodOptions, Spool},
    },
    domain::{
        container::Container,
        control::{Activity, Assignment, Audio, CaptureSource, ObjectRef, Phase, StreamConfig},
        duration,
        id::{InstanceUid, Role, StreamId},
        ladder::{LadderAssignment, Rendition},
        name, quantity,
    },
    operator::{broker::fleet::View, claims},
};

/// How long an instance that leaves may take to hand over what is left. After it, one whose volume holds footage stays
/// and is complained about; only one that has nothing to lose goes.
pub const DRAIN_BOUND: SignedDuration = SignedDuration::from_mins(10);
/// How often the numbers of an instance that takes longer are told anew.
const DRAIN_LOOK: SignedDuration = SignedDuration::from_mins(5);
/// Size of a spool that names none.
pub const DEFAULT_SPOOL: &str = "2Gi";

/// Why a spec can't be carried out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The selector has an operator or value Kubernetes does not know.
    #[error("spec.cameras.selector can't be read: {0}")]
    Selector(String),
    /// Not a duration.
    #[error("spec.storage.retention: {0}")]
    Retention(#[from] duration::Invalid),
    /// Not a size.
    #[error("spec.spool.size: {0:?} is not a size; write e.g. 10Gi")]
    SpoolSize(String),
}

impl Invalid {
    /// Stable word for the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Selector(_) => "InvalidSelector",
            Self::Retention(_) => "InvalidRetention",
            Self::SpoolSize(_) => "InvalidSpoolSize",
        }
    }
}

/// What shall be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The Pipeline.
    pub pipeline: ObjectRef,
    /// Owner of all children.
    pub owner: OwnerReference,
    /// State in effect.
    pub state: PipelineState,
    /// Settings in effect.
    pub settings: EffectiveSettings,
    /// Name of the headless Service over the capture pods.
    pub service: String,
    /// Scheduling of the pods.
    pub pod: PodOptions,
    /// Instances that shall be there, in the order of their cameras' names; those that leave last.
    pub instances: Vec<Instance>,
    /// Instances that have nothing left to do.
    pub finished: BTreeSet<InstanceUid>,
    /// How many cameras are named or selected.
    pub selected: usize,
    /// Cameras that are named or selected and not taken.
    pub refused: Vec<Refused>,
    /// `StorageNodes` in the group.
    pub nodes: usize,
    /// When time alone changes the plan.
    pub look_again: Option<Timestamp>,
}

/// A camera that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another, older Pipeline records it.
    ClaimedBy {
        /// The camera.
        camera: String,
        /// That Pipeline.
        pipeline: String,
    },
    /// Named, and there is no such Camera.
    NotFound {
        /// The name.
        camera: String,
    },
}

/// One capture instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its uid.
    pub uid: InstanceUid,
    /// Name of its children, and its host name.
    pub name: String,
    /// Its camera.
    pub camera: ObjectRef,
    /// It leaves the Pipeline and uploads what is left.
    pub leaving: bool,
    /// Pods wanted.
    pub replicas: i32,
    /// What it is told, and the transcoder beside it if there is one.
    pub assignment: Numbered,
    /// The transcoder that was beside it and is no longer wanted.
    pub retired: Option<InstanceUid>,
    /// Where footage waits.
    pub spool: SpoolVolume,
    /// Secret with the camera's credentials.
    pub credentials: Option<String>,
}

impl Instance {
    /// Who takes part for its camera: uid, revision of the assignment, when that was made. Each has a queue of its own.
    pub fn participants(&self) -> impl Iterator<Item = (InstanceUid, u64, Timestamp)> + use<> {
        let capture = (self.uid, self.assignment.envelope.revision, self.assignment.envelope.issued_at);
        let ladder = self.assignment.ladder.as_ref().map(|ladder| &ladder.envelope);
        let transcoder = ladder.map(|envelope| (envelope.data.instance, envelope.revision, envelope.issued_at));
        std::iter::once(capture).chain(transcoder)
    }
}

/// Where footage waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpoolVolume {
    /// A claim, with its size and class.
    Claim {
        /// Size, e.g. `2Gi`.
        size: String,
        /// `StorageClass`.
        class: Option<String>,
    },
    /// Goes with the pod.
    Ephemeral {
        /// Size, e.g. `2Gi`.
        size: String,
    },
}

/// The object as the messages name it.
pub fn object_ref(object: &impl ResourceExt) -> ObjectRef {
    ObjectRef {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
    }
}

/// Plans.
pub fn pipeline(pipeline: &Pipeline, observed: &Observed) -> Result<Plan, Invalid> {
    claims::check_selector(pipeline).map_err(Invalid::Selector)?;
    let common = Common::new(pipeline)?;
    let (mut accepted, mut refused, mut selected) = (Vec::new(), not_found(pipeline, observed), 0);
    selected += refused.len();
    for camera in observed.cameras.iter().filter(|camera| camera.metadata.deletion_timestamp.is_none()) {
        if !claims::selects(pipeline, camera) {
            continue;
        }
        selected += 1;
        match claims::claimant(camera, &observed.pipelines) {
            Some(claimant) if claimant.uid() != pipeline.uid() => {
                refused.push(Refused::ClaimedBy { camera: camera.name_any(), pipeline: claimant.name_any() });
            }
            _ => accepted.push(common.capturing(camera, observed)),
        }
    }
    let wanted: BTreeSet<_> = accepted.iter().map(|instance| instance.uid).collect();
    let mut finished = BTreeSet::new();
    let mut look_again = None;
    for (uid, held) in observed.held.iter().filter(|(uid, _)| !wanted.contains(uid)) {
        let leaving = common.leaving(*uid, held, observed.now);
        let bound = leaving.assignment.envelope.issued_at + DRAIN_BOUND;
        let late = observed.now >= bound;
        let left = left_behind(observed.volume_claims.get(uid).map(|claim| &**claim));
        if is_drained(*uid, held, observed) || left == Left::GivenUp || (late && left == Left::Nothing) {
            finished.insert(*uid);
        } else {
            let look = if late { observed.now + DRAIN_LOOK } else { bound };
            look_again = Some(look_again.map_or(look, |earlier: Timestamp| earlier.min(look)));
            accepted.push(leaving);
        }
    }
    Ok(Plan {
        owner: pipeline.controller_owner_ref(&()).unwrap_or_default(),
        state: common.state,
        service: common.service,
        pod: pipeline.spec.pod.clone().unwrap_or_default(),
        instances: accepted,
        finished,
        selected,
        refused,
        nodes: observed
            .storage_nodes
            .iter()
            .filter(|node| node.metadata.deletion_timestamp.is_none())
            .filter(|node| node.effective_group() == common.settings.group)
            .count(),
        settings: common.settings,
        pipeline: common.pipeline,
        look_again,
    })
}

fn not_found(pipeline: &Pipeline, observed: &Observed) -> Vec<Refused> {
    let names = pipeline.spec.cameras.names.iter().flatten();
    names
        .filter(|name| !observed.cameras.iter().any(|camera| camera.name_any() == **name))
        .map(|name| Refused::NotFound { camera: name.clone() })
        .collect()
}

/// Did the instance say that it has nothing left, and that of its last assignment?
fn is_drained(uid: InstanceUid, held: &Numbered, observed: &Observed) -> bool {
    held.envelope.data.activity == Activity::Draining
        && observed.views.get(&uid).is_some_and(|view| match &view.view {
            View::Fresh(report) => report.phase == Phase::Drained && report.revision >= held.envelope.revision,
            View::Awaiting | View::Silent => false,
        })
}

/// What would be lost with the volume of an instance that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Nothing that could be waited for: no claim, or one that no pod has ever written to.
    Nothing,
    /// Footage, perhaps. Trap: an agent that is away, or has just started, says nothing of it.
    Footage,
    /// Somebody deleted the claim: what is in it is not wanted.
    GivenUp,
}

fn left_behind(claim: Option<&PersistentVolumeClaim>) -> Left {
    match claim {
        Some(claim) if claim.metadata.deletion_timestamp.is_some() => Left::GivenUp,
        Some(claim) if claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound")) => {
            Left::Footage
        }
        Some(_) | None => Left::Nothing,
    }
}

/// What all instances of a Pipeline share.
struct Common {
    pipeline: ObjectRef,
    state: PipelineState,
    settings: EffectiveSettings,
    service: String,
    spool: SpoolVolume,
    spool_bytes: u64,
    retention_seconds: u64,
    renditions: Vec<Rendition>,
}

impl Common {
    fn new(pipeline: &Pipeline) -> Result<Self, Invalid> {
        let reference = object_ref(pipeline);
        let settings = pipeline.spec.effective();
        let spool = pipeline.spec.spool.clone().unwrap_or_default();
        let size = spool_size(&spool);
        // 85 %: the file system's own needs, and room for what ffmpeg writes while the agent clears up.
        let spool_bytes = quantity::bytes(&size).ok_or_else(|| Invalid::SpoolSize(size.clone()))? / 100 * 85;
        let volume = if spool.ephemeral.unwrap_or(false) {
            SpoolVolume::Ephemeral { size }
        } else {
            SpoolVolume::Claim { size, class: spool.storage_class_name }
        };
        Ok(Self {
            state: pipeline.spec.effective_state(),
            service: name::live_service(&reference.name, &reference.uid),
            retention_seconds: duration::parse(&settings.retention)?.as_secs(),
            pipeline: reference,
            settings,
            spool: volume,
            spool_bytes,
            renditions: renditions(pipeline),
        })
    }

    fn capturing(&self, camera: &Camera, observed: &Observed) -> Instance {
        let reference = object_ref(camera);
        let uid = InstanceUid::of(&self.pipeline.uid, &reference.uid, Role::Capture, 0);
        let instance_name = name::instance(&self.pipeline.name, &reference.name, &uid.to_string());
        let stream = StreamId::of(&self.pipeline.uid, &reference.uid);
        let credentials = camera.spec.source.credentials_secret_ref.as_ref().map(|secret| secret.name.clone());
        let assignment = Assignment {
            instance: uid,
            stream,
            activity: match self.state {
                PipelineState::Running => Activity::Running,
                PipelineState::Paused | PipelineState::Stopped => Activity::Paused,
            },
            pipeline: self.pipeline.clone(),
            camera: reference.clone(),
            site: camera.effective_site(),
            source: CaptureSource {
                url: camera.spec.source.url.clone(),
                transport: match camera.spec.effective_transport() {
                    Transport::Tcp => "tcp".to_owned(),
                    Transport::Udp => "udp".to_owned(),
                },
                credentials: credentials.is_some(),
                credentials_secret: credentials.clone(),
            },
            segment_seconds: self.settings.segment_seconds.unsigned_abs(),
            container: match self.settings.container {
                api::Container::Fmp4 => Container::Fmp4,
                api::Container::MpegTs => Container::MpegTs,
            },
            audio: match self.settings.audio {
                api::Audio::Aac => Audio::Aac,
                api::Audio::Copy => Audio::Copy,
                api::Audio::None => Audio::None,
            },
            storage_url: name::storage_url(&self.settings.group, &self.pipeline.namespace),
            spool_bytes: self.spool_bytes,
        };
        let config = self.stream(&reference);
        let held = observed.held.get(&uid);
        let ladder = self.ladder(&assignment);
        let before = held.and_then(|held| held.ladder.as_ref()).map(|ladder| ladder.envelope.data.instance);
        Instance {
            uid,
            name: instance_name,
            camera: reference,
            leaving: false,
            replicas: i32::from(self.state != PipelineState::Stopped),
            retired: before.filter(|_| ladder.is_none()),
            assignment: revision::number(held, assignment, config, ladder, observed.now),
            spool: self.spool.clone(),
            credentials,
        }
    }

    /// What the transcoder beside this instance is told.
    fn ladder(&self, capture: &Assignment) -> Option<LadderAssignment> {
        (!self.renditions.is_empty()).then(|| LadderAssignment {
            instance: self.transcoder(&capture.camera),
            stream: capture.stream,
            activity: capture.activity,
            pipeline: capture.pipeline.clone(),
            camera: capture.camera.clone(),
            renditions: self.renditions.clone(),
        })
    }

    fn transcoder(&self, camera: &ObjectRef) -> InstanceUid {
        InstanceUid::of(&self.pipeline.uid, &camera.uid, Role::Transcoder, 0)
    }

    /// How the footage of a camera is kept.
    fn stream(&self, camera: &ObjectRef) -> StreamConfig {
        let uid = InstanceUid::of(&self.pipeline.uid, &camera.uid, Role::Capture, 0);
        let instance = name::instance(&self.pipeline.name, &camera.name, &uid.to_string());
        StreamConfig {
            stream: StreamId::of(&self.pipeline.uid, &camera.uid),
            instance: uid,
            pipeline: self.pipeline.clone(),
            camera: camera.clone(),
            group: self.settings.group.clone(),
            replicas: self.settings.replicas.unsigned_abs(),
            retention_seconds: self.retention_seconds,
            rollup_seconds: self.settings.rollup_seconds.unsigned_abs(),
            delete_with_pipeline: self.settings.deletion_policy == DeletionPolicy::Delete,
            live_url: name::live_url(&instance, &self.service, &self.pipeline.namespace),
            transcoder: (!self.renditions.is_empty()).then(|| self.transcoder(camera)),
            deleted: false,
        }
    }

    /// The instance of a camera that this Pipeline no longer records: its pod runs (also when the Pipeline is stopped)
    /// until the last footage is uploaded. Its camera may be gone: everything comes from what it was told last.
    fn leaving(&self, uid: InstanceUid, held: &Numbered, now: Timestamp) -> Instance {
        let assignment = Assignment { activity: Activity::Draining, ..held.envelope.data.clone() };
        let camera = assignment.camera.clone();
        let ladder = held
            .ladder
            .as_ref()
            .map(|ladder| LadderAssignment { activity: Activity::Draining, ..ladder.envelope.data.clone() });
        Instance {
            uid,
            name: name::instance(&self.pipeline.name, &camera.name, &uid.to_string()),
            credentials: assignment.source.credentials_secret.clone(),
            leaving: true,
            replicas: 1,
            retired: None,
            assignment: revision::number(Some(held), assignment, held.stream.clone(), ladder, now),
            spool: self.spool.clone(),
            camera,
        }
    }
}

/// The last word about the stream of a camera that this Pipeline no longer records. Leaving a Pipeline is no deletion of
/// footage: it stays until its retention ends.
pub fn retired_stream(pipeline: &Pipeline, camera: &ObjectRef) -> Option<StreamConfig> {
    let stream = Common::new(pipeline).ok()?.stream(camera);
    Some(StreamConfig { deleted: true, delete_with_pipeline: false, ..stream })
}

/// The renditions as the messages name them.
fn renditions(pipeline: &Pipeline) -> Vec<Rendition> {
    let declared = pipeline.spec.renditions().iter();
    declared
        .map(|rendition| Rendition {
            name: rendition.name.clone(),
            height: rendition.height.unsigned_abs(),
            video_bitrate_kbps: rendition.video_bitrate_kbps.unsigned_abs(),
        })
        .collect()
}

/// Size of the spool in effect.
fn spool_size(spool: &Spool) -> String {
    spool.size.as_ref().map_or_else(|| DEFAULT_SPOOL.to_owned(), |size| size.0.clone())
}

#[cfg(test)]
#[allow(missing_docs, clippy::missing_panics_doc)]
pub mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use k8s_openapi::{api::core::v1::PersistentVolumeClaimStatus, apimachinery::pkg::apis::meta::v1::Time};

    use super::*;
    use crate::{
        domain::control::InstanceReport,
        operator::{
            broker::{InstanceView, fleet::Link, wanted::Control},
            fixture::{self, PipelineFixture, at},
        },
    };

    /// An assignment of a camera `c` by a pipeline `p`.
    pub fn assignment(activity: Activity, segment_seconds: u32) -> Assignment {
        let plan = plan(&fixture::pipeline("p").selecting_all(), &observed(&["c"]));
        Assignment { activity, segment_seconds, ..plan.instances[0].assignment.envelope.data.clone() }
    }

    /// A ladder with one rendition of this bit rate.
    pub fn ladder(kbps: i32) -> LadderAssignment {
        let plan = plan(&fixture::pipeline("p").selecting_all().transcoding(kbps), &observed(&["c"]));
        plan.instances[0].assignment.ladder.as_ref().expect("a ladder").envelope.data.clone()
    }

    /// Its stream.
    pub fn stream() -> StreamConfig {
        plan(&fixture::pipeline("p").selecting_all(), &observed(&["c"])).instances[0].assignment.stream.clone()
    }

    /// A namespace with these cameras and two storage nodes.
    pub fn observed(cameras: &[&str]) -> Observed {
        Observed {
            cameras: cameras.iter().map(|name| Arc::new(fixture::camera(name))).collect(),
            pipelines: Vec::new(),
            storage_nodes: vec![fixture::storage_node("a"), fixture::storage_node("b")],
            held: BTreeMap::new(),
            deployments: BTreeMap::new(),
            volume_claims: BTreeMap::new(),
            pods: BTreeMap::new(),
            views: BTreeMap::new(),
            summary: None,
            link: Link::Up(at(0)),
            trouble: None,
            now: at(0),
        }
    }

    /// The plan of a pipeline that is alone, or the only one not yet in `observed`.
    pub fn plan(pipeline: &PipelineFixture, observed: &Observed) -> Plan {
        let mut observed = observed.clone();
        observed.pipelines.push(pipeline.arc());
        super::pipeline(&pipeline.0, &observed).expect("a valid spec")
    }

    /// What is there once a plan is carried out.
    pub fn carried_out(plan: &Plan, observed: &Observed) -> Observed {
        let mut after = observed.clone();
        after.held = plan
            .instances
            .iter()
            .map(|i| (i.uid, Numbered { resource_version: Some("1".into()), ..i.assignment.clone() }))
            .collect();
        after
    }

    fn reports(observed: &mut Observed, uid: InstanceUid, phase: Phase, revision: u64) {
        let report = InstanceReport { revision, phase, ..InstanceReport::default() };
        let view = InstanceView { view: View::Fresh(Box::new(report)), control: Control::InPlace, applied: revision };
        observed.views.insert(uid, view);
    }

    #[test]
    fn a_second_look_changes_nothing() {
        let pipeline = fixture::pipeline("p").selecting_all();
        let first = plan(&pipeline, &observed(&["a", "b"]));
        let mut later = carried_out(&first, &observed(&["a", "b"]));
        later.now = at(1000);
        let second = plan(&pipeline, &later);
        for (before, after) in first.instances.iter().zip(&second.instances) {
            assert_eq!(before.assignment, after.assignment);
        }
        assert!(second.finished.is_empty());
    }

    #[test]
    fn pausing_is_a_word_and_stopping_is_scaling() {
        let running = plan(&fixture::pipeline("p").selecting_all(), &observed(&["c"]));
        let there = carried_out(&running, &observed(&["c"]));
        for (state, replicas) in [(PipelineState::Running, 1), (PipelineState::Paused, 1), (PipelineState::Stopped, 0)]
        {
            let plan = plan(&fixture::pipeline("p").selecting_all().state(state), &there);
            assert_eq!(plan.instances[0].replicas, replicas);
            let activity = plan.instances[0].assignment.envelope.data.activity;
            assert_eq!(activity == Activity::Running, state == PipelineState::Running);
        }
    }

    #[test]
    fn a_camera_of_an_older_pipeline_is_refused_and_a_missing_one_named() {
        let mut observed = observed(&["lobby"]);
        observed.pipelines.push(fixture::pipeline("older").created(-5).selecting_all().arc());
        let plan = plan(&fixture::pipeline("p").naming(&["lobby", "ghost"]), &observed);
        assert!(plan.instances.is_empty());
        assert_eq!(plan.selected, 2);
        assert_eq!(
            plan.refused,
            [
                Refused::NotFound { camera: "ghost".into() },
                Refused::ClaimedBy { camera: "lobby".into(), pipeline: "older".into() }
            ]
        );
    }

    #[test]
    fn a_deselected_camera_drains_and_then_goes() {
        let before = plan(&fixture::pipeline("p").selecting_all(), &observed(&["lobby", "dock"]));
        let mut there = carried_out(&before, &observed(&["lobby", "dock"]));
        there.now = at(100);
        let narrowed = fixture::pipeline("p").naming(&["lobby"]);
        let draining = plan(&narrowed, &there);
        let leaving = draining.instances.iter().find(|i| i.leaving).expect("dock leaves");
        assert_eq!(leaving.camera.name, "dock");
        assert_eq!(leaving.assignment.envelope.data.activity, Activity::Draining);
        assert_eq!((leaving.replicas, draining.finished.len()), (1, 0));
        assert_eq!(draining.look_again, Some(at(100) + DRAIN_BOUND));

        let mut there = carried_out(&draining, &there);
        let revision = leaving.assignment.envelope.revision;
        // Drained of an earlier assignment says nothing about this one.
        reports(&mut there, leaving.uid, Phase::Drained, revision - 1);
        assert!(plan(&narrowed, &there).finished.is_empty());
        reports(&mut there, leaving.uid, Phase::Drained, revision);
        assert_eq!(plan(&narrowed, &there).finished, BTreeSet::from([leaving.uid]));
    }

    /// What is there once the only camera has left and the bound has passed.
    pub fn left_long_ago(claim: Option<PersistentVolumeClaim>) -> Observed {
        let before = plan(&fixture::pipeline("p").selecting_all(), &observed(&["dock"]));
        let there = carried_out(&before, &observed(&[]));
        let draining = plan(&fixture::pipeline("p").selecting_all(), &there);
        let mut there = carried_out(&draining, &there);
        there.now = at(0) + DRAIN_BOUND;
        there.volume_claims.extend(claim.map(|claim| (draining.instances[0].uid, Arc::new(claim))));
        there
    }

    /// A claim in this phase.
    pub fn claim(phase: &str) -> PersistentVolumeClaim {
        let status = PersistentVolumeClaimStatus { phase: Some(phase.into()), ..Default::default() };
        PersistentVolumeClaim { status: Some(status), ..PersistentVolumeClaim::default() }
    }

    #[test]
    fn a_volume_with_footage_outlives_the_bound_until_somebody_gives_it_up() {
        let mut given_up = claim("Bound");
        given_up.metadata.deletion_timestamp = Some(Time(at(1)));
        for (claim, finished) in
            [(None, 1), (Some(claim("Pending")), 1), (Some(claim("Bound")), 0), (Some(given_up), 1)]
        {
            let there = left_long_ago(claim.clone());
            let plan = plan(&fixture::pipeline("p").selecting_all(), &there);
            assert_eq!(plan.finished.len(), finished, "{claim:?}");
            assert_eq!(plan.look_again.is_some(), finished == 0, "the numbers are told anew");
        }
    }

    #[test]
    fn a_camera_that_comes_back_records_again_with_a_higher_number() {
        let pipeline = fixture::pipeline("p").selecting_all();
        let before = plan(&pipeline, &observed(&["dock"]));
        let gone = carried_out(&before, &observed(&[]));
        let draining = plan(&pipeline, &gone);
        let mut back = carried_out(&draining, &observed(&["dock"]));
        back.now = at(5);
        let plan = plan(&pipeline, &back);
        let instance = &plan.instances[0].assignment;
        assert_eq!(instance.envelope.data.activity, Activity::Running);
        assert!(instance.envelope.revision > draining.instances[0].assignment.envelope.revision);
    }

    #[test]
    fn a_ladder_that_is_no_longer_wanted_retires_its_participant() {
        let with = plan(&fixture::pipeline("p").selecting_all().transcoding(800), &observed(&["c"]));
        let transcoder = ladder(800).instance;
        assert_ne!(transcoder, with.instances[0].uid);
        assert_eq!(with.instances[0].retired, None);
        let there = carried_out(&with, &observed(&["c"]));
        let without = plan(&fixture::pipeline("p").selecting_all(), &there);
        assert_eq!(without.instances[0].retired, Some(transcoder));
        assert_eq!(without.instances[0].assignment.ladder, None);
        assert_eq!(without.instances[0].assignment.resource_version.as_deref(), Some("1"));
        // A camera that leaves takes its ladder along until everything is uploaded.
        let leaving = plan(&fixture::pipeline("p").naming(&["x"]).transcoding(800), &there);
        let leaving = leaving.instances.iter().find(|i| i.leaving).expect("c leaves");
        let told = leaving.assignment.ladder.as_ref().expect("a ladder");
        assert_eq!(told.envelope.data.activity, Activity::Draining);
    }

    #[test]
    fn eighty_five_percent_of_the_spool_are_the_agents() {
        let plan = plan(&fixture::pipeline("p").selecting_all(), &observed(&["c"]));
        let bytes = plan.instances[0].assignment.envelope.data.spool_bytes;
        assert_eq!(bytes, (2 << 30) / 100 * 85);
    }
}
