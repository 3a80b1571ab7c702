//! Fifty edits in five seconds, and the operator dies in the middle of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{DECLARED, lab::Lab, site::Site};

const EDITS: u32 = 50;
const WITHIN: Duration = Duration::from_secs(5);

/// The n-th edit: another assignment, with or without a ladder, running, paused or stopped.
fn edit(n: u32) -> Value {
    let rendition = json!({"name": "low", "height": 240, "videoBitrateKbps": 300});
    let ladder = json!({"sidecar": {"renditions": [rendition]}});
    let state = ["Paused", "Stopped", "Running"][(n % 3) as usize];
    json!({"spec": {
        "state": state,
        "capture": {"segmentSeconds": 2 + n % 7},
        "storage": {"retention": format!("{n}h")},
        "transcode": if n.is_multiple_of(2) { Value::Null } else { ladder },
    }})
}

/// B3: whoever turns every knob at once ends with the last position of each, as if there had been no other.
pub fn b3_fifty_edits_in_five_seconds_end_as_the_last_one_alone(site: &Site) {
    let alone = Lab::new(site, "last-edit");
    alone.declare(DECLARED);
    alone.edit("Pipeline", "hq", &edit(EDITS));
    alone.start();
    let last = alone.rest();

    let lab = Lab::new(site, "fifty-edits");
    lab.start();
    lab.declare(DECLARED);
    lab.rest();
    let begun = Instant::now();
    for n in 1..=EDITS {
        lab.edit("Pipeline", "hq", &edit(n));
        if n == EDITS / 2 {
            lab.kill();
            lab.revive();
        }
        // Spread out, so that the operator is at work in between.
        let due = WITHIN * 9 / 10 * n / EDITS;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    assert!(begun.elapsed() <= WITHIN, "{:?}", begun.elapsed());
    lab.rests_at(&last, "after fifty edits");
    assert_eq!(lab.deaths(), 1);
}
