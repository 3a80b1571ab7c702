//! Awaiting a condition instead of sleeping.

use std::time::{Duration, Instant};

/// Looks until there is something to see; on failure says what was awaited and `context()`.
pub fn eventually<T>(
    what: &str,
    within: Duration,
    context: impl Fn() -> String,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < within, "{what}: not within {within:?}. {}", context());
        std::thread::sleep(Duration::from_millis(50));
    }
}
