//! Footage on its way into storage: from a sealed segment to a pin on two nodes, against bare kubo and ipfs-cluster on the
//! same daemons; and how many announcements the recorder takes in a second, against a bare consumer.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../harness/mod.rs"]
mod harness;

#[path = "../../tests/storage/group.rs"]
mod group;
#[path = "../../tests/tools/mod.rs"]
mod tools;

mod events;
mod latency;
mod server;

#[tokio::main]
async fn main() {
    harness::choose_tls_provider();
    for part in harness::wanted(&["store-latency", "store-events"]) {
        match part {
            "store-latency" => latency::measure(part).await,
            _ => events::measure(part).await,
        }
    }
}
