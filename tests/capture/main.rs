//! Capture against the real thing: `dsn runner` and `dsn agent`, ffmpeg, an RTSP server with digest authentication and
//! RabbitMQ, all on loopback.
//!
//! Needs ffmpeg and rabbitmq-server (Debian packages), Go (for the camera) and root (to mount a disk that can be filled);
//! fails without them, on purpose. Every test has a camera, a spool and processes of its own and ends them.

mod agent;
mod agent_container;
mod camera;
mod capture_pod;
mod containers;
mod ladder;
mod losses;
mod operator;
mod picture;
mod runner;
mod spool;
mod storage;
#[path = "../tools/mod.rs"]
mod tools;

use tools::{broker, wait};
