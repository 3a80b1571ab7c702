//! Somebody deletes the queues that are there for all.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use dsn::domain::control::{
    Envelope, HEARTBEAT_QUEUE, InstanceReport, OPERATOR_QUEUE, Phase, Problem, RECORDER_HELLO_KEY, RECORDER_QUEUE,
};
use jiff::Timestamp;
use serde_json::json;

use crate::{Fresh, STEPS, lab::Lab, site::Site, tools::wait::eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// The recorder, whose consumer ends with its queue, begins anew by saying hello; nothing else tells that it is gone. The
/// operator's own consumers end with their queues, and it begins anew by itself.
pub fn c1_a_deleted_queue_comes_back_and_its_messages_are_heard_again(site: &Site, fresh: &Fresh) {
    let lab = Lab::new(site, "queueless");
    lab.start();
    STEPS[0](&lab);
    lab.settles_at(&fresh.states[0], "before a queue is deleted");

    lab.delete_queue(RECORDER_QUEUE);
    lab.say(RECORDER_HELLO_KEY, &json!({}));
    eventually("the recorder's queue comes back", PATIENCE, || lab.log(), || lab.consumers(RECORDER_QUEUE).map(drop));

    let instance = lab.instance("hq", "gate");
    for (queue, event, reason) in
        [(OPERATOR_QUEUE, "state", "Unauthorized"), (HEARTBEAT_QUEUE, "heartbeat", "BadStream")]
    {
        lab.delete_queue(queue);
        eventually("the operator listens again", PATIENCE, || lab.log(), || (lab.consumers(queue)? == 1).then_some(()));
        let problem = Problem { reason: reason.to_owned(), message: "as said by the camera".to_owned() };
        let report = InstanceReport {
            revision: u64::MAX,
            phase: Phase::Failing,
            problem: Some(problem),
            ..InstanceReport::default()
        };
        let said = Envelope::unordered(instance.to_string(), event, Timestamp::now(), report);
        lab.say(&format!("evt.{instance}.{event}"), &serde_json::to_value(&said).expect("JSON"));
        let found = || lab.condition("Camera", "gate", "Capturing");
        eventually(
            "what is said is heard",
            PATIENCE,
            || format!("{:?}\n{}", found(), lab.log()),
            || (found()?[1] == reason).then_some(()),
        );
    }
    lab.rests_at(&fresh.states[0], "after its queues were deleted");
}

impl Lab<'_> {
    /// Somebody deletes a queue.
    fn delete_queue(&self, queue: &str) {
        self.at_broker(&Method::DELETE, &self.queue(queue), None);
    }

    /// How many listen to a queue, if there is one.
    fn consumers(&self, queue: &str) -> Option<u64> {
        let (status, row) = self.site().management(Method::GET, &self.queue(queue), None);
        (status == StatusCode::OK).then(|| row["consumers"].as_u64().unwrap_or_default())
    }
}
