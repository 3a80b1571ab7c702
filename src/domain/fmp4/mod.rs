//! Reads of fragmented MP4 (ISO/IEC 14496-12) exactly what we publish: how long a segment is, where its keyframes lie,
//! and what its init section and its own first frame say about codecs and picture size.
//!
//! The bytes come from a process that reads hostile input: nothing here trusts a length, allocates by one, or panics.
//! Not here: decoding, rewriting, or whether the picture is any good.

mod init;
mod picture;
mod segment;

pub use init::{Init, Track, TrackKind, parse_init};
pub use picture::picture;
pub use segment::Scanner;

/// The bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A length that leads beyond the end, or a missing field.
    #[error("a box {0:?} is cut short")]
    Short(&'static str),
    /// Something needed is not there.
    #[error("there is no {0}")]
    Missing(&'static str),
    /// More than any camera produces.
    #[error("there are too many or too large {0}")]
    Excessive(&'static str),
}

/// A cursor that never reads beyond its end.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    fn new(what: &'static str, rest: &'a [u8]) -> Self {
        Self { rest, what }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Short(self.what))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Short(self.what))
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// Version and flags of a full box.
    fn version_and_flags(&mut self) -> Result<(u8, u32), Malformed> {
        let word = self.u32()?;
        Ok((word.to_be_bytes()[0], word & 0x00ff_ffff))
    }
}

/// Type and content of a box.
type TypedBox<'a> = ([u8; 4], &'a [u8]);

/// The next box of a container, `None` at its end.
fn next_box<'a>(container: &mut Cursor<'a>) -> Result<Option<TypedBox<'a>>, Malformed> {
    if container.rest.is_empty() {
        return Ok(None);
    }
    let size = container.u32()?;
    let kind = container.array()?;
    let content = match size {
        0 => container.rest.len(),
        1 => {
            let large = container.u64()?;
            usize::try_from(large).ok().and_then(|s| s.checked_sub(16)).ok_or(Malformed::Short(container.what))?
        }
        _ => (size as usize).checked_sub(8).ok_or(Malformed::Short(container.what))?,
    };
    Ok(Some((kind, container.take(content)?)))
}

/// The first box of a kind inside a container.
fn find<'a>(what: &'static str, kind: [u8; 4], container: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let mut cursor = Cursor::new(what, container);
    while let Some((found, content)) = next_box(&mut cursor)? {
        if found == kind {
            return Ok(content);
        }
    }
    Err(Malformed::Missing(what))
}

#[cfg(test)]
mod tests;
