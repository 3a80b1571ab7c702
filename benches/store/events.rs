//! Announcements a second: what the recorder takes out of a full queue, against a bare consumer of the same queue, and
//! against the catalogue alone.

use std::time::{Duration, Instant};

use dsn::{
    catalogue::{self, Fact},
    clients::broker::{self, Broker},
    domain::control::RECORDER_QUEUE,
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    harness::{self, Samples, footage::Recorded, report::Report, rounds, row, usage},
    server::{Furnished, Server},
};

const CAMERAS: u32 = 25;
/// Of each camera: less than an hour's, so that no roll-up is due while this is measured.
const SEGMENTS: u64 = 800;
/// The recorder's own.
const PREFETCH: u16 = 1024;
const BATCH: usize = 256;

/// Both sides empty the same queue, filled anew each time.
pub async fn measure(part: &'static str) {
    let furnished = Furnished::start().await;
    let total = usize::try_from(u64::from(CAMERAS) * SEGMENTS).expect("small");
    let [mut bare, mut alone, mut ours, mut processor] = [const { Vec::new() }; 4].map(Samples::from_iter);
    for round in 0..rounds(3) {
        // Hours that have not passed stay open.
        let hour = (Timestamp::now().as_second() / 3600 + 2) * 3600;
        let next_hour = Timestamp::from_second(hour).expect("in range");
        let cameras: Vec<Recorded> = (0..CAMERAS).map(|number| Recorded::new(number, next_hour, 3600)).collect();

        fill(&furnished, &cameras).await;
        let seconds = consume(&furnished.operator, total).await;
        bare.push(total as f64 / seconds);

        alone.push(total as f64 / catalogue_alone(&cameras).await);

        for recorded in &cameras {
            furnished.configure(recorded).await;
        }
        fill(&furnished, &cameras).await;
        let server = Server::start(&furnished, "http://127.0.0.1:1", "http://127.0.0.1:1");
        let meter = usage::Meter::start(server.pid());
        let taken = async || server.metric("dsn_recorder_segments_total").await;
        let (first, began) = harness::until("the recorder begins", Duration::from_secs(30), async || {
            let taken = taken().await;
            if taken > 0.0 { Ok((taken, Instant::now())) } else { Err(server.said()) }
        })
        .await;
        let (last, ended) = harness::until("the recorder has taken all", Duration::from_secs(120), async || {
            let taken = taken().await;
            if taken >= total as f64 { Ok((taken, Instant::now())) } else { Err(format!("{taken}: {}", server.said())) }
        })
        .await;
        // The last of them are acknowledged in this time, or they would come again.
        tokio::time::sleep(Duration::from_secs(1)).await;
        ours.push((last - first) / ended.duration_since(began).as_secs_f64());
        processor.push(1e6 * meter.seconds() / total as f64);
        eprintln!("round {round}: {:.0} announcements/s", ours.median());
    }
    let share = format!("{:.2}", ours.median() / bare.median());
    let mut report = Report::new(part);
    report.table(&[
        row!["who", "announcements/s", "of the floor"],
        row!["bare consumer: takes and acknowledges", bare.text(0), ""],
        row!["catalogue alone, no broker", alone.text(0), ""],
        row!["recorder: checks, catalogues durably, acknowledges", ours.text(0), share],
    ]);
    report.note(format!(
        "{total} announcements of {CAMERAS} cameras wait in the queue. The recorder's processor time for one is {} µs, \
         its start included. A camera with segments of {} s sends one in that time.",
        processor.text(0),
        harness::footage::SECONDS
    ));
    report.publish();
}

/// Every camera's announcements, in turns.
async fn fill(furnished: &Furnished, cameras: &[Recorded]) {
    for seq in 0..SEGMENTS {
        let announced = cameras.iter().map(|recorded| async move {
            furnished.announce(recorded, &recorded.nominal(seq)).await;
        });
        futures::future::join_all(announced).await;
    }
}

/// Seconds that a consumer takes that does nothing.
async fn consume(broker: &Broker, total: usize) -> f64 {
    let mut subscription = broker.subscribe(RECORDER_QUEUE, PREFETCH).await.expect("consumes");
    let mut began = Instant::now();
    let mut last = began;
    for number in 0..total {
        let delivery = broker::next(&mut subscription.deliveries).await.expect("a delivery");
        if number == 0 {
            began = Instant::now();
        }
        delivery.ack().await.expect("acknowledged");
        last = Instant::now();
    }
    // Or it would go on taking what is the recorder's.
    subscription.consumer.cancel().await.expect("cancelled");
    last.duration_since(began).as_secs_f64()
}

/// Seconds that the catalogue takes for the same, in transactions of the recorder's size.
async fn catalogue_alone(cameras: &[Recorded]) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let (writer, _reader) = catalogue::open(folder.path()).await.expect("opens");
    let now = Timestamp::now() - SignedDuration::from_secs(1);
    let mut facts = Vec::new();
    for recorded in cameras {
        facts.push(Fact::Camera(1, recorded.camera.clone()));
        facts.push(Fact::Stream(1, Box::new(recorded.stream.clone())));
    }
    writer.record(&facts, now).await.expect("recorded");
    let facts: Vec<Fact> = (0..SEGMENTS)
        .flat_map(|seq| cameras.iter().map(move |recorded| Fact::Segment(Box::new(recorded.nominal(seq)))))
        .collect();
    let began = Instant::now();
    for batch in facts.chunks(BATCH) {
        writer.record(batch, now).await.expect("recorded");
    }
    began.elapsed().as_secs_f64()
}
