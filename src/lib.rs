//! `dsn`: cameras, pipelines and storage nodes declared in Kubernetes; footage captured by ffmpeg, kept on a private
//! IPFS cluster, steered over AMQP.
//!
//! One package, one binary, a role per subcommand. The two flows:
//!
//! ```text
//! SPEC   kubectl / helm / Git ──► Camera, Pipeline, StorageNode
//!          observe ─► plan (pure) ─► desired (pure) ─► apply (server-side) ─► status (pure, on both branches)
//!                                      ├─► assignment per instance: ConfigMap (the truth, with a revision)
//!                                      └─► the same assignment as an AMQP message ─► agent ─► runner ─► ffmpeg
//!
//! VIDEO  camera ─RTSP─► ffmpeg ─► spool ─► agent ─PUT─► storage agent ─► kubo (CID)
//!          agent ─AMQP: segment sealed, CID, start, end─► recorder ─► catalogue ─► roll-up ─► ipfs-cluster pin ×R
//!                                                             └─AMQP: "stored up to n"─► agent trims its spool
//!          spool ─► transcoder ─► spool: other sizes of each sealed segment, on the same way from there
//!          browser ◄─ playlist from the catalogue ─ gateway ◄─ bytes by CID, hash-checked ─ storage agents
//!          browser ◄─ live ─────────────────────── gateway ◄─ spool of the capture pod (IPFS is too slow for live)
//! ```
//!
//! Invariants (held by `tests/architecture.rs` where a test can hold them):
//! * [`domain`] is pure: no tokio, no kube client, no HTTP, no SQL;
//! * only [`recorder`] writes the [`catalogue`];
//! * only [`operator`] declares queues and bindings;
//! * a CID is never a permission: media is authorised on the camera it belongs to;
//! * capture never waits for anything behind it; live never reads SQL;
//! * published times and numbers of a segment never change.

pub mod agent;
pub mod api;
pub mod catalogue;
pub mod child;
pub mod cli;
pub mod clients;
pub mod domain;
pub mod files;
pub mod gateway;
pub mod operator;
pub mod orphans;
pub mod recorder;
pub mod report;
pub mod runner;
pub mod server;
pub mod storage;
pub mod telemetry;
pub mod transcoder;
