//! Lets go of local copies: those that are stored, and under disk pressure whatever costs least.
//!
//! The order under pressure: other renditions than the source, stored copies, copies of what one storage node has already
//! (then the only one until it is pinned), then the oldest footage, each announced as a gap. Capture never waits for any
//! of it.

use std::sync::Arc;

use super::{
    context::{Context, now},
    outbox::{self, State},
    upload,
};
use crate::{
    domain::{
        ladder::BOUND_US,
        segment::{GapReason, SOURCE, Segment, SegmentKey},
        session::LIVE_SEGMENTS,
    },
    telemetry,
};

/// How much longer than the transcoder's own bound the source's copy waits for it, µs.
const GRACE_US: i64 = 60_000_000;

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
        let mut trimmed = 0;
        for key in keys {
            if key.rendition == SOURCE && !ladder_is_done(context, &key).await? {
                continue;
            }
            // First the file, then the row: a file without a row would be taken for a new segment.
            context.spool.remove_segment(&key)?;
            outbox.forget(&key, None).await?;
            trimmed += 1;
        }
        if trimmed == 0 {
            break;
        }
    }
    for session in outbox.finished_sessions().await? {
        context.spool.remove_session(session)?;
        outbox.forget_session(session).await?;
    }
    relieve(context).await
}

/// May the source's copy go, as far as the ladder is concerned? It waits until each rendition is sealed or given up, and
/// not for ever: a transcoder that is gone gives up nothing.
async fn ladder_is_done(context: &Context, key: &SegmentKey) -> Result<bool, Error> {
    let Some(ladder) = context.ladder.applied() else { return Ok(true) };
    let overdue = |segment: &Segment| {
        let age = now().as_microsecond().saturating_sub(segment.end.as_microsecond());
        age > BOUND_US + GRACE_US
    };
    let overdue = context.outbox.segment(key).await?.is_none_or(|segment| overdue(&segment));
    for rendition in &ladder.assignment.renditions {
        let rung = SegmentKey { rendition: rendition.name.clone(), ..key.clone() };
        let settled = overdue
            || context.spool.is_given_up(key.session, &rendition.name, key.seq)
            || context.outbox.segment(&rung).await?.is_some();
        if !settled {
            return Ok(false);
        }
    }
    for rendition in &ladder.assignment.renditions {
        context.spool.forget_given_up(key.session, &rendition.name, key.seq)?;
    }
    Ok(true)
}

/// Keeps within the bytes we may take.
async fn relieve(context: &Context) -> Result<(), Error> {
    let Some(applied) = context.applied() else { return Ok(()) };
    let mut excess = context.outbox.backlog().await?.bytes.saturating_sub(applied.assignment.spool_bytes);
    while excess > 0 {
        let Some((segment, state)) = context.outbox.droppable().await? else { return Ok(()) };
        let is_rung = segment.key.rendition != SOURCE;
        if is_rung {
            context.spool.give_up(segment.key.session, &segment.key.rendition, segment.key.seq)?;
        }
        context.spool.remove_segment(&segment.key)?;
        context.live.remove(&segment.key);
        match state {
            State::Stored => context.outbox.forget(&segment.key, None).await?,
            // The bytes are in IPFS, unpinned: gone only if that node loses them too before they are stored.
            State::Added | State::Announced => context.outbox.dropped(&segment.key).await?,
            // What a rendition lacks is seen by whoever plays it; the footage is there.
            State::Sealed if is_rung => context.outbox.forget(&segment.key, None).await?,
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
