//! One storage group's roll-ups, one step each: build, ask for the pin, look whether it came about.
//!
//! The cluster's traps that touch the catalogue are dealt with here; those of its API alone in
//! [`crate::clients::ipfs_cluster`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    num::NonZeroU32,
};

use jiff::{SignedDuration, Timestamp};

use super::Recorder;
use crate::{
    catalogue::{self, PinState, Rollup},
    clients::{
        groups::Group,
        ipfs_cluster::{Error as ClusterError, IpfsCluster, PinOptions, PinStatus},
        storage_agent::{Error as StorageError, StorageAgent},
    },
    domain::{
        cid::{self, Cid, Directory},
        control::Problem,
        id::StreamId,
        identity::PeerId,
        pin::{Peer, Spread, TooFew},
        retention,
    },
    telemetry,
};

/// A pin that is pending for so long is asked for anew, and its instance for the bytes.
const PENDING: SignedDuration = SignedDuration::from_mins(2);
/// The pause is doubled so many times at most: about half an hour.
const LONGEST_PENDING: u32 = 4;
/// A pin that the cluster knows nothing of after this time was never made, or was forgotten with its batch.
const FORGOTTEN: SignedDuration = SignedDuration::from_secs(10);
/// After which time a pin that was taken off is gone: well beyond two batch ages of the cluster.
const SETTLED: SignedDuration = SignedDuration::from_secs(3);
/// A cluster's answer that names a peer's trouble is worth telling after this time; before, it is just starting.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

/// What is remembered of a group between rounds.
#[derive(Default)]
pub(super) struct GroupPins {
    spread: Spread,
    /// Why streams of this group are held up.
    pub(super) problems: HashMap<StreamId, Problem>,
}

/// What a round leaves to be done; the last one is the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Left {
    /// All of it is stored.
    Nothing,
    /// Pins are on their way.
    Pending,
    /// Some of them take long.
    Slow,
    /// Something failed: try again later.
    Failed,
}

/// Why a roll-up made no step.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Catalogue(#[from] catalogue::Error),
    #[error("failed to build a roll-up")]
    Build(#[source] Box<StorageError>),
    #[error("failed to pin")]
    Pin(#[source] Box<ClusterError>),
    #[error(transparent)]
    TooFew(#[from] TooFew),
    #[error("a roll-up has no members that IPFS could hold: {0}")]
    Members(String),
}

/// How long a pin is waited for before the bytes are asked for again: twice as long each time, because a backlog that is
/// uploaded anew every two minutes is what keeps it from being stored.
fn patience_for(rollup: &Rollup) -> SignedDuration {
    PENDING * (1 << rollup.readds.min(LONGEST_PENDING))
}

impl From<StorageError> for StepError {
    fn from(error: StorageError) -> Self {
        Self::Build(Box::new(error))
    }
}

impl From<ClusterError> for StepError {
    fn from(error: ClusterError) -> Self {
        Self::Pin(Box::new(error))
    }
}

impl StepError {
    /// Nobody answered.
    fn is_silence(&self) -> bool {
        match self {
            Self::Build(error) => matches!(**error, StorageError::Transport(_) | StorageError::Timeout(_)),
            Self::Pin(error) => matches!(**error, ClusterError::Transport(_) | ClusterError::Timeout(_)),
            Self::Catalogue(_) | Self::TooFew(_) | Self::Members(_) => false,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Catalogue(error) => error.reason(),
            Self::Build(error) => error.reason(),
            Self::Pin(error) => error.reason(),
            Self::TooFew(error) => error.reason(),
            Self::Members(_) => "RollupInvalid",
        }
    }
}

impl Recorder {
    /// Moves each roll-up of a group one step on, and says what is left to do.
    pub(super) async fn advance(
        &self,
        group: &Group,
        pins: &mut GroupPins,
        rollups: Vec<Rollup>,
    ) -> Result<Left, catalogue::Error> {
        let mut problems = HashMap::new();
        let mut failed = HashSet::new();
        let mut left = Left::Nothing;
        match self.clients(group) {
            Ok((storage, cluster)) => {
                // One question about all that were asked for in earlier rounds.
                let statuses = self.statuses(&cluster, &rollups).await;
                let mut peers = None;
                let mut silent = false;
                for rollup in rollups {
                    let stream = rollup.config.stream;
                    if silent {
                        break;
                    }
                    if failed.contains(&stream) && rollup.state != PinState::Pinning {
                        // Its older sibling just failed: no need to wait for the same timeout again.
                        continue;
                    }
                    let step = Step { storage: &storage, cluster: &cluster, statuses: &statuses };
                    match self.step(step, &mut pins.spread, &mut peers, rollup).await {
                        Ok(Progress::Stored) => {}
                        Ok(Progress::Pending) => left = left.max(Left::Pending),
                        Ok(Progress::Slow(problem)) => {
                            left = left.max(Left::Slow);
                            problems.insert(stream, problem);
                        }
                        Err(StepError::Catalogue(error)) => return Err(error),
                        Err(error) => {
                            self.metrics.failed(error.reason());
                            tracing::warn!(%group, error = telemetry::chain(&error), "cannot store a roll-up yet");
                            left = Left::Failed;
                            // Each further stream would wait for the same timeout, and all other groups with it.
                            silent = error.is_silence();
                            failed.insert(stream);
                            problems.insert(
                                stream,
                                Problem { reason: error.reason().into(), message: telemetry::chain(&error) },
                            );
                        }
                    }
                }
            }
            Err(error) => {
                left = Left::Failed;
                let problem = Problem { reason: error.reason().into(), message: telemetry::chain(&error) };
                problems.extend(rollups.iter().map(|rollup| (rollup.config.stream, problem.clone())));
            }
        }
        pins.problems = problems;
        Ok(left)
    }

    fn clients(&self, group: &Group) -> Result<(StorageAgent, IpfsCluster), StepError> {
        let storage = self.groups.storage(group)?;
        let cluster = self.groups.cluster(group).map_err(StepError::Pin)?;
        Ok((storage, cluster))
    }

    async fn statuses(
        &self,
        cluster: &IpfsCluster,
        rollups: &[Rollup],
    ) -> Result<BTreeMap<Cid, PinStatus>, ClusterError> {
        let asked: Vec<Cid> = rollups
            .iter()
            .filter(|rollup| rollup.state == PinState::Pinning)
            .filter_map(|rollup| rollup.cid.as_deref()?.parse().ok())
            .collect();
        if asked.is_empty() { Ok(BTreeMap::new()) } else { cluster.status(&asked).await }
    }

    async fn step(
        &self,
        at: Step<'_>,
        spread: &mut Spread,
        peers: &mut Option<Vec<Peer>>,
        rollup: Rollup,
    ) -> Result<Progress, StepError> {
        let now = Timestamp::now();
        if rollup.state == PinState::Pinning {
            return self.watch(at, spread, peers, rollup, now).await;
        }
        // A pin was just taken off to be made elsewhere: within the batch window the old one would be kept.
        if rollup.state == PinState::Committed && rollup.requested.is_some_and(|at| now.duration_since(at) < SETTLED) {
            return Ok(Progress::Pending);
        }
        let directory = self.directory(&rollup).await?;
        if rollup.state == PinState::Committed {
            at.storage.put_directory(&directory).await?;
            self.writer.rollup_built(rollup.id, &directory.cid.to_string()).await?;
        }
        self.ask(at.cluster, spread, peers, &rollup, &directory, now).await?;
        Ok(Progress::Pending)
    }

    /// The members of a roll-up as a directory; its CID follows from them alone.
    async fn directory(&self, rollup: &Rollup) -> Result<Directory, StepError> {
        let members = self.reader.members(rollup.id).await?;
        let entries = members
            .into_iter()
            .map(|member| {
                let cid = member.cid.parse().map_err(|_| StepError::Members(member.name.clone()))?;
                Ok(cid::Entry { name: member.name, cid, size: u64::try_from(member.bytes).unwrap_or(0) })
            })
            .collect::<Result<_, StepError>>()?;
        cid::directory(entries).map_err(|invalid| StepError::Members(invalid.to_string()))
    }

    /// Chooses peers, writes down what is asked for, and asks.
    async fn ask(
        &self,
        cluster: &IpfsCluster,
        spread: &mut Spread,
        peers: &mut Option<Vec<Peer>>,
        rollup: &Rollup,
        directory: &Directory,
        now: Timestamp,
    ) -> Result<(), StepError> {
        let live = match peers {
            Some(live) => live,
            None => peers.insert(cluster.live_peers().await?),
        };
        let replicas = NonZeroU32::new(rollup.config.replicas).unwrap_or(NonZeroU32::MIN);
        let bytes = directory.entries.iter().map(|entry| entry.size).sum();
        let chosen = spread.choose(bytes, replicas, live)?;
        let options = options(rollup, replicas, chosen, now);
        let allocations: Vec<String> = options.allocations.iter().map(ToString::to_string).collect();
        let expires = options.expire_at.unwrap_or(Timestamp::MAX);
        // Written down before it is asked: a pin that nobody knows of would never be removed.
        self.writer.pin_requested(rollup.id, replicas.get(), &allocations, expires, now).await?;
        let asked = cluster.pin(&directory.cid, &options).await;
        if !self.reader.has_rollup(rollup.id).await? {
            // Removed while the cluster was being asked: its unpin may have come before the pin.
            self.writer.bury_pin(rollup, &directory.cid.to_string(), now).await?;
            self.expiring.notify_one();
            return Ok(());
        }
        if let Err(error) = asked {
            // Trap: a 400 may have pinned with half the options. Read again what the cluster has written down: only a
            // pin as it was asked for counts.
            let made = matches!(error, ClusterError::PinRefused { .. })
                && matches!(cluster.allocation(&directory.cid).await, Ok(Some(record)) if record.check(&directory.cid, &options).is_ok());
            if !made {
                return Err(error.into());
            }
        }
        self.writer.pin_accepted(rollup.id).await?;
        Ok(())
    }

    /// Looks whether a pin came about.
    async fn watch(
        &self,
        at: Step<'_>,
        spread: &mut Spread,
        peers: &mut Option<Vec<Peer>>,
        rollup: Rollup,
        now: Timestamp,
    ) -> Result<Progress, StepError> {
        let cid: Cid = rollup
            .cid
            .as_deref()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| StepError::Members("its CID is unreadable".to_owned()))?;
        let patience = now.duration_since(rollup.waiting.unwrap_or(now));
        let found = at.statuses.as_ref().map(|known| known.get(&cid));
        let wanted = rollup.replicas.unwrap_or(rollup.config.replicas).max(1) as usize;
        if let Ok(Some(status)) = found
            && status.pinned() >= wanted
        {
            self.writer.rollup_stored(rollup.id, now).await?;
            self.metrics.stored.inc();
            self.outgoing.notify_one();
            tracing::debug!(%cid, replicas = wanted, "stored a roll-up");
            return Ok(Progress::Stored);
        }
        if patience >= patience_for(&rollup) {
            tracing::warn!(%cid, "a pin is pending for long; asking for the bytes again");
            self.metrics.readds.inc();
            self.writer.rollup_readd(&rollup, now).await?;
            self.outgoing.notify_one();
            self.again(at, spread, peers, &rollup, &cid, now).await?;
            return Ok(Progress::Slow(slow(found.ok().flatten(), wanted)));
        }
        let since_request = now.duration_since(rollup.requested.unwrap_or(now));
        if let Ok(status) = found
            && since_request >= FORGOTTEN
            && !status.is_some_and(PinStatus::is_known)
        {
            // We were killed between writing the request down and making it, or the peer was within its batch window.
            let directory = self.directory(&rollup).await?;
            self.ask(at.cluster, spread, peers, &rollup, &directory, now).await?;
        }
        let problem = match found {
            Err(error) => {
                self.metrics.failed(error.reason());
                Some(Problem { reason: error.reason().into(), message: telemetry::chain(error) })
            }
            Ok(status) if patience >= GRACE => Some(slow(status, wanted)),
            Ok(_) => None,
        };
        Ok(problem.map_or(Progress::Pending, Progress::Slow))
    }
}

impl Recorder {
    /// Everything anew: blocks may be on a node that is gone, or the chosen peers may be.
    async fn again(
        &self,
        at: Step<'_>,
        spread: &mut Spread,
        peers: &mut Option<Vec<Peer>>,
        rollup: &Rollup,
        cid: &Cid,
        now: Timestamp,
    ) -> Result<(), StepError> {
        let live = match peers {
            Some(live) => live,
            None => peers.insert(at.cluster.live_peers().await?),
        };
        let alive = |id: &String| live.iter().any(|peer| peer.id.as_str() == id);
        if rollup.allocations.iter().all(alive) {
            let directory = self.directory(rollup).await?;
            at.storage.put_directory(&directory).await?;
            self.ask(at.cluster, spread, peers, rollup, &directory, now).await?;
            // A peer that gave up tries again only every few minutes; a failure of this hint does not matter.
            let _ = at.cluster.recover(cid).await;
            return Ok(());
        }
        // Trap: a dead kubo beside a live cluster peer never makes the cluster choose another peer, and asking again for a
        // pin that exists keeps its peers. Only taking it off and asking anew moves it.
        self.writer.rollup_reopened(rollup.id, now).await?;
        at.cluster.unpin(cid).await?;
        Ok(())
    }
}

/// What a step needs of its group.
#[derive(Clone, Copy)]
struct Step<'a> {
    storage: &'a StorageAgent,
    cluster: &'a IpfsCluster,
    statuses: &'a Result<BTreeMap<Cid, PinStatus>, ClusterError>,
}

/// What became of a step.
enum Progress {
    Stored,
    Pending,
    Slow(Problem),
}

/// A sentence about a pin that takes long.
fn slow(status: Option<&PinStatus>, wanted: usize) -> Problem {
    let pinned = status.map_or(0, PinStatus::pinned);
    let because = status.and_then(PinStatus::problem).map(|(peer, error)| format!(": {peer} says {error}"));
    Problem {
        reason: "PinPending".into(),
        message: format!("{pinned} of {wanted} copies are made so far{}", because.unwrap_or_default()),
    }
}

pub(super) fn options(rollup: &Rollup, replicas: NonZeroU32, allocations: Vec<PeerId>, now: Timestamp) -> PinOptions {
    let camera = format!("{}/{}", rollup.config.camera.namespace, rollup.config.camera.name);
    let part = if rollup.part == 0 { String::new() } else { format!(" +{}", rollup.part) };
    let expires = retention::expires(rollup.end, rollup.config.retention_seconds);
    PinOptions {
        name: shortened(format!("{camera} {}{part}", rollup.window), 255),
        replicas,
        allocations,
        // Footage that comes after its time (an outage longer than its retention) is removed by us in a moment; a date
        // in the past would be refused.
        expire_at: Some(expires.max(now + SignedDuration::from_hours(1))).filter(|at| *at < Timestamp::MAX),
        metadata: BTreeMap::from([
            ("camera".to_owned(), camera),
            ("site".to_owned(), shortened(rollup.site.clone(), 200)),
            ("stream".to_owned(), rollup.config.stream.to_string()),
            ("start".to_owned(), rollup.start.to_string()),
            ("end".to_owned(), rollup.end.to_string()),
        ]),
        origins: Vec::new(),
    }
}

/// At most `max` bytes, cut between characters.
fn shortened(mut text: String, max: usize) -> String {
    while text.len() > max {
        text.pop();
    }
    text
}
