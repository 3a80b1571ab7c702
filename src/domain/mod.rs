//! Pure logic and the types that cross processes: no tokio, no kube client, no HTTP, no SQL.
//!
//! In the order of the flow: what is declared ([`duration`], [`source`]), who takes part ([`id`], [`name`]),
//! what they say to each other ([`control`], [`token`]), what ffmpeg is told ([`capture`], [`ladder`]), what it complains about
//! ([`diagnosis`]), what it leaves behind ([`spool`], [`container`], [`fmp4`], [`mpegts`], [`media`], [`codec`],
//! [`picture`], [`clock`], [`session`], [`segment`], [`cid`]), where that is kept ([`pin`], [`retention`]) and how it is
//! played ([`live`], [`playlist`]).

pub mod capture;
pub mod cid;
pub mod clock;
pub mod codec;
pub mod container;
pub mod control;
pub mod coverage;
pub mod diagnosis;
pub mod duration;
pub mod fmp4;
pub mod group;
pub mod id;
pub mod identity;
pub mod ladder;
pub mod ledger;
pub mod live;
pub mod media;
pub mod mpegts;
pub mod name;
mod parameters;
pub mod picture;
pub mod pin;
pub mod playlist;
pub mod quantity;
pub mod retention;
pub mod rollup;
pub mod segment;
pub mod session;
pub mod source;
pub mod spool;
pub mod token;
pub mod upload;
