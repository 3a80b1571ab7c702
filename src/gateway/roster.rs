//! Cameras and streams as the operator last described them, in memory: live needs no database.
//!
//! Loaded from the catalogue once, at start; afterwards fed by the recorder with what it has just committed. A camera is
//! known by namespace and name here, since that is what viewers ask for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{PoisonError, RwLock},
};

use crate::{
    catalogue::{self, Reader, Recorded},
    domain::{
        control::{CameraConfig, InstanceReport, Phase, Problem, StreamConfig},
        id::{InstanceUid, StreamId},
    },
};

/// The map.
#[derive(Debug, Default)]
pub struct Roster {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    cameras: HashMap<String, CameraConfig>,
    streams: HashMap<StreamId, StreamConfig>,
    instances: HashMap<InstanceUid, (Phase, Option<Problem>)>,
}

/// A camera as a viewer's list shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The camera; of several of one name, the one that exists.
    pub config: CameraConfig,
    /// Is a pipeline recording it?
    pub recorded: bool,
    /// What its instance last reported; absent when nobody records it or it has not reported yet.
    pub phase: Option<Phase>,
    /// What is wrong.
    pub problem: Option<Problem>,
}

/// What live of a camera comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Live {
    /// Nobody has heard of the camera.
    Unknown,
    /// No pipeline records it.
    NotRecorded,
    /// This stream.
    From(Box<StreamConfig>, Option<Phase>, Option<Problem>),
}

impl Roster {
    /// Reads everything known.
    pub async fn load(&self, catalogue: &Reader) -> Result<(), catalogue::Error> {
        let (cameras, streams) = (catalogue.cameras().await?, catalogue.streams().await?);
        let instances = catalogue.instances().await?;
        self.heard(&Recorded { cameras, streams, instances, ..Recorded::default() });
        Ok(())
    }

    /// Takes over what the recorder has committed.
    pub fn heard(&self, recorded: &Recorded) {
        if recorded.cameras.is_empty() && recorded.streams.is_empty() && recorded.instances.is_empty() {
            return;
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        for camera in &recorded.cameras {
            inner.cameras.insert(camera.camera.uid.clone(), camera.clone());
        }
        for stream in &recorded.streams {
            if stream.deleted {
                inner.instances.remove(&stream.instance);
            }
            inner.streams.insert(stream.stream, stream.clone());
        }
        for (instance, InstanceReport { phase, problem, .. }) in &recorded.instances {
            inner.instances.insert(*instance, (*phase, problem.clone()));
        }
    }

    /// Every camera by namespace and name.
    pub fn list(&self) -> Vec<Listed> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let mut listed: BTreeMap<(&str, &str), Listed> = BTreeMap::new();
        for config in inner.cameras.values() {
            let key = (config.camera.namespace.as_str(), config.camera.name.as_str());
            // A recreated camera has another uid: the one that exists stands for its predecessors.
            if listed.get(&key).is_some_and(|known| !known.config.deleted || config.deleted) {
                continue;
            }
            let stream = inner.stream_of(&config.camera.uid);
            let report = stream.and_then(|stream| inner.instances.get(&stream.instance));
            let seen = Listed {
                config: config.clone(),
                recorded: stream.is_some(),
                phase: report.map(|(phase, _)| *phase),
                problem: report.and_then(|(_, problem)| problem.clone()),
            };
            listed.insert(key, seen);
        }
        listed.into_values().collect()
    }

    /// Where live of a camera comes from.
    pub fn live(&self, namespace: &str, name: &str) -> Live {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let mut known = false;
        for config in inner.cameras.values() {
            if config.camera.namespace != namespace || config.camera.name != name {
                continue;
            }
            known = true;
            if let Some(stream) = inner.stream_of(&config.camera.uid) {
                let (phase, problem) = inner.instances.get(&stream.instance).cloned().unzip();
                return Live::From(Box::new(stream.clone()), phase, problem.flatten());
            }
        }
        if known { Live::NotRecorded } else { Live::Unknown }
    }

    /// A stream that is being recorded.
    pub fn stream(&self, stream: StreamId) -> Option<StreamConfig> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.streams.get(&stream).filter(|stream| !stream.deleted).cloned()
    }
}

impl Inner {
    /// The stream that records a camera; two pipelines never do, except for a moment.
    fn stream_of(&self, camera_uid: &str) -> Option<&StreamConfig> {
        self.streams
            .values()
            .filter(|stream| !stream.deleted && stream.camera.uid == camera_uid)
            .min_by_key(|stream| stream.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::fixture::{camera_config, instance, stream_config};

    fn roster() -> Roster {
        let roster = Roster::default();
        roster.heard(&Recorded {
            cameras: vec![camera_config()],
            streams: vec![stream_config()],
            ..Recorded::default()
        });
        roster
    }

    fn report(phase: Phase) -> Recorded {
        let report = InstanceReport { phase, ..InstanceReport::default() };
        Recorded { instances: vec![(instance(), report)], ..Recorded::default() }
    }

    #[test]
    fn live_comes_from_the_stream_that_records_the_camera() {
        let roster = roster();
        assert!(matches!(roster.live("demo", "camera"), Live::From(stream, None, None) if *stream == stream_config()));
        assert_eq!(roster.live("demo", "nowhere"), Live::Unknown);
        roster.heard(&report(Phase::Paused));
        assert_eq!(roster.list()[0].phase, Some(Phase::Paused));
        let ended = StreamConfig { deleted: true, ..stream_config() };
        roster.heard(&Recorded { streams: vec![ended], ..Recorded::default() });
        assert_eq!(roster.live("demo", "camera"), Live::NotRecorded);
        assert_eq!((roster.list()[0].phase, roster.list()[0].recorded), (None, false));
    }

    #[test]
    fn of_two_cameras_of_one_name_the_living_one_is_listed() {
        let roster = roster();
        let mut old = camera_config();
        (old.camera.uid, old.deleted) = ("older".into(), true);
        roster.heard(&Recorded { cameras: vec![old], ..Recorded::default() });
        let listed = roster.list();
        assert_eq!((listed.len(), listed[0].config.deleted), (1, false));
    }

    #[tokio::test]
    async fn it_is_loaded_from_the_catalogue() {
        let catalogue = crate::catalogue::fixture::catalogue().await;
        let facts = crate::catalogue::fixture::configured();
        catalogue.writer.record(&facts, jiff::Timestamp::now()).await.expect("records");
        let roster = Roster::default();
        roster.load(&catalogue.reader).await.expect("loads");
        assert!(matches!(roster.live("demo", "camera"), Live::From(..)));
    }
}
