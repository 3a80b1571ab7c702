//! SIGKILL at the writes of the operator, to the API server and to the broker.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::{
    Fresh, STEPS,
    lab::{Lab, Way},
    site::Site,
    traffic::Moment,
};

/// How many sequences go on at once: most of the time each of them waits.
const LABS: usize = 12;

/// Where the operator dies.
#[derive(Clone, Copy, Debug)]
struct Death {
    way: Way,
    write: u32,
    moment: Moment,
}

/// SIGKILL at every write of a step: before, between commit and answer, or after the answer, in turns; with `all` at each of
/// these moments. A sequence has one death in each of its steps; its steps end as fresh, and it ends at rest.
pub fn killed_at_any_write(site: &Site, fresh: &Fresh, all: bool) {
    let deaths: Vec<Vec<Death>> = fresh.writes.iter().map(|writes| deaths(writes, all)).collect();
    let sequences = deaths.iter().map(Vec::len).max().unwrap_or_default();
    eprintln!("writes of a fresh run by step, to API server, management API and broker: {:?}", fresh.writes);
    let (next, reached) = (AtomicUsize::new(0), Mutex::new((0, 0)));
    std::thread::scope(|scope| {
        for _ in 0..LABS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Relaxed);
                    if n >= sequences {
                        return;
                    }
                    let deaths = deaths.iter().map(|deaths| deaths.get(n).copied());
                    let (tried, died) = sequence(site, fresh, n, deaths);
                    let mut reached = reached.lock().expect("nobody panics with it");
                    *reached = (reached.0 + tried, reached.1 + died);
                }
            });
        }
    });
    let (tried, died) = reached.into_inner().expect("nobody panics with it");
    eprintln!("{died} deaths at {tried} writes in {sequences} sequences");
    // A broker that answers late or early makes a status more or less.
    assert!(died * 10 >= tried * 9, "{died} of {tried} deaths were reached");
}

fn deaths(writes: &[u32; 3], all: bool) -> Vec<Death> {
    let writes =
        Way::ALL.into_iter().zip(writes).flat_map(|(way, writes)| (1..=*writes).map(move |write| (way, write)));
    let at = move |(n, (way, write)): (usize, (Way, u32))| {
        let moments = Moment::ALL.into_iter().enumerate().filter(move |(m, _)| all || *m == n % 3);
        moments.map(move |(_, moment)| Death { way, write, moment })
    };
    writes.enumerate().flat_map(at).collect()
}

/// All steps, with a death in each of them; at how many writes it was to die, and at how many it did.
fn sequence(site: &Site, fresh: &Fresh, n: usize, deaths: impl Iterator<Item = Option<Death>>) -> (u32, u32) {
    let lab = Lab::new(site, &format!("kill-{n}"));
    let mut tried = 0;
    for ((step, does), death) in STEPS.iter().enumerate().zip(deaths) {
        let what = format!("sequence {n}, step {step}, {death:?}");
        let before = lab.deaths();
        lab.let_be();
        if let Some(Death { way, write, moment }) = death {
            lab.dies_at(way, write, moment);
            tried += 1;
        }
        if step == 0 {
            lab.start();
        }
        does(&lab);
        // With something to look after, and in the end, it rests.
        if step == 0 {
            lab.settles_at(&fresh.states[step], &what);
        } else {
            lab.rests_at(&fresh.states[step], &what);
        }
        let reached = death.is_some_and(|death| !lab.traffic(death.way).is_armed());
        assert_eq!(lab.deaths() - before, u32::from(reached), "{what}");
    }
    (tried, lab.deaths())
}
