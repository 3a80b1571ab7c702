//! Lets go of local copies: those that are stored, and under disk pressure whatever costs least.
//!
//! The order under pressure: other renditions than the source, stored copies, copies of what one storage node has already
//! (then the only one until it is pinned), then the oldest footage, each announced as a gap. Capture never waits for any
//! of it.

use std::{io, sync::Arc};

use super::{
    context::{Context, now},
    outbox::{self, State},
    spool::Spool,
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
/// Copies that cannot be removed are passed over under disk pressure; a disk that removes nothing is asked no more often.
const MOST_STUCK: u64 = 100;

/// Why something stays that should go. The next round tries again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to remove a local copy")]
    Spool(#[from] io::Error),
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

async fn round(context: &Arc<Context>) -> Result<(), Error> {
    let trimmed = trim(context).await;
    // Whatever stays: the disk must not fill.
    relieve(context).await?;
    trimmed
}

/// Lets go of what is stored. A copy that cannot be removed keeps no other.
async fn trim(context: &Arc<Context>) -> Result<(), Error> {
    let outbox = &context.outbox;
    let mut stuck = Ok(());
    loop {
        let mut trimmed = 0;
        for key in outbox.trimmable(LIVE_SEGMENTS).await? {
            match let_go(context, &key).await {
                Ok(gone) => trimmed += u32::from(gone),
                Err(error @ Error::Spool(_)) => stuck = Err(error),
                Err(error) => return Err(error),
            }
        }
        if trimmed == 0 {
            break;
        }
    }
    for session in outbox.finished_sessions().await? {
        match on_disk(context, move |spool| spool.remove_session(session)).await {
            Ok(()) => outbox.forget_session(session).await?,
            Err(error) => stuck = Err(error.into()),
        }
    }
    stuck
}

/// Lets go of a stored segment, unless the ladder still needs it.
async fn let_go(context: &Arc<Context>, key: &SegmentKey) -> Result<bool, Error> {
    if key.rendition == SOURCE && !ladder_is_done(context, key).await? {
        return Ok(false);
    }
    // First the file, then the row: a file without a row would be taken for a new segment.
    let of = key.clone();
    on_disk(context, move |spool| spool.remove_segment(&of)).await?;
    context.outbox.forget(key, None).await?;
    Ok(true)
}

/// Trap: a disk may take seconds to let go of a file, longer of a folder, and all tasks of the agent are one.
async fn on_disk(
    context: &Arc<Context>,
    work: impl FnOnce(&Spool) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let context = context.clone();
    tokio::task::spawn_blocking(move || work(&context.spool)).await.map_err(io::Error::other)?
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
async fn relieve(context: &Arc<Context>) -> Result<(), Error> {
    let Some(applied) = context.applied() else { return Ok(()) };
    let mut excess = context.outbox.backlog().await?.bytes.saturating_sub(applied.assignment.spool_bytes);
    let (mut stuck, mut failed) = (0, Ok(()));
    while excess > 0 && stuck < MOST_STUCK {
        let Some((segment, state)) = context.outbox.droppable(stuck).await? else { break };
        let is_rung = segment.key.rendition != SOURCE;
        let key = segment.key.clone();
        let removed = on_disk(context, move |spool| {
            if is_rung {
                spool.give_up(key.session, &key.rendition, key.seq)?;
            }
            spool.remove_segment(&key)
        });
        if let Err(error) = removed.await {
            (stuck, failed) = (stuck + 1, Err(error.into()));
            continue;
        }
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
    failed
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        agent::{
            fixture,
            outbox::tests::sealed,
            spool::{folder_path, segment_path},
        },
        domain::{container::Container, control::Activity},
    };

    #[tokio::test]
    async fn a_copy_that_cannot_be_removed_keeps_no_other_and_the_disk_does_not_fill() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Running, "http://127.0.0.1:1").await;
        let keys = sealed(&context.outbox, 14).await;
        let file = |seq: usize| context.spool.path().join(segment_path(&keys[seq], Container::Fmp4));
        fs::create_dir_all(context.spool.path().join(folder_path(keys[0].session, SOURCE))).expect("a folder");
        for (seq, key) in keys.iter().enumerate() {
            fs::write(file(seq), "footage").expect("writes");
            if seq < 4 {
                context.outbox.added(key).await.expect("writes");
                context.outbox.stored_exactly(key).await.expect("writes");
            }
        }
        // One of the stored ones, and the oldest of the others.
        for seq in [0, 4] {
            fs::remove_file(file(seq)).expect("removed");
            fs::create_dir(file(seq)).expect("a folder");
        }
        context.assignment.send_modify(|applied| {
            applied.as_mut().expect("an assignment").assignment.spool_bytes = 10_000;
        });
        assert!(round(&context).await.is_err(), "what stays is told");
        let left: Vec<u64> =
            context.spool.segments(keys[0].session, SOURCE).expect("lists").into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(left, [0, 4, 6, 7, 8, 9, 10, 11, 12, 13], "stored ones go, then as many as are too much");
        assert_eq!(context.outbox.backlog().await.expect("reads").bytes, 10_000);
    }
}
