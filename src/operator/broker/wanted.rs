//! What the broker shall hold, and what of it is not there yet.
//!
//! Pure and level-triggered: reconciles say what they want, the supervisor takes the work that follows and says how it
//! went; a lost connection means that nothing is known to be there. So a broker that is down, was emptied or comes back
//! needs no case of its own. Called through [`super::Desk`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::domain::{
    control::{Activity, CameraConfig, Command, ObjectRef, StreamConfig},
    id::{InstanceUid, StreamId},
};

/// An instance as the broker shall know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedInstance {
    /// Its uid: names the queue.
    pub uid: InstanceUid,
    /// Its Pipeline: stands in the queue's argument.
    pub pipeline: ObjectRef,
    /// Its Camera.
    pub camera: ObjectRef,
    /// What it shall do.
    pub activity: Activity,
    /// Under which word the assignment is sent.
    pub command: Command,
    /// Revision of the assignment.
    pub revision: u64,
    /// The assignment's envelope, to the letter as in the `ConfigMap`.
    pub text: String,
    /// How its footage is kept; absent for who makes none of its own stream (the transcoder of a capture pod).
    pub stream: Option<Arc<StreamConfig>>,
}

/// Something to do at the broker. A broker that comes back has three jobs for each instance: they share what they are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Make the user of a namespace's agents.
    User(String),
    /// Declare and bind an instance's queue.
    Declare(Arc<WantedInstance>),
    /// Send an instance its assignment.
    Assign(Arc<WantedInstance>),
    /// Tell the recorder about a stream.
    Stream(Arc<StreamConfig>, u64),
    /// Tell the recorder that a stream's Pipeline is gone.
    Orphan(StreamId),
    /// Tell the recorder about a camera.
    Camera(CameraConfig, u64),
    /// Remove an instance's queue.
    DeleteQueue(InstanceUid),
}

impl Job {
    /// The word in metrics and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Declare(_) => "declare",
            Self::Assign(_) => "assignment",
            Self::Stream(..) => "stream",
            Self::Orphan(_) => "orphan",
            Self::Camera(..) => "camera",
            Self::DeleteQueue(_) => "delete-queue",
        }
    }
}

/// How far an instance's control plane is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Queue there, latest assignment sent.
    InPlace,
    /// On its way.
    Pending,
    /// The broker refused; why.
    Failed(String),
}

#[derive(Clone, Debug)]
struct Held {
    wanted: Arc<WantedInstance>,
    declared: bool,
    assigned: bool,
    stream_told: bool,
    failure: Option<String>,
}

/// The user of a namespace's agents.
#[derive(Clone, Debug, Default)]
struct HeldUser {
    made: bool,
    failure: Option<String>,
}

#[derive(Clone, Debug)]
struct HeldCamera {
    config: CameraConfig,
    revision: u64,
    told: bool,
}

/// Everything the broker shall hold.
#[derive(Debug, Default)]
pub struct Wanted {
    instances: BTreeMap<InstanceUid, Held>,
    cameras: BTreeMap<String, HeldCamera>,
    users: BTreeMap<String, HeldUser>,
    // Of objects that are gone. Kept until done, over lost connections too.
    queues_to_delete: BTreeSet<InstanceUid>,
    streams_to_bury: BTreeMap<StreamId, (Arc<StreamConfig>, u64)>,
    orphans: BTreeSet<StreamId>,
    cameras_to_bury: BTreeMap<String, (CameraConfig, u64)>,
}

impl Wanted {
    /// An instance shall be there like this. `true` when that is news.
    pub fn instance(&mut self, wanted: WantedInstance) -> bool {
        self.queues_to_delete.remove(&wanted.uid);
        if let Some(stream) = &wanted.stream {
            self.streams_to_bury.remove(&stream.stream);
        }
        match self.instances.get_mut(&wanted.uid) {
            Some(held) if *held.wanted == wanted => false,
            // A zombie's or a stale cache's older word never replaces a newer one.
            Some(held) if held.wanted.revision > wanted.revision => false,
            Some(held) => {
                held.stream_told &= held.wanted.stream == wanted.stream;
                held.assigned = false;
                held.wanted = Arc::new(wanted);
                true
            }
            None => {
                let held = Held {
                    wanted: Arc::new(wanted),
                    declared: false,
                    assigned: false,
                    stream_told: false,
                    failure: None,
                };
                self.instances.insert(held.wanted.uid, held);
                true
            }
        }
    }

    /// The user of a namespace's agents shall be there.
    pub fn user(&mut self, namespace: &str) -> bool {
        if self.users.contains_key(namespace) {
            return false;
        }
        self.users.insert(namespace.to_owned(), HeldUser::default());
        true
    }

    /// A camera exists. `true` when that is news.
    pub fn camera(&mut self, config: CameraConfig, revision: u64) -> bool {
        let uid = config.camera.uid.clone();
        if self.cameras.get(&uid).is_some_and(|held| held.config == config && held.revision >= revision) {
            return false;
        }
        self.cameras.insert(uid, HeldCamera { config, revision, told: false });
        true
    }

    /// Is a camera of this uid known to exist?
    pub fn has_camera(&self, uid: &str) -> bool {
        self.cameras.contains_key(uid)
    }

    /// An instance is over: its queue goes, its stream is buried (`delete` as the Pipeline said).
    pub fn forget_instance(&mut self, uid: InstanceUid, delete_footage: bool) {
        self.queues_to_delete.insert(uid);
        if let Some(held) = self.instances.remove(&uid) {
            let revision = held.wanted.revision + 1;
            if let Some(stream) = &held.wanted.stream {
                let stream = StreamConfig::clone(stream);
                let stream = StreamConfig { deleted: true, delete_with_pipeline: delete_footage, ..stream };
                self.bury_stream(stream, revision);
            }
        }
    }

    /// The Pipeline of a stream is gone (found by the sweep).
    pub fn orphan(&mut self, stream: StreamId) {
        self.orphans.insert(stream);
    }

    /// A living Pipeline does without this stream (found by the sweep).
    pub fn bury_stream(&mut self, stream: StreamConfig, revision: u64) {
        self.streams_to_bury.insert(stream.stream, (Arc::new(stream), revision));
    }

    /// A queue whose owner is gone (found by the sweep).
    pub fn delete_queue(&mut self, uid: InstanceUid) {
        self.queues_to_delete.insert(uid);
    }

    /// A Camera is gone.
    pub fn forget_camera(&mut self, config: CameraConfig, revision: u64) {
        self.cameras.remove(&config.camera.uid);
        self.cameras_to_bury
            .insert(config.camera.uid.clone(), (CameraConfig { deleted: true, ..config }, revision + 1));
    }

    /// A namespace has no Pipeline any more.
    pub fn forget_user(&mut self, namespace: &str) {
        self.users.remove(namespace);
    }

    /// A new connection: nothing is known to be there.
    pub fn connected(&mut self) {
        for held in self.instances.values_mut() {
            (held.declared, held.assigned, held.stream_told, held.failure) = (false, false, false, None);
        }
        self.recorder_asks();
        self.users.values_mut().for_each(|user| *user = HeldUser::default());
    }

    /// The recorder started: it hears every configuration again.
    pub fn recorder_asks(&mut self) {
        self.instances.values_mut().for_each(|held| held.stream_told = false);
        self.cameras.values_mut().for_each(|held| held.told = false);
    }

    /// An agent started: it is told again.
    pub fn instance_asks(&mut self, uid: InstanceUid) {
        if let Some(held) = self.instances.get_mut(&uid) {
            held.assigned = false;
        }
    }

    /// What is to be done, in order: users, configurations, queues, assignments, removals. Each kind needs what the kinds
    /// before it brought in place; within a kind nothing depends on anything.
    pub fn jobs(&self) -> Vec<Job> {
        let users = self.users.iter().filter(|(_, user)| !user.made).map(|(namespace, _)| Job::User(namespace.clone()));
        let declare =
            self.instances.values().filter(|held| !held.declared).map(|held| Job::Declare(held.wanted.clone()));
        let assign = self.instances.values().filter(|held| !held.assigned).map(|held| Job::Assign(held.wanted.clone()));
        let streams = self
            .instances
            .values()
            .filter(|held| !held.stream_told)
            .filter_map(|held| Some(Job::Stream(held.wanted.stream.clone()?, held.wanted.revision)));
        let cameras =
            self.cameras.values().filter(|held| !held.told).map(|held| Job::Camera(held.config.clone(), held.revision));
        let buried = self
            .streams_to_bury
            .values()
            .map(|(stream, revision)| Job::Stream(stream.clone(), *revision))
            .chain(self.orphans.iter().map(|stream| Job::Orphan(*stream)))
            .chain(self.cameras_to_bury.values().map(|(camera, revision)| Job::Camera(camera.clone(), *revision)));
        let queues = self.queues_to_delete.iter().map(|uid| Job::DeleteQueue(*uid));
        // Cameras before streams: the recorder knows what a stream refers to. Both before queues: it believes an agent only
        // about instances it knows.
        users.chain(cameras).chain(streams).chain(declare).chain(assign).chain(buried).chain(queues).collect()
    }

    /// A job is done. What changed its mind meanwhile stays to be done.
    pub fn done(&mut self, job: &Job) {
        match job {
            Job::User(namespace) => {
                self.users.entry(namespace.clone()).and_modify(|user| *user = HeldUser { made: true, failure: None });
            }
            Job::Declare(wanted) => {
                if let Some(held) = self.instances.get_mut(&wanted.uid) {
                    (held.declared, held.failure) = (true, None);
                }
            }
            Job::Assign(wanted) => {
                if let Some(held) = self.instances.get_mut(&wanted.uid)
                    && held.wanted.text == wanted.text
                {
                    (held.assigned, held.failure) = (true, None);
                }
            }
            Job::Stream(config, revision) => {
                if self.streams_to_bury.get(&config.stream).is_some_and(|(_, buried)| buried == revision) {
                    self.streams_to_bury.remove(&config.stream);
                }
                if let Some(held) = self.instances.get_mut(&config.instance)
                    && held.wanted.stream.as_ref() == Some(config)
                {
                    held.stream_told = true;
                }
            }
            Job::Orphan(stream) => {
                self.orphans.remove(stream);
            }
            Job::Camera(config, _) => {
                if config.deleted {
                    self.cameras_to_bury.remove(&config.camera.uid);
                } else if let Some(held) = self.cameras.get_mut(&config.camera.uid)
                    && held.config == *config
                {
                    held.told = true;
                }
            }
            Job::DeleteQueue(uid) => {
                self.queues_to_delete.remove(uid);
            }
        }
    }

    /// A job failed for a reason of its own (not the connection's).
    pub fn failed(&mut self, job: &Job, why: &str) {
        let failure = match job {
            Job::Declare(wanted) | Job::Assign(wanted) => {
                self.instances.get_mut(&wanted.uid).map(|held| &mut held.failure)
            }
            Job::User(namespace) => self.users.get_mut(namespace).map(|user| &mut user.failure),
            Job::Stream(..) | Job::Orphan(_) | Job::Camera(..) | Job::DeleteQueue(_) => None,
        };
        if let Some(failure) = failure {
            *failure = Some(why.to_owned());
        }
    }

    /// The queue of an instance turned out to be missing.
    pub fn queue_missing(&mut self, uid: InstanceUid) {
        if let Some(held) = self.instances.get_mut(&uid) {
            (held.declared, held.assigned) = (false, false);
        }
    }

    /// Instances whose queue was declared.
    pub fn declared(&self) -> impl Iterator<Item = InstanceUid> {
        self.instances.iter().filter(|(_, held)| held.declared).map(|(uid, _)| *uid)
    }

    /// How far an instance's control plane is.
    pub fn control(&self, uid: InstanceUid) -> Control {
        let Some(held) = self.instances.get(&uid) else { return Control::Pending };
        // Without its user an agent hears nothing, whatever is in place.
        let user = self.users.get(&held.wanted.pipeline.namespace);
        match held.failure.as_ref().or_else(|| user?.failure.as_ref()) {
            Some(why) => Control::Failed(why.clone()),
            None if held.declared && held.assigned => Control::InPlace,
            None => Control::Pending,
        }
    }

    /// The instance, if it is wanted.
    pub fn get(&self, uid: InstanceUid) -> Option<&WantedInstance> {
        self.instances.get(&uid).map(|held| &*held.wanted)
    }

    /// Every wanted instance.
    pub fn instances(&self) -> impl Iterator<Item = &WantedInstance> {
        self.instances.values().map(|held| &*held.wanted)
    }
}

#[cfg(test)]
pub(super) mod fixture {
    use super::*;
    use crate::domain::id::Role;

    pub fn object(name: &str) -> ObjectRef {
        ObjectRef { namespace: "n".into(), name: name.into(), uid: format!("uid-{name}") }
    }

    /// The instance of pipeline `p` and camera `c`, at a revision.
    pub fn instance(revision: u64) -> WantedInstance {
        WantedInstance { revision, text: format!("revision {revision}"), ..of("p") }
    }

    /// One of many.
    pub fn numbered(number: u32) -> WantedInstance {
        of(&format!("p{number}"))
    }

    fn of(pipeline: &str) -> WantedInstance {
        let uid = InstanceUid::of(pipeline, "c", Role::Capture, 0);
        WantedInstance {
            uid,
            pipeline: object(pipeline),
            camera: object("c"),
            activity: Activity::Running,
            command: Command::Apply,
            revision: 1,
            text: "revision 1".to_owned(),
            stream: Some(Arc::new(StreamConfig {
                stream: StreamId::of(pipeline, "c"),
                instance: uid,
                pipeline: object(pipeline),
                camera: object("c"),
                group: "default".into(),
                replicas: 2,
                retention_seconds: 3600,
                rollup_seconds: 60,
                delete_with_pipeline: false,
                live_url: String::new(),
                transcoder: None,
                deleted: false,
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fixture::*, *};

    fn words(wanted: &Wanted) -> Vec<&'static str> {
        wanted.jobs().iter().map(Job::word).collect()
    }

    fn work_off(wanted: &mut Wanted) {
        for job in wanted.jobs() {
            wanted.done(&job);
        }
    }

    #[test]
    fn a_new_instance_gets_queue_assignment_and_stream_and_then_there_is_nothing_to_do() {
        let mut wanted = Wanted::default();
        assert!(wanted.instance(instance(1)));
        assert_eq!(words(&wanted), ["stream", "declare", "assignment"]);
        work_off(&mut wanted);
        assert!(words(&wanted).is_empty());
        assert!(!wanted.instance(instance(1)));
        assert_eq!(wanted.control(instance(1).uid), Control::InPlace);
    }

    #[test]
    fn a_transcoder_has_a_queue_and_an_assignment_and_no_stream_to_bury() {
        let mut wanted = Wanted::default();
        let transcoder = WantedInstance { stream: None, ..instance(1) };
        wanted.instance(transcoder.clone());
        assert_eq!(words(&wanted), ["declare", "assignment"]);
        work_off(&mut wanted);
        wanted.forget_instance(transcoder.uid, true);
        assert_eq!(words(&wanted), ["delete-queue"]);
    }

    #[test]
    fn an_edit_sends_the_assignment_only() {
        let mut wanted = Wanted::default();
        wanted.instance(instance(1));
        work_off(&mut wanted);
        wanted.instance(instance(2));
        assert_eq!(words(&wanted), ["assignment"]);
    }

    #[test]
    fn an_older_word_changes_nothing() {
        let mut wanted = Wanted::default();
        wanted.instance(instance(2));
        assert!(!wanted.instance(instance(1)));
        assert_eq!(wanted.get(instance(1).uid).map(|i| i.revision), Some(2));
    }

    #[test]
    fn an_edit_while_its_predecessor_is_being_sent_is_sent_too() {
        let mut wanted = Wanted::default();
        wanted.instance(instance(1));
        let jobs = wanted.jobs();
        wanted.instance(instance(2));
        for job in &jobs {
            wanted.done(job);
        }
        assert_eq!(words(&wanted), ["assignment"]);
    }

    #[test]
    fn after_a_reconnection_everything_is_said_again_and_nothing_that_is_over_is_forgotten() {
        let mut wanted = Wanted::default();
        wanted.user("n");
        wanted.instance(instance(1));
        work_off(&mut wanted);
        wanted.connected();
        assert_eq!(words(&wanted), ["user", "stream", "declare", "assignment"]);
        wanted.forget_instance(instance(1).uid, true);
        wanted.connected();
        let jobs = wanted.jobs();
        assert!(matches!(&jobs[1], Job::Stream(config, 2) if config.deleted && config.delete_with_pipeline));
        assert_eq!(jobs[2], Job::DeleteQueue(instance(1).uid));
        work_off(&mut wanted);
        assert!(wanted.jobs().is_empty());
    }

    #[test]
    fn an_instance_whose_agent_cannot_log_in_is_not_in_place() {
        let mut wanted = Wanted::default();
        wanted.user("n");
        wanted.instance(instance(1));
        let user = wanted.jobs().remove(0);
        work_off(&mut wanted);
        wanted.connected();
        work_off(&mut wanted);
        wanted.failed(&user, "somebody else's");
        assert_eq!(wanted.control(instance(1).uid), Control::Failed("somebody else's".into()));
        wanted.done(&user);
        assert_eq!(wanted.control(instance(1).uid), Control::InPlace);
    }

    #[test]
    fn a_hello_is_answered_and_a_recorder_that_starts_hears_all() {
        let mut wanted = Wanted::default();
        wanted.instance(instance(1));
        wanted.camera(CameraConfig { camera: object("c"), site: "hq".into(), deleted: false }, 1);
        work_off(&mut wanted);
        wanted.instance_asks(instance(1).uid);
        assert_eq!(words(&wanted), ["assignment"]);
        work_off(&mut wanted);
        wanted.recorder_asks();
        assert_eq!(words(&wanted), ["camera", "stream"]);
    }

    #[test]
    fn a_camera_that_comes_back_is_not_buried() {
        let mut wanted = Wanted::default();
        wanted.instance(instance(1));
        work_off(&mut wanted);
        wanted.forget_instance(instance(1).uid, false);
        wanted.instance(instance(3));
        assert_eq!(words(&wanted), ["stream", "declare", "assignment"]);
    }
}
