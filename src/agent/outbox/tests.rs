use super::*;
use crate::domain::{
    id::StreamId,
    media::Media,
    segment::{GapReason, SOURCE, SegmentKey},
    session::Found,
};

fn blob(bytes: u64) -> Blob {
    Blob { cid: crate::domain::cid::of(b"footage").to_string(), sha256: "00".into(), bytes }
}

fn now() -> Timestamp {
    Timestamp::from_second(2_000_000_000).expect("in range")
}

fn found(seq: u64) -> Found {
    let start_us = i64::try_from(seq).expect("small") * 4_000_000;
    let media = Media {
        start_us,
        media_us: 4_000_000,
        frames: 100,
        gop_us: 2_000_000,
        starts_with_keyframe: true,
        ..Media::default()
    };
    Found { seq, media, sealed_us: now().as_microsecond() + start_us }
}

/// Seals segments `0..count` of a new session.
pub async fn sealed(outbox: &Outbox, count: u64) -> Vec<SegmentKey> {
    let mut stream = outbox.stream().await.expect("reads").unwrap_or_else(|| StreamBook::new(now()));
    let session = SessionId::new();
    let book = SessionBook::open(&stream, session, 4, &[found(0)]).expect("a segment");
    let mut row = SessionRow { book, init: Some(blob(900)), closed: false, ended: None };
    let mut keys = Vec::new();
    for seq in 0..count {
        let numbered = row.book.number(&mut stream, &found(seq)).expect("new");
        let key = SegmentKey { stream: StreamId::of("p", "c"), rendition: SOURCE.into(), session, seq };
        let segment = Segment {
            key: key.clone(),
            camera: "c".into(),
            camera_name: "n/c".into(),
            site: "hq".into(),
            file: String::new(),
            blob: blob(1_000),
            init: row.init.clone(),
            codecs: String::new(),
            width: 1,
            height: 1,
            start: Timestamp::from_microsecond(numbered.start_us).expect("in range"),
            end: Timestamp::from_microsecond(numbered.end_us).expect("in range"),
            media_us: 4_000_000,
            frames: 100,
            playlist_seq: numbered.playlist_seq,
            discontinuity_seq: numbered.discontinuity_seq,
            target_seconds: numbered.target_seconds,
        };
        outbox.seal(&segment, &stream, &row, &[]).await.expect("writes");
        keys.push(key);
    }
    keys
}

async fn fresh() -> (tempfile::TempDir, Outbox) {
    let folder = tempfile::tempdir().expect("a folder");
    let outbox = Outbox::open(folder.path()).await.expect("opens");
    (folder, outbox)
}

#[tokio::test]
async fn a_segment_moves_forward_and_repetitions_change_nothing() {
    let (_folder, outbox) = fresh().await;
    let keys = sealed(&outbox, 2).await;
    assert_eq!(outbox.to_add(false, &[]).await.expect("reads").expect("waits").key, keys[0]);
    assert_eq!(outbox.to_add(true, &[]).await.expect("reads").expect("waits").key, keys[1]);
    assert_eq!(outbox.to_add(true, &keys).await.expect("reads"), None, "somebody is at both");

    outbox.added(&keys[0]).await.expect("writes");
    outbox.announced(&keys[1], now()).await.expect("writes");
    assert_eq!(outbox.to_announce(now(), 10).await.expect("reads").len(), 1, "a sealed one is not announced");
    outbox.announced(&keys[0], now()).await.expect("writes");
    outbox.added(&keys[0]).await.expect("writes");
    assert!(outbox.to_announce(now(), 10).await.expect("reads").is_empty(), "a late `added` moves nothing back");

    let in_five_minutes = now() + jiff::SignedDuration::from_mins(5);
    assert_eq!(outbox.to_announce(in_five_minutes, 10).await.expect("reads").len(), 1, "not stored: again");
    outbox.announce_once_more().await.expect("writes");
    assert_eq!(outbox.to_announce(now(), 10).await.expect("reads").len(), 1, "after hello: again");
    outbox.announced(&keys[0], now()).await.expect("writes");
    for _connection in 0..9 {
        outbox.announce_once_more().await.expect("writes");
        assert_eq!(outbox.to_announce(now(), 10).await.expect("reads"), [], "a broker that flaps repeats nothing");
    }

    assert_eq!(outbox.stored(&keys[1]).await.expect("writes"), 1, "a sealed one can't be stored");
    assert_eq!(outbox.stored(&keys[1]).await.expect("writes"), 0);
    let backlog = outbox.backlog().await.expect("reads");
    assert_eq!((backlog.unannounced, backlog.unstored, backlog.bytes), (1, 0, 2_000));
}

#[tokio::test]
async fn only_stored_copies_outside_the_live_window_are_trimmed() {
    let (_folder, outbox) = fresh().await;
    let keys = sealed(&outbox, 5).await;
    for key in &keys {
        outbox.added(key).await.expect("writes");
        outbox.announced(key, now()).await.expect("writes");
    }
    outbox.stored(&keys[3]).await.expect("writes");
    assert_eq!(outbox.trimmable(2).await.expect("reads"), keys[..3]);
    assert_eq!(outbox.trimmable(5).await.expect("reads"), []);
    assert_eq!(outbox.newest(2).await.expect("reads").iter().map(|s| s.key.seq).collect::<Vec<_>>(), [3, 4]);
}

#[tokio::test]
async fn disk_pressure_drops_stored_then_added_then_the_oldest() {
    let (_folder, outbox) = fresh().await;
    let keys = sealed(&outbox, 3).await;
    outbox.added(&keys[1]).await.expect("writes");
    outbox.added(&keys[2]).await.expect("writes");
    sqlx::query("UPDATE media SET state = 3 WHERE seq = 2").execute(&outbox.pool).await.expect("writes");
    let mut order = Vec::new();
    while let Some((segment, state)) = outbox.droppable(0).await.expect("reads") {
        order.push((segment.key.seq, state));
        outbox.dropped(&segment.key).await.expect("writes");
    }
    assert_eq!(order, [(2, State::Stored), (1, State::Added), (0, State::Sealed)]);
    // Asked for again without a copy: after everything that has one, and back if nobody knows about it.
    assert!(outbox.readd(&keys[1]).await.expect("writes"), "known");
    assert_eq!(outbox.to_add(true, &[]).await.expect("reads").expect("waits").key, keys[1]);
    assert!(!outbox.set_aside(&keys[1]).await.expect("writes"), "never announced");
    outbox.added(&keys[1]).await.expect("writes");
    outbox.announced(&keys[1], now()).await.expect("writes");
    assert!(outbox.readd(&keys[1]).await.expect("writes"));
    sqlx::query("UPDATE media SET on_disk = 1 WHERE seq = 1").execute(&outbox.pool).await.expect("writes");
    let (_, state) = outbox.droppable(0).await.expect("reads").expect("there");
    assert_eq!(state, State::Announced, "asked for again it may still be stored: nobody calls it lost");
    outbox.dropped(&keys[1]).await.expect("writes");
    assert!(outbox.set_aside(&keys[1]).await.expect("writes"));
    assert_eq!(outbox.backlog().await.expect("reads").unstored, 1);
}

#[tokio::test]
async fn numbers_and_open_segments_survive_a_kill() {
    let (folder, outbox) = fresh().await;
    let keys = sealed(&outbox, 3).await;
    let before = outbox.stream().await.expect("reads");
    // No orderly close: a second process opens what the first left behind.
    let again = Outbox::open(folder.path()).await.expect("opens");
    assert_eq!(again.stream().await.expect("reads"), before);
    let row = again.session(keys[0].session).await.expect("reads").expect("known");
    assert_eq!(row.book.next_seq, 3);
    assert!(again.to_add(false, &[]).await.expect("reads").is_some());
}

#[tokio::test]
async fn a_damaged_outbox_is_put_aside_and_numbers_resume_above_the_floor() {
    let (folder, outbox) = fresh().await;
    sealed(&outbox, 1).await;
    outbox.close_file().await;
    std::fs::write(folder.path().join("outbox.db"), b"this is no database at all, not even a header").expect("writes");
    let again = Outbox::open(folder.path()).await.expect("opens");
    assert_eq!(again.stream().await.expect("reads"), None);
    let kept = std::fs::read_dir(folder.path())
        .expect("lists")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("outbox-damaged-"));
    assert_eq!(kept.count(), 1);
}

#[tokio::test]
async fn an_outbox_that_cannot_be_opened_just_now_is_left_as_it_is() {
    let (folder, outbox) = fresh().await;
    let keys = sealed(&outbox, 1).await;
    outbox.close_file().await;
    // A journal that cannot be made, as on a full disk.
    std::fs::create_dir(folder.path().join("outbox.db-wal")).expect("a folder");
    assert!(Outbox::open(folder.path()).await.is_err());
    std::fs::remove_dir(folder.path().join("outbox.db-wal")).expect("removed");
    let again = Outbox::open(folder.path()).await.expect("opens");
    assert_eq!(again.to_add(false, &[]).await.expect("reads").map(|s| s.key), keys.first().cloned());
}

#[tokio::test]
async fn a_lost_segment_leaves_a_gap_to_tell() {
    let (_folder, outbox) = fresh().await;
    let keys = sealed(&outbox, 1).await;
    let gap = Gap {
        rendition: None,
        stream: keys[0].stream,
        camera: "c".into(),
        session: keys[0].session,
        seq: Some(0),
        from: now(),
        to: now(),
        reason: GapReason::SpoolFull,
        detail: String::new(),
    };
    outbox.forget(&keys[0], Some(&gap)).await.expect("writes");
    let gaps = outbox.gaps(10).await.expect("reads");
    assert_eq!(gaps.iter().map(|(_, gap)| gap).collect::<Vec<_>>(), [&gap]);
    outbox.gap_told(gaps[0].0).await.expect("writes");
    assert_eq!(outbox.untold_gaps().await.expect("reads"), 0);
}

#[tokio::test]
async fn the_folder_of_a_session_goes_when_nothing_of_it_is_open_but_never_the_newest() {
    let (_folder, outbox) = fresh().await;
    let first = sealed(&outbox, 1).await;
    let second = sealed(&outbox, 1).await;
    outbox.close(first[0].session, None).await.expect("writes");
    outbox.close(second[0].session, None).await.expect("writes");
    assert_eq!(outbox.finished_sessions().await.expect("reads"), []);
    outbox.forget(&first[0], None).await.expect("writes");
    outbox.forget(&second[0], None).await.expect("writes");
    assert_eq!(outbox.finished_sessions().await.expect("reads"), [first[0].session]);
}

fn rung(source: &Segment, rendition: &str) -> Segment {
    Segment { key: SegmentKey { rendition: rendition.into(), ..source.key.clone() }, ..source.clone() }
}

#[tokio::test]
async fn the_source_goes_first_and_the_ladder_is_dropped_first() {
    let (_folder, outbox) = fresh().await;
    let keys = sealed(&outbox, 2).await;
    let source = outbox.segment(&keys[0]).await.expect("reads").expect("sealed");
    let before = outbox.backlog().await.expect("reads");
    outbox.seal_rung(&rung(&source, "low")).await.expect("writes");
    let backlog = outbox.backlog().await.expect("reads");
    assert_eq!((backlog.unannounced, backlog.oldest), (before.unannounced, before.oldest), "no footage");
    assert_eq!((backlog.bytes, outbox.waiting().await.expect("reads")), (before.bytes + 1_000, (3, 0)));
    for newest in [true, false] {
        let first = outbox.to_add(newest, &[]).await.expect("reads").expect("waits");
        assert_eq!(first.key.rendition, SOURCE);
    }
    let (dropped, _) = outbox.droppable(0).await.expect("reads").expect("there");
    assert_eq!(dropped.key.rendition, "low");
    assert_eq!(outbox.numbers(keys[0].session, "low").await.expect("reads").len(), 1);
    // What is stored of the source says nothing of the ladder.
    for key in &keys {
        outbox.added(key).await.expect("writes");
    }
    outbox.added(&dropped.key).await.expect("writes");
    outbox.stored(&keys[1]).await.expect("writes");
    assert!(outbox.trimmable(0).await.expect("reads").iter().all(|key| key.rendition == SOURCE));
    assert_eq!(outbox.stored_exactly(&dropped.key).await.expect("writes"), 1);
    assert!(
        outbox.trimmable(0).await.expect("reads").iter().all(|key| key.rendition == SOURCE),
        "made again otherwise"
    );
    outbox.forget(&keys[0], None).await.expect("writes");
    let trimmable = outbox.trimmable(1).await.expect("reads");
    assert_eq!(trimmable, [dropped.key]);
}

#[tokio::test]
async fn an_outage_is_worked_off_without_sorting_what_waits_for_each_segment() {
    let (_folder, outbox) = fresh().await;
    for query in segments::EACH_TIME {
        let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}")));
        for row in plan.fetch_all(&outbox.pool).await.expect("explains") {
            let step: String = row.try_get("detail").expect("a word");
            let walks_all = step.starts_with("SCAN m") && !step.contains(" USING ");
            assert!(!walks_all && !step.contains("TEMP B-TREE"), "{step}: {query}");
        }
    }
}

#[tokio::test]
async fn what_waits_is_counted_along_as_it_would_be_counted_anew() {
    let (folder, outbox) = fresh().await;
    let keys = sealed(&outbox, 6).await;
    let source = outbox.segment(&keys[0]).await.expect("reads").expect("sealed");
    outbox.seal_rung(&rung(&source, "low")).await.expect("writes");
    for key in &keys[1..] {
        outbox.added(key).await.expect("writes");
    }
    for key in &keys[2..] {
        outbox.announced(key, now()).await.expect("writes");
    }
    outbox.dropped(&keys[3]).await.expect("writes");
    outbox.stored_exactly(&keys[4]).await.expect("writes");
    outbox.stored_exactly(&keys[5]).await.expect("writes");
    assert!(outbox.readd(&keys[5]).await.expect("writes"));
    outbox.forget(&keys[4], None).await.expect("writes");
    let counted =
        async |outbox: &Outbox| (outbox.backlog().await.expect("reads"), outbox.waiting().await.expect("reads"));
    let (backlog, waiting) = counted(&outbox).await;
    assert_eq!((backlog.unannounced, backlog.unstored, backlog.bytes, waiting), (3, 2, 5_000, (4, 2)));
    assert_eq!(backlog.oldest, Some(source.start));
    assert_eq!(counted(&Outbox::open(folder.path()).await.expect("opens")).await, (backlog, waiting));
}
