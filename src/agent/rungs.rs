//! Seals what the transcoder made: each rung takes numbers and times of the source's segment with the same number, so
//! that all renditions line up.
//!
//! Called by the sealer after the source. A rung that can't be used is marked as given up; nothing else waits for it.

use std::{collections::HashMap, sync::Arc};

use super::{
    context::Context,
    outbox::InitSection,
    sealer::{self, Error, Unusable, blob},
    spool::segment_path,
};
use crate::{
    domain::{
        fmp4::Init,
        id::SessionId,
        segment::{SOURCE, Segment, SegmentKey},
    },
    telemetry,
};

/// Rungs in one pass, and failures after which it ends: the next segment of the source must not wait for a backlog of the
/// ladder.
const PASS: usize = 8;

/// Seals finished rungs whose source is sealed, a few in one pass; where more wait it asks for the next one.
pub async fn seal(context: &Arc<Context>) -> Result<(), Error> {
    let Some(applied) = context.applied() else { return Ok(()) };
    let (mut settled, mut failed) = (0, 0);
    for session in context.spool.sessions()? {
        let renditions = context.spool.renditions(session)?;
        if renditions.is_empty() {
            continue;
        }
        let Some(row) = context.outbox.session(session).await? else { continue };
        for rendition in renditions {
            let known = context.outbox.numbers(session, &rendition).await?;
            let mut sections = HashMap::new();
            for seq in context.spool.segments(session, &rendition)?.into_iter().filter(|seq| !known.contains(seq)) {
                let key = SegmentKey { stream: applied.assignment.stream, rendition: rendition.clone(), session, seq };
                let source = SegmentKey { rendition: SOURCE.to_owned(), ..key.clone() };
                let done = match context.outbox.segment(&source).await? {
                    Some(source) => rung(context, key, &source, &mut sections).await,
                    None if seq >= row.book.next_seq => continue,
                    // The source had to go before its rung came: there are no times for it any more.
                    None => context.spool.remove_segment(&key).map_err(Error::from),
                };
                match done {
                    Ok(()) => settled += 1,
                    Err(error) => {
                        tracing::warn!(%session, rendition, seq, "a rung waits: {}", telemetry::chain(&error));
                        failed += 1;
                    }
                }
                if settled == PASS {
                    context.to_scan.raise();
                    return Ok(());
                }
                if failed == PASS {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

async fn rung(
    context: &Arc<Context>,
    key: SegmentKey,
    source: &Segment,
    sections: &mut HashMap<String, (Init, InitSection)>,
) -> Result<(), Error> {
    let file = context.spool.init_file(&key);
    let segment = match usable(context, &key, &file, source, sections).await {
        Ok(segment) => segment,
        Err(Unusable::Failed(error)) => return Err(error.into()),
        Err(Unusable::Damaged(why)) => {
            tracing::warn!(session = %key.session, rendition = key.rendition, seq = key.seq, "no usable rung: {why}");
            context.spool.give_up(key.session, &key.rendition, key.seq)?;
            return Ok(context.spool.remove_segment(&key)?);
        }
    };
    context.outbox.seal_rung(&segment).await?;
    context.live.push(&segment, &file);
    for signal in [&context.to_add, &context.to_announce, &context.to_trim] {
        signal.raise();
    }
    Ok(())
}

async fn usable(
    context: &Arc<Context>,
    key: &SegmentKey,
    file: &str,
    source: &Segment,
    sections: &mut HashMap<String, (Init, InitSection)>,
) -> Result<Segment, Unusable> {
    let (init, section) = match sections.get(file) {
        Some(known) => known.clone(),
        None => section(context, key.session, &key.rendition, file)?,
    };
    sections.insert(file.to_owned(), (init.clone(), section.clone()));
    let inspected = sealer::read(context, key.session, &key.rendition, key.seq, &init).await?;
    let media = inspected.found.media;
    // To a frame: the encoder gives the last one a length of its own.
    let frame_us = source.media_us / source.frames.max(1) + 1_000;
    if media.frames != source.frames || u64::try_from(media.media_us).unwrap_or(0).abs_diff(source.media_us) > frame_us
    {
        return Err(Unusable::Damaged(format!(
            "{} frames of {} µs instead of {} of {}",
            media.frames, media.media_us, source.frames, source.media_us
        )));
    }
    Ok(Segment {
        file: segment_path(key).to_string_lossy().into_owned(),
        key: key.clone(),
        blob: blob(&inspected.digest),
        init: section.blob,
        codecs: section.codecs,
        width: section.width,
        height: section.height,
        frames: media.frames,
        ..source.clone()
    })
}

fn section(
    context: &Context,
    session: SessionId,
    rendition: &str,
    file: &str,
) -> Result<(Init, InitSection), Unusable> {
    let bytes = context.spool.init(session, rendition, file)?;
    sealer::init_section(&bytes).map_err(Unusable::Damaged)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        agent::{fixture, outbox::tests::sealed, spool::folder_path},
        domain::{control::Activity, spool::segment_file},
    };

    #[tokio::test]
    async fn a_backlog_of_the_ladder_is_worked_off_in_passes() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Running, "http://127.0.0.1:1").await;
        let keys = sealed(&context.outbox, 12).await;
        let session = keys[0].session;
        let rungs = context.spool.path().join(folder_path(session, "low"));
        fs::create_dir_all(&rungs).expect("a folder");
        // Their source is gone: each is settled by its removal.
        for key in &keys {
            context.outbox.forget(key, None).await.expect("writes");
            fs::write(rungs.join(segment_file(key.seq)), "x").expect("writes");
        }
        let left = || context.spool.segments(session, "low").expect("lists").len();
        let asked = context.to_scan.listen();
        seal(&context).await.expect("seals");
        assert_eq!((left(), asked.has_changed().expect("alive")), (4, true));
        let asked = context.to_scan.listen();
        seal(&context).await.expect("seals");
        assert_eq!((left(), asked.has_changed().expect("alive")), (0, false));
    }
}
