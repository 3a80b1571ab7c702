//! Lets go of local copies: those that are stored, and under disk pressure whatever costs least.
//!
//! The order under pressure: stored copies, copies of what one storage node has already (then the only one until it is
//! pinned), then the oldest footage, each announced as a gap. Capture never waits for any of it.

use std::sync::Arc;

use super::{
    context::Context,
    outbox::{self, State},
    upload,
};
use crate::{
    domain::{segment::GapReason, session::LIVE_SEGMENTS},
    telemetry,
};

/// Why trimming ended early; the next round goes on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to remove a local copy")]
    Spool(#[from] std::io::Error),
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
}

/// Trims whenever there may be something to trim.
pub async fn run(context: Arc<Context>) {
    let mut woken = context.to_trim.listen();
    loop {
        if let Err(error) = round(&context).await {
            tracing::warn!("{}", telemetry::chain(&error));
        }
        tokio::select! {
            _ = woken.changed() => {}
            () = context.finished.cancelled() => return,
        }
    }
}

async fn round(context: &Context) -> Result<(), Error> {
    let outbox = &context.outbox;
    loop {
        let keys = outbox.trimmable(LIVE_SEGMENTS).await?;
        if keys.is_empty() {
            break;
        }
        for key in keys {
            // First the file, then the row: a file without a row would be taken for a new segment.
            context.spool.remove_segment(key.session, key.seq)?;
            outbox.forget(&key, None).await?;
        }
    }
    for session in outbox.finished_sessions().await? {
        context.spool.remove_session(session)?;
        outbox.forget_session(session).await?;
    }
    relieve(context).await
}

/// Keeps within the bytes we may take.
async fn relieve(context: &Context) -> Result<(), Error> {
    let Some(applied) = context.applied() else { return Ok(()) };
    let mut excess = context.outbox.backlog().await?.bytes.saturating_sub(applied.assignment.spool_bytes);
    while excess > 0 {
        let Some((segment, state)) = context.outbox.droppable().await? else { return Ok(()) };
        context.spool.remove_segment(segment.key.session, segment.key.seq)?;
        context.live.remove(&segment.key);
        match state {
            State::Stored => context.outbox.forget(&segment.key, None).await?,
            // The bytes are in IPFS, unpinned: gone only if that node loses them too before they are stored.
            State::Added | State::Announced => context.outbox.dropped(&segment.key).await?,
            State::Sealed => {
                let gap = upload::gap(&segment, GapReason::SpoolFull, "the spool was full: enlarge spool.size");
                tracing::warn!(session = %segment.key.session, seq = segment.key.seq, "dropped: {}", gap.detail);
                context.outbox.forget(&segment.key, Some(&gap)).await?;
                context.metrics.missing(&gap);
                context.to_announce.raise();
            }
        }
        excess = excess.saturating_sub(segment.blob.bytes.max(1));
    }
    Ok(())
}
