//! What all benchmarks share: repeated measurements, what a process uses, and the table that is published.
//!
//! A figure is a median of rounds with the lowest and highest beside it; the sides of a comparison take turns, so that
//! whatever else the machine does befalls all of them.

#![allow(dead_code, unused_imports, unused_macros, reason = "each benchmark uses its part")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

pub mod footage;
pub mod report;
pub mod usage;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

/// One row of a table.
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$(($cell).to_string()),*] };
}
pub(crate) use row;

/// Several measurements of one thing.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// One measurement more.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that so much of all does not exceed, `0.5` being the median; of an even number the mean of the two.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
        let place = share * last as f64;
        let (low, high) = (sorted[index(place.floor())], sorted[index(place.ceil())]);
        low + (high - low) * place.fract()
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Median and extremes with so many decimals.
    pub fn text(&self, decimals: usize) -> String {
        let (low, high) = (self.quantile(0.0), self.quantile(1.0));
        format!("{:.decimals$} ({low:.decimals$}–{high:.decimals$})", self.median())
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place within a list")]
fn index(place: f64) -> usize {
    place as usize
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(1))
    }
}

/// Does `work` for 0..`count`, so many at once, each on a task of its own.
pub async fn each<F, Fut>(count: usize, at_once: usize, work: F)
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let (next, work) = (Arc::clone(&next), work.clone());
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                work(number).await;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("a worker ends well");
    }
}

/// Waits until `look` finds something; says what was last seen when it does not come about.
pub async fn until<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => panic!("{what}: not within {within:?}: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The parts asked for on the command line, or all. (Cargo adds options of its own.)
pub fn wanted(parts: &[&'static str]) -> Vec<&'static str> {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for word in &asked {
        assert!(parts.contains(&word.as_str()), "no part {word:?}; there are: {}", parts.join(", "));
    }
    parts.iter().copied().filter(|part| asked.is_empty() || asked.iter().any(|word| word == part)).collect()
}

/// How many rounds; `BENCH_ROUNDS` changes it for a quick look.
pub fn rounds(usual: usize) -> usize {
    number("BENCH_ROUNDS", usual)
}

/// How many of what is looked after; `BENCH_SIZE` changes it for a quick look.
pub fn size(usual: usize) -> usize {
    number("BENCH_SIZE", usual)
}

/// How many minutes of rest are watched; `BENCH_MINUTES` changes it for a quick look.
pub fn minutes(usual: usize) -> usize {
    number("BENCH_MINUTES", usual)
}

fn number(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// As the program does before anything else.
pub fn choose_tls_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
