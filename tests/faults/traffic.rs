//! What the operator writes on one way, to the API server or to the broker, counted; and what goes wrong at a chosen write.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::StatusCode;

/// When, as seen from the server, the operator dies at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The write does not arrive.
    Before,
    /// It is done; the answer does not arrive.
    Committed,
    /// The answer is on its way.
    Answered,
}

impl Moment {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Before, Self::Committed, Self::Answered];
    /// How long an answer is on its way.
    pub const ON_ITS_WAY: Duration = Duration::from_millis(2);
}

/// Kills the operator.
pub type Kill = Box<dyn Fn() + Send>;

/// What goes wrong.
pub enum Fault {
    /// At the n-th write, counted from 1, this is called.
    At(u32, Moment, Kill),
    /// Every n-th write is answered with this status and not forwarded.
    Every(u32, StatusCode),
}

/// What is due at a write.
pub enum Due {
    /// It is forwarded.
    Nothing,
    /// This is the answer.
    Refuse(StatusCode),
    /// This is called.
    Call(Moment, Kill),
}

/// The writes on one way.
pub struct Traffic(Mutex<Counted>);

struct Counted {
    fault: Option<Fault>,
    writes: u32,
    last_write: Instant,
}

impl Default for Traffic {
    fn default() -> Self {
        Self(Mutex::new(Counted { fault: None, writes: 0, last_write: Instant::now() }))
    }
}

impl Traffic {
    /// From now on this goes wrong; counting begins anew.
    pub fn set(&self, fault: Option<Fault>) {
        *self.counted() = Counted { fault, writes: 0, last_write: Instant::now() };
    }

    /// Is what is to happen at a write still to come?
    pub fn is_armed(&self) -> bool {
        self.counted().fault.is_some()
    }

    /// Writes since it was set.
    pub fn writes(&self) -> u32 {
        self.counted().writes
    }

    /// For how long nothing has been written.
    pub fn quiet_for(&self) -> Duration {
        self.counted().last_write.elapsed()
    }

    /// One more write: what is due?
    pub fn write(&self) -> Due {
        let mut counted = self.counted();
        counted.writes += 1;
        counted.last_write = Instant::now();
        let writes = counted.writes;
        match counted.fault.take() {
            Some(Fault::At(n, moment, kill)) if n == writes => Due::Call(moment, kill),
            Some(Fault::Every(n, status)) => {
                counted.fault = Some(Fault::Every(n, status));
                if writes.is_multiple_of(n) { Due::Refuse(status) } else { Due::Nothing }
            }
            other => {
                counted.fault = other;
                Due::Nothing
            }
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
