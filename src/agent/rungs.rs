//! Seals what the transcoder made: each rung takes numbers and times of the source's segment with the same number, so
//! that all renditions line up.
//!
//! Called by the sealer after the source. A rung that can't be used is marked as given up; nothing else waits for it.

use std::{collections::HashMap, io::ErrorKind, sync::Arc};

use super::{
    context::Context,
    reading::{self, Failing, Format, Unusable, blob},
    sealer::Error,
    spool::segment_path,
};
use crate::{
    domain::{
        container::Container,
        ladder::{self, Extent},
        media::Media,
        segment::{SOURCE, Segment, SegmentKey},
    },
    telemetry,
};

/// Formats of a rendition's segments by the name of the init section that they need.
type Formats = HashMap<Option<String>, Format>;

/// Rungs in one pass, and failures after which it ends: the next segment of the source must not wait for a backlog of the
/// ladder.
const PASS: usize = 8;

/// Seals finished rungs whose source is sealed, a few in one pass; where more wait it asks for the next one.
pub async fn seal(context: &Arc<Context>, failing: &mut Failing) -> Result<(), Error> {
    let Some(applied) = context.applied() else { return Ok(()) };
    let (mut settled, mut failed) = (0, 0);
    for session in context.spool.sessions()? {
        let renditions = match context.spool.renditions(session) {
            Ok(renditions) if renditions.is_empty() => continue,
            Ok(renditions) => renditions,
            // The ladder of the others does not wait for it.
            Err(error) => {
                tracing::warn!(%session, "the renditions of a session can't be listed: {error}");
                continue;
            }
        };
        let Some(row) = context.outbox.session(session).await? else { continue };
        for rendition in renditions {
            let known = context.outbox.numbers(session, &rendition).await?;
            let mut formats = Formats::new();
            let new = context.spool.segments(session, &rendition)?;
            for (seq, container) in new.into_iter().filter(|(seq, _)| !known.contains(seq)) {
                let key = SegmentKey { stream: applied.assignment.stream, rendition: rendition.clone(), session, seq };
                let source = SegmentKey { rendition: SOURCE.to_owned(), ..key.clone() };
                let done = match context.outbox.segment(&source).await? {
                    Some(source) => rung(context, key, container, &source, &mut formats, failing).await,
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
    container: Container,
    source: &Segment,
    formats: &mut Formats,
    failing: &mut Failing,
) -> Result<(), Error> {
    let init = context.spool.init_file(&key, container);
    let read = usable(context, &key, container, init.as_deref(), source, formats).await;
    let segment = match failing.settle(&segment_path(&key, container), read)? {
        Ok(segment) => segment,
        Err(why) => {
            tracing::warn!(session = %key.session, rendition = key.rendition, seq = key.seq, "no usable rung: {why}");
            context.spool.give_up(key.session, &key.rendition, key.seq)?;
            return Ok(context.spool.remove_segment(&key)?);
        }
    };
    context.outbox.seal_rung(&segment).await?;
    context.live.push(&segment, init.as_deref());
    for signal in [&context.to_add, &context.to_announce, &context.to_trim] {
        signal.raise();
    }
    Ok(())
}

async fn usable(
    context: &Arc<Context>,
    key: &SegmentKey,
    container: Container,
    init: Option<&str>,
    source: &Segment,
    formats: &mut Formats,
) -> Result<Segment, Unusable> {
    // A player that changes over in mid-play expects one kind of segments.
    if container != source.container() {
        return Err(Unusable::Damaged("it is packed in another container than the source".to_owned()));
    }
    let format = match formats.get(&init.map(str::to_owned)) {
        Some(known) => known.clone(),
        None => Format::of(context, key.session, &key.rendition, init)?,
    };
    formats.insert(init.map(str::to_owned), format.clone());
    let inspected = reading::read(context, key.clone(), container, &format.layout).await?;
    let (media, description) = (inspected.found.media, inspected.description);
    if !ladder::lines_up(&source.into(), &media) && !lines_up_with_file(context, source, &media).await? {
        let begin = if media.starts_with_keyframe { "" } else { ", no keyframe first" };
        return Err(Unusable::Damaged(format!(
            "it does not line up with the source: {} frames of {} µs{begin}, instead of {} of {}",
            media.frames, media.media_us, source.frames, source.media_us
        )));
    }
    Ok(Segment {
        file: segment_path(key, container).to_string_lossy().into_owned(),
        key: key.clone(),
        blob: blob(&inspected.digest),
        init: format.init,
        codecs: description.codecs,
        width: description.width,
        height: description.height,
        frames: media.frames,
        ..source.clone()
    })
}

/// The same question to the source's file, while it is there. What is remembered of the source are times of decoding:
/// those of B-frames before or after a hole say little about when frames are shown.
async fn lines_up_with_file(context: &Arc<Context>, source: &Segment, made: &Media) -> Result<bool, Unusable> {
    if made.frames != source.frames || !made.starts_with_keyframe {
        return Ok(false);
    }
    let (key, container) = (&source.key, source.container());
    let read = async {
        let format = Format::of(context, key.session, SOURCE, container.init_file())?;
        reading::read(context, key.clone(), container, &format.layout).await
    };
    match read.await {
        Ok(inspected) => Ok(ladder::lines_up(&Extent::from(&inspected.found.media), made)),
        // What can't be read now may be the next time; a file that had to go may not.
        Err(Unusable::Failed(error)) if error.kind() != ErrorKind::NotFound => Err(Unusable::Failed(error)),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        agent::{fixture, outbox::tests::sealed, spool::folder_path},
        domain::{container::Container, control::Activity, spool::segment_file},
    };

    #[tokio::test]
    async fn what_lengths_leave_open_is_settled_by_the_file_of_the_source() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = fixture::context(folder.path(), Activity::Running, "http://127.0.0.1:1").await;
        let source = &sealed(&context.outbox, 1).await[0];
        let segment = context.outbox.segment(source).await.expect("reads").expect("there");
        // Decoded for longer than it is shown.
        let segment = Segment { init: None, frames: 15, media_us: 2_000_000, ..segment };
        let key = SegmentKey { rendition: "low".to_owned(), ..source.clone() };
        let file = |key: &SegmentKey| context.spool.path().join(segment_path(key, Container::MpegTs));
        for key in [source, &key] {
            fs::create_dir_all(file(key).parent().expect("a folder")).expect("a folder");
            fs::write(file(key), include_bytes!("../domain/mpegts/testdata/hevc-b-frames.ts")).expect("writes");
        }
        let is_usable = async || {
            let formats = &mut Formats::new();
            usable(&context, &key, Container::MpegTs, None, &segment, formats).await.is_ok()
        };
        assert!(is_usable().await);
        fs::write(file(source), include_bytes!("../domain/mpegts/testdata/h264-aac.ts")).expect("writes");
        assert!(!is_usable().await, "other frames");
        fs::remove_file(file(source)).expect("removed");
        assert!(!is_usable().await, "nothing to compare it with");
    }

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
            fs::write(rungs.join(segment_file(key.seq, Container::Fmp4)), "x").expect("writes");
        }
        let left = || context.spool.segments(session, "low").expect("lists").len();
        let asked = context.to_scan.listen();
        seal(&context, &mut Failing::default()).await.expect("seals");
        assert_eq!((left(), asked.has_changed().expect("alive")), (4, true));
        let asked = context.to_scan.listen();
        seal(&context, &mut Failing::default()).await.expect("seals");
        assert_eq!((left(), asked.has_changed().expect("alive")), (0, false));
    }
}
