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
    spool::{init_path, segment_path},
};
use crate::{
    clients::storage_agent::{self, StorageAgent},
    domain::{
        cid::{Cid, FileDigest, FileHasher},
        control::Problem,
        name::secret_key,
        segment::{Blob, Gap, GapReason, Segment},
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
    /// There is nobody to upload to yet.
    #[error("there is no token for the storage group yet: create a StorageNode")]
    NoToken,
    /// The local file is not what it was.
    #[error("the file was damaged before it could be stored: {0}")]
    Damaged(String),
}

impl Error {
    fn reason(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.reason(),
            Self::Outbox(_) => "SpoolFailed",
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
        let _picking = context.picking.lock().await;
        let Some(segment) = context.outbox.to_add(newest_first, &context.busy()).await? else { return Ok(false) };
        let taken = context.take(&segment.key);
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
            lost(context, &segment, &why).await?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

async fn upload(context: &Context, client: &mut Client, segment: &Segment) -> Result<(), Error> {
    let session = segment.key.session;
    let agent = client.get(context)?;
    if !context.outbox.init_is_added(session).await? {
        put(context, &agent, &init_path(session), &segment.init).await?;
        context.outbox.init_added(session).await?;
    }
    put(context, &agent, &segment_path(session, segment.key.seq), &segment.blob).await
}

async fn put(context: &Context, agent: &StorageAgent, path: &Path, blob: &Blob) -> Result<(), Error> {
    let cid = Cid::try_from(blob.cid.as_str()).map_err(|error| Error::Damaged(error.to_string()))?;
    let digest = FileDigest { cid, sha256: blob.sha256.clone(), bytes: blob.bytes };
    let (file, length, _) = context.spool.file(path).map_err(|error| Error::Damaged(error.to_string()))?;
    if length != blob.bytes {
        return Err(Error::Damaged(format!("{length} bytes instead of {}", blob.bytes)));
    }
    let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 << 10));
    let put = agent.put_file(&path.to_string_lossy(), &digest, body).await;
    match put {
        // The other end hashed something else: was it the wire, or is it our file?
        Err(storage_agent::Error::OtherContent(_) | storage_agent::Error::Refused { .. })
            if hash(context, path).is_ok_and(|now| now != digest) =>
        {
            Err(Error::Damaged("its content was changed".to_owned()))
        }
        other => Ok(other?),
    }
}

fn hash(context: &Context, path: &Path) -> io::Result<FileDigest> {
    let (mut file, _, _) = context.spool.file(path)?;
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
pub async fn lost(context: &Context, segment: &Segment, why: &str) -> Result<(), outbox::Error> {
    tracing::warn!(session = %segment.key.session, seq = segment.key.seq, "a segment is lost: {why}");
    let gap = gap(segment, GapReason::SegmentLost, why);
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
