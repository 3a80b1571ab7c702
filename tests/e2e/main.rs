//! The whole product on a real cluster, seen from outside (requirement rows K1–K4, K6, C1, C3, C4, V1, V2, V7, V8, V10).
//!
//! Real Kubernetes, ffmpeg, kubo, ipfs-cluster, RabbitMQ and RTSP cameras; asserted with independent tools: kubectl,
//! ffmpeg, ffprobe, ipfs, ipfs-cluster-ctl, an AMQP subscriber of its own. Run by `make e2e` with one thread: the tests
//! share one installation and run in the order of their modules' names, so that what only takes time (the shared
//! recording) passes while other tests work, and what takes things away comes last.

mod browser;
mod footage;
mod frames;
mod kube;
mod master;
mod subscriber;
mod world;

mod t1_declared;
mod t2_replayed;
mod t3_stored;
mod t4_gitops;
mod t4_steered;
mod t5_containers;
mod t5_faults;
mod t5_hands;
mod t5_ladder;
mod t5_secrets;
mod t5_survived;
mod t6_removed;
