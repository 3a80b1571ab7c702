//! sealed → added: the bytes go to a storage agent of the group, for ever if need be.
//!
//! Two uploads run side by side, one from the newest and one from the oldest end, so that a backlog is worked off
//! without starving what is live. The CID is ours, computed when the segment was sealed; an answer with another one is
//! no success.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::io::ReaderStream;

use super::{
    context::{Context, Part},
    outbox,
    reading::Unusable,
    spool::{init_path, segment_path},
};
use crate::{
    clients::storage_agent::{self, StorageAgent},
    domain::{
        cid::{Cid, FileDigest, FileHasher},
        container::Container,
        control::{Problem, Wanted},
        name::secret_key,
        segment::{Blob, Gap, GapReason, SOURCE, Segment},
    },
    telemetry,
};

const LEAST_WAIT: Duration = Duration::from_millis(500);
const MOST_WAIT: Duration = Duration::from_secs(10);
/// A storage node that restarts is no news: only what fails for this long is reported.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why an upload came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage agent failed.
    #[error(transparent)]
    Storage(#[from] storage_agent::Error),
    /// The memory failed.
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
    /// The spool failed; perhaps not the next time.
    #[error("failed to read a segment from the spool")]
    Spool(#[source] io::Error),
    /// There is nobody to upload to yet.
    #[error("there is no token for the storage group yet: create a StorageNode")]
    NoToken,
    /// The local file is not what it was.
    #[error("the file was damaged before it could be stored: {0}")]
    Damaged(String),
}

impl Error {
    /// Trap: too many open files or a disk that stumbles are no reason to give a segment up.
    fn of_opening(error: io::Error) -> Self {
        match Unusable::from(error) {
            Unusable::Damaged(why) => Self::Damaged(why),
            Unusable::Failed(error) => Self::Spool(error),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.reason(),
            Self::Outbox(_) | Self::Spool(_) => "SpoolFailed",
            Self::NoToken => "StorageMissing",
            Self::Damaged(_) => "SegmentLost",
        }
    }
}

/// Uploads from one end until the end.
pub async fn run(context: Arc<Context>, newest_first: bool) {
    let mut woken = context.to_add.listen();
    let mut client = Client::default();
    let mut wait = LEAST_WAIT;
    let mut failing: Option<Instant> = None;
    while !context.finished.is_cancelled() {
        let done = next(&context, newest_first, &mut client).await;
        let delay = match done {
            Ok(true) => {
                (wait, failing) = (LEAST_WAIT, None);
                context.problem(Part::Storage, None);
                continue;
            }
            Ok(false) => None,
            Err(error) => {
                context.metrics.upload_failed(error.reason());
                let message = format!("uploads fail, footage waits in the spool: {}", telemetry::chain(&error));
                if failing.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    context.problem(Part::Storage, Some(Problem { reason: error.reason().to_owned(), message }));
                } else {
                    tracing::debug!("{message}");
                }
                let delay = wait.mul_f64(rand::random_range(0.5..1.0));
                wait = (wait * 2).min(MOST_WAIT);
                Some(delay)
            }
        };
        tokio::select! {
            () = async { match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => { let _ = woken.changed().await; }
            } } => {}
            () = context.finished.cancelled() => {}
        }
    }
}

/// Uploads one segment; `false` = nothing waits.
async fn next(context: &Context, newest_first: bool, client: &mut Client) -> Result<bool, Error> {
    let (segment, _taken) = {
        let picking = context.picking.lock().await;
        let Some(segment) = context.outbox.to_add(newest_first, &context.busy()).await? else {
            let Some(wanted) = context.unknown() else { return Ok(false) };
            drop(picking);
            unknown(context, client, &wanted).await?;
            return Ok(true);
        };
        let taken = context.take(&segment.key);
        drop(picking);
        (segment, taken)
    };
    match upload(context, client, &segment).await {
        Ok(()) => {
            context.outbox.added(&segment.key).await?;
            context.metrics.uploaded(segment.blob.bytes);
            context.to_announce.raise();
            Ok(true)
        }
        Err(Error::Damaged(why)) => {
            without_copy(context, client, &segment, &why).await?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// The local copy is of no use any more: only what no storage node has either is lost.
///
/// Trap: a pin that is pending says nothing about the bytes. It may wait its turn behind a thousand others.
async fn without_copy(context: &Context, client: &mut Client, segment: &Segment, why: &str) -> Result<(), Error> {
    let blobs = [Some(&segment.blob), segment.init.as_ref()];
    let cids: Vec<&str> = blobs.into_iter().flatten().map(|blob| blob.cid.as_str()).collect();
    match is_held(&client.get(context)?, &cids).await {
        Ok(true) => {
            context.outbox.added(&segment.key).await?;
            context.to_announce.raise();
        }
        Ok(false) => lost(context, segment, why).await?,
        // Neither yes nor no. As long as it is not stored, the recorder asks for it again.
        Err(error) if context.outbox.set_aside(&segment.key).await? => {
            tracing::debug!(session = %segment.key.session, seq = segment.key.seq, "{}", telemetry::chain(&error));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Settles a segment that the recorder waits for and nobody here knows any more: without an answer its roll-up would never
/// be stored, nor anything behind it.
async fn unknown(context: &Context, client: &mut Client, wanted: &Wanted) -> Result<(), Error> {
    let key = &wanted.key;
    let Some(applied) = context.applied().filter(|applied| applied.assignment.stream == key.stream) else {
        return Ok(());
    };
    // One that lies in the spool is sealed and announced in its turn (the outbox was lost).
    if wanted.cids.is_empty()
        || Container::ALL.iter().any(|container| context.spool.file(&segment_path(key, *container)).is_ok())
    {
        return Ok(());
    }
    let cids: Vec<&str> = wanted.cids.iter().map(String::as_str).collect();
    match is_held(&client.get(context)?, &cids).await {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(session = %key.session, seq = key.seq, "a segment is lost: no storage node has it");
            let gap = Gap {
                stream: key.stream,
                camera: applied.assignment.camera.uid,
                session: key.session,
                rendition: Some(key.rendition.clone()).filter(|rendition| rendition != SOURCE),
                seq: Some(key.seq),
                from: wanted.start,
                to: wanted.end,
                reason: GapReason::SegmentLost,
                detail: "neither the spool nor any storage node has it".to_owned(),
            };
            context.outbox.forget(key, Some(&gap)).await?;
            context.metrics.missing(&gap);
            context.to_announce.raise();
        }
        // The recorder asks again.
        Err(error) => tracing::debug!(session = %key.session, seq = key.seq, "{}", telemetry::chain(&error)),
    }
    Ok(())
}

/// Is all of it in IPFS?
async fn is_held(agent: &StorageAgent, cids: &[&str]) -> Result<bool, Error> {
    for cid in cids {
        let Ok(cid) = Cid::try_from(*cid) else { return Ok(false) };
        if !agent.has(&cid).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn upload(context: &Context, client: &mut Client, segment: &Segment) -> Result<(), Error> {
    let agent = client.get(context)?;
    if let Some(init) = &segment.init {
        upload_init(context, &agent, segment, init).await?;
    }
    put(context, &agent, &segment_path(&segment.key, segment.container()), &segment.blob).await
}

async fn upload_init(context: &Context, agent: &StorageAgent, segment: &Segment, init: &Blob) -> Result<(), Error> {
    let (key, container) = (&segment.key, segment.container());
    let Some(file) = context.spool.init_file(key, container) else { return Ok(()) };
    // One of this segment alone is no other's.
    let is_common = container.init_file() == Some(file.as_str());
    if is_common && context.outbox.init_is_added(key.session, &key.rendition).await? {
        return Ok(());
    }
    put(context, agent, &init_path(key, &file), init).await?;
    if is_common {
        context.outbox.init_added(key.session, &key.rendition).await?;
    }
    Ok(())
}

async fn put(context: &Context, agent: &StorageAgent, path: &Path, blob: &Blob) -> Result<(), Error> {
    let cid = Cid::try_from(blob.cid.as_str()).map_err(|error| Error::Damaged(error.to_string()))?;
    let digest = FileDigest { cid, sha256: blob.sha256.clone(), bytes: blob.bytes };
    let (file, length, _) = context.spool.file(path).map_err(Error::of_opening)?;
    if length != blob.bytes {
        return Err(Error::Damaged(format!("{length} bytes instead of {}", blob.bytes)));
    }
    let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 << 10));
    let put = agent.put_file(&path.to_string_lossy(), &digest, body).await;
    // The other end hashed something else: was it the wire, or is it our file?
    if matches!(put, Err(storage_agent::Error::OtherContent(_) | storage_agent::Error::Refused { .. }))
        && hash(context, path).await.is_ok_and(|now| now != digest)
    {
        return Err(Error::Damaged("its content was changed".to_owned()));
    }
    Ok(put?)
}

/// Trap: all tasks of the agent are one, and the file may be large.
async fn hash(context: &Context, path: &Path) -> io::Result<FileDigest> {
    let (file, _, _) = context.spool.file(path)?;
    tokio::task::spawn_blocking(move || digest(file)).await.map_err(io::Error::other)?
}

fn digest(mut file: std::fs::File) -> io::Result<FileDigest> {
    let mut hasher = FileHasher::default();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let count = io::Read::read(&mut file, &mut chunk)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&chunk[..count]);
    }
}

/// The segment will never be stored: that is told, and nothing else waits for it.
async fn lost(context: &Context, segment: &Segment, why: &str) -> Result<(), outbox::Error> {
    tracing::warn!(session = %segment.key.session, seq = segment.key.seq, "a segment is lost: {why}");
    let gap = gap(segment, GapReason::SegmentLost, why);
    if segment.key.rendition != SOURCE {
        let (session, seq) = (segment.key.session, segment.key.seq);
        // Made once more it would have other bytes than were announced. A mark that fails to be made costs just that.
        if let Err(error) = context.spool.give_up(session, &segment.key.rendition, seq) {
            tracing::warn!("failed to mark it: {error}");
        }
        let _ = context.spool.remove_segment(&segment.key);
    }
    context.outbox.forget(&segment.key, Some(&gap)).await?;
    context.live.remove(&segment.key);
    context.metrics.missing(&gap);
    context.to_announce.raise();
    Ok(())
}

/// The gap that a segment leaves.
pub fn gap(segment: &Segment, reason: GapReason, detail: &str) -> Gap {
    Gap {
        stream: segment.key.stream,
        camera: segment.camera.clone(),
        session: segment.key.session,
        rendition: Some(segment.key.rendition.clone()).filter(|rendition| rendition != SOURCE),
        seq: Some(segment.key.seq),
        from: segment.start,
        to: segment.end,
        reason,
        detail: detail.to_owned(),
    }
}

/// The storage agents of the group; made anew when address or token change.
#[derive(Default)]
struct Client {
    made: Option<(String, String, StorageAgent)>,
}

impl Client {
    fn get(&mut self, context: &Context) -> Result<StorageAgent, Error> {
        let url = context.applied().map(|applied| applied.assignment.storage_url).unwrap_or_default();
        let token = std::fs::read_to_string(context.args.storage_secret.join(secret_key::UPLOAD_TOKEN))
            .map_err(|_| Error::NoToken)?
            .trim()
            .to_owned();
        if let Some((of_url, of_token, agent)) = &self.made
            && (of_url, of_token) == (&url, &token)
        {
            return Ok(agent.clone());
        }
        let agent = StorageAgent::new(url.clone(), token.clone())?;
        self.made = Some((url, token, agent.clone()));
        Ok(agent)
    }
}

#[cfg(test)]
mod tests {
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers::method};

    use super::*;
    use crate::{
        agent::{context::now, fixture, outbox::tests::sealed},
        domain::control::{Activity, Backlog},
    };

    #[test]
    fn a_disk_that_stumbles_loses_no_segment() {
        use rustix::io::Errno;
        for (error, reason) in [
            (Errno::MFILE, "SpoolFailed"),
            (Errno::IO, "SpoolFailed"),
            (Errno::NOMEM, "SpoolFailed"),
            (Errno::NOENT, "SegmentLost"),
            (Errno::LOOP, "SegmentLost"),
        ] {
            assert_eq!(Error::of_opening(error.into()).reason(), reason, "{error}");
        }
    }

    #[tokio::test]
    async fn a_segment_whose_copy_was_dropped_is_lost_only_when_every_node_says_no() {
        for (status, want) in [
            (200, (1, 0, 0)), // there: announced once more
            (503, (0, 1, 0)), // nobody knows: as before
            (404, (0, 0, 1)), // nowhere: a gap
        ] {
            let server = MockServer::start().await;
            Mock::given(method("HEAD")).respond_with(ResponseTemplate::new(status)).mount(&server).await;
            let folder = tempfile::tempdir().expect("a folder");
            let context = fixture::context(folder.path(), Activity::Running, &server.uri()).await;
            let key = sealed(&context.outbox, 1).await.remove(0);
            context.outbox.added(&key).await.expect("writes");
            context.outbox.announced(&key, now()).await.expect("writes");
            context.outbox.dropped(&key).await.expect("writes");
            assert!(context.outbox.readd(&key).await.expect("writes"));
            assert!(next(&context, false, &mut Client::default()).await.expect("settled"));
            let Backlog { unannounced, unstored, .. } = context.outbox.backlog().await.expect("reads");
            let gaps = context.outbox.untold_gaps().await.expect("reads");
            assert_eq!((unannounced, unstored, gaps), want, "{status}");
        }
    }

    #[tokio::test]
    async fn a_wanted_segment_that_nobody_knows_is_lost_only_when_every_node_says_no() {
        for (status, want) in [(200, 0), (503, 0), (404, 1)] {
            let server = MockServer::start().await;
            Mock::given(method("HEAD")).respond_with(ResponseTemplate::new(status)).mount(&server).await;
            let folder = tempfile::tempdir().expect("a folder");
            let context = fixture::context(folder.path(), Activity::Running, &server.uri()).await;
            let key = sealed(&context.outbox, 1).await.remove(0);
            let segment = context.outbox.segment(&key).await.expect("reads").expect("sealed");
            context.outbox.forget(&key, None).await.expect("writes");
            let cids = vec![segment.blob.cid, segment.init.expect("an init section").cid];
            context.ask_about(Wanted { key, cids, start: segment.start, end: segment.end });
            assert!(next(&context, false, &mut Client::default()).await.expect("asks"));
            let gaps = context.outbox.gaps(10).await.expect("reads");
            assert_eq!(gaps.len(), want, "{status}");
            assert!(gaps.iter().all(|(_, gap)| (gap.from, gap.to) == (segment.start, segment.end)));
        }
    }
}
