//! Capture against the real thing: `dsn runner`, ffmpeg and an RTSP server with digest authentication on loopback.
//!
//! Needs ffmpeg (Debian package) and mediamtx (`hack/cluster/build-tools mediamtx`); fails without them, on purpose.
//! Every test has a camera, a spool and processes of its own and ends them.

mod camera;
mod capture_pod;
mod runner;
mod wait;
