//! Reads of an MPEG transport stream (ISO/IEC 13818-1) exactly what we publish: how long a segment is, where its keyframes
//! lie, and what its parameter sets say about codecs and picture size.
//!
//! The bytes come from a process that reads hostile input: nothing here trusts a length, allocates by one, or panics. Not
//! here: decoding, other codecs than H.264, H.265 and AAC, or more than the first picture and the first sound.

mod scanner;
mod times;

pub use scanner::Scanner;
pub use times::PERIOD_US;

/// The bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No packet begins where one should, or the last one is cut short.
    #[error("a packet of the transport stream is cut short or damaged")]
    Packet,
    /// What says where the picture is cannot be believed.
    #[error("a table of the transport stream is damaged")]
    Table,
    /// The packets' counters do not count up.
    #[error("packets of the transport stream are missing")]
    Torn,
    /// Something needed is not there.
    #[error("the transport stream has no {0}")]
    Missing(&'static str),
    /// More than any camera produces.
    #[error("there are too many {0}")]
    Excessive(&'static str),
}

#[cfg(test)]
mod tests;
