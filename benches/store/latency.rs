//! From a sealed segment to a pin on two nodes.
//!
//! The product: upload through the storage agent, announcement over the broker, recorder, roll-up, pin. The floor: kubo
//! adds the same number of bytes and ipfs-cluster pins them, asked directly. Both are over when the cluster says that two
//! peers have it, and that is asked by the same client at the same intervals.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use bytes::Bytes;
use dsn::{
    clients::{
        broker::{self, Delivery},
        ipfs::Ipfs,
        ipfs_cluster::PinOptions,
    },
    domain::{
        cid::{self, Cid, Directory, Entry, FileDigest, FileHasher},
        control::{Envelope, Stored, instance_queue},
        segment::Segment,
        token::{MasterKey, Purpose},
    },
};
use futures::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};

use crate::{
    group::{Doors, Group, Node},
    harness::{
        self, Samples,
        footage::{NAMESPACE, Recorded, noise},
        report::Report,
        rounds, row,
    },
    server::{Furnished, MASTER, Server},
};

/// One raw block, as most segments are.
const BYTES: usize = 2_000_000;
/// Segments of a minute.
const MINUTE: u64 = 15;
const TWO: NonZeroU32 = NonZeroU32::new(2).expect("not zero");
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures one segment by itself, and a minute of them.
pub async fn measure(part: &'static str) {
    let scope = format!("{NAMESPACE}/default");
    let derive = |purpose| MasterKey::new(MASTER).derive(purpose, &scope);
    let doors = Doors {
        upload: derive(Purpose::Upload),
        server: derive(Purpose::Server),
        password: derive(Purpose::ClusterRest),
    };
    let group = Group::with_doors(2, doors).await;
    let furnished = Furnished::start().await;
    let cluster = format!("http://127.0.0.1:{}", group.nodes[0].rest_port);
    let server = Server::start(&furnished, &group.nodes[0].url(), &cluster);

    let mut report = Report::new(part);
    let mut rows = vec![row!["what", "floor, s", "dsn, s", "ratio", "agent told, s"]];
    for (name, size, count) in
        [("one segment of 2 MB", 1, rounds(25)), ("a minute: 15 segments", MINUTE, rounds(25) / 4)]
    {
        // Alone, a segment is a roll-up at once. A minute is one when it has passed and 3 s more.
        let begin = Timestamp::now() - SignedDuration::from_hours(24 * 7);
        let begin = Timestamp::from_second(begin.as_second() / 60 * 60).expect("in range");
        let number = u32::try_from(size).expect("small");
        let recorded = Recorded::new(number, begin, if size == 1 { 0 } else { 60 });
        furnished.configure(&recorded).await;
        let mut told = furnished
            .operator
            .subscribe(&instance_queue(recorded.stream.instance), 10)
            .await
            .expect("consumes")
            .deliveries;
        let mut side = Side { node: &group.nodes[0], furnished: &furnished, recorded: &recorded, server: &server };
        side.upload_init().await;
        let [mut floor, mut ours, mut known] = [const { Vec::new() }; 3].map(Samples::from_iter);
        for round in 0..=u64::try_from(count).expect("small").max(3) {
            let by_hand = side.by_hand(round, size).await;
            let (pinned, heard) = side.by_dsn(round, size, &mut told).await;
            // The first of each opens connections.
            if round > 0 {
                floor.push(by_hand.as_secs_f64());
                ours.push(pinned.as_secs_f64());
                known.push(heard.as_secs_f64());
            }
        }
        let ratio = format!("{:.2}", ours.median() / floor.median());
        rows.push(row![name, floor.text(2), ours.text(2), ratio, known.text(2)]);
    }
    report.table(&rows);
    report.note(format!(
        "{} rounds of the first and {} of the second, floor and product in turns. Two nodes on the same disk; both sides end when the cluster says that both have it. *Agent told*: its queue has the \
         message that lets the local copy go. A roll-up waits for its minute to pass and for 3 s after its last segment; \
         the first row is without them (each segment is a roll-up), the second with the 3 s.",
        rounds(25),
        (rounds(25) / 4).max(3),
    ));
    report.publish();
}

struct Side<'a> {
    node: &'a Node,
    furnished: &'a Furnished,
    recorded: &'a Recorded,
    server: &'a Server,
}

impl Side<'_> {
    /// kubo and ipfs-cluster, asked directly.
    async fn by_hand(&mut self, round: u64, size: u64) -> Duration {
        let ipfs = Ipfs::over_socket(&self.node.socket()).expect("a client");
        let contents: Vec<Bytes> = (0..size).map(|n| noise(round << 32 | size << 16 | n << 1, BYTES).into()).collect();
        let began = Instant::now();
        let mut entries = Vec::new();
        for (number, content) in contents.into_iter().enumerate() {
            let body = futures::stream::once(async move { Ok::<_, std::convert::Infallible>(content) });
            let digest = ipfs.add(body).await.expect("kubo adds");
            entries.push(Entry { name: format!("{number}.m4s"), cid: digest.cid, size: digest.bytes });
        }
        let cid = if size == 1 {
            entries[0].cid
        } else {
            let directory = cid::directory(entries).expect("a directory");
            ipfs.put_directory(&directory).await.expect("kubo puts");
            directory.cid
        };
        self.node.rest().pin(&cid, &PinOptions::new("bench", TWO)).await.expect("the cluster accepts");
        self.pinned(&cid).await.duration_since(began)
    }

    /// The product: until the pin is there, and until the agent is told.
    async fn by_dsn(
        &mut self,
        round: u64,
        size: u64,
        told: &mut BoxStream<'static, Result<Delivery, broker::Error>>,
    ) -> (Duration, Duration) {
        let contents: Vec<(Segment, FileDigest, Bytes)> = (0..size)
            .map(|n| {
                let content = noise(round << 32 | size << 16 | n << 1 | 1, BYTES);
                let mut hasher = FileHasher::default();
                hasher.update(&content);
                let segment = self.recorded.segment(round * size + n, harness::footage::blob(&content));
                (segment, hasher.finish(), content.into())
            })
            .collect();
        let cid = Self::directory(contents.iter().map(|(segment, ..)| segment)).cid;
        let last = contents.last().expect("one at least").0.key.seq;
        let began = Instant::now();
        let agent = self.node.uploader();
        for (segment, digest, content) in contents {
            agent.put_file(&segment.file, &digest, content).await.expect("uploaded");
            self.furnished.announce(self.recorded, &segment).await;
        }
        let pinned = self.pinned(&cid).await.duration_since(began);
        loop {
            let delivery = tokio::time::timeout(PATIENCE, broker::next(told)).await;
            let delivery = delivery.unwrap_or_else(|_| panic!("not told: {}", self.server.said())).expect("a delivery");
            let message: Envelope<Stored> = serde_json::from_slice(&delivery.body).expect("a message");
            delivery.ack().await.expect("acknowledged");
            if message.data.upto.iter().any(|upto| upto.seq >= last) {
                return (pinned, began.elapsed());
            }
        }
    }

    async fn pinned(&self, cid: &Cid) -> Instant {
        let cluster = self.node.rest();
        harness::until(&format!("{cid} is pinned twice"), PATIENCE, async || {
            let status = cluster.status(&[*cid]).await.map_err(|error| error.to_string())?;
            if status[cid].pinned() == 2 {
                Ok(Instant::now())
            } else {
                Err(format!("{:?} {}", status[cid], self.server.said()))
            }
        })
        .await
    }

    /// What the recorder will pin.
    fn directory<'b>(segments: impl Iterator<Item = &'b Segment>) -> Directory {
        let mut entries = Vec::new();
        for segment in segments {
            let name = |what: String| format!("{}-{}-{what}", segment.key.session, segment.key.rendition);
            if entries.is_empty() {
                let init = segment.init.as_ref().expect("an init section");
                entries.push(Entry {
                    name: name(format!("init-{}.mp4", &init.sha256[..16])),
                    cid: init.cid.parse().expect("a CID"),
                    size: init.bytes,
                });
            }
            entries.push(Entry {
                name: name(format!("{:08}.m4s", segment.key.seq)),
                cid: segment.blob.cid.parse().expect("a CID"),
                size: segment.blob.bytes,
            });
        }
        cid::directory(entries).expect("a directory")
    }

    /// Once a session.
    async fn upload_init(&self) {
        let content = self.recorded.camera.camera.uid.clone().into_bytes();
        let mut hasher = FileHasher::default();
        hasher.update(&content);
        self.node.uploader().put_file("init.mp4", &hasher.finish(), content).await.expect("uploaded");
    }
}
