//! Room for footage. Looked after here because ffmpeg does not: what it writes to a full disk is cut short or empty, and it
//! goes on as if nothing were the matter.
//!
//! Not here: making room (the agent drops the oldest footage beyond its share long before this).

use std::path::Path;

use rustix::fs::{StatVfs, statvfs};

/// What is left at least of the volume, as a part of it: room for a segment that is being written, and for those who have
/// to say that it is full.
const PART: u64 = 32;
/// The same for a large one.
const ENOUGH: u64 = 64 << 20;

/// Is there room left? What can't be told counts as yes.
pub fn is_left(spool: &Path) -> bool {
    statvfs(spool).map_or(true, |StatVfs { f_blocks, f_bavail, f_frsize, .. }| {
        is_enough(f_blocks.saturating_mul(f_frsize), f_bavail.saturating_mul(f_frsize))
    })
}

/// Pure: do so many free bytes of so many suffice?
fn is_enough(all: u64, free: u64) -> bool {
    free >= (all / PART).min(ENOUGH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capture_stops_while_there_is_room_to_say_so() {
        for (all, least) in [(64 << 20, 2 << 20), (10 << 30, 64 << 20), (4 << 40, 64 << 20)] {
            assert!(is_enough(all, least) && !is_enough(all, least - 1), "{all}");
        }
        // The agent keeps to 85 % of what was asked for, and a file system takes its part of the smallest spool there may be.
        assert!(is_enough(58 << 20, (58 << 20) - (64 << 20) / 100 * 85));
        assert!(is_left(Path::new("/nowhere")), "nobody knows");
    }
}
