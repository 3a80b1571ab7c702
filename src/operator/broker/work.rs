//! Works off the desk at the broker: declares, publishes, removes.
//!
//! Beside the hearing, never before it: a fleet of a thousand is three thousand jobs, each of which waits for the broker.
//! An answer that does not come ends the session; what fails for a reason of its own is tried again. Run by the supervisor.

use std::convert::Infallible;

use futures::{FutureExt, StreamExt, stream};
use jiff::Timestamp;

use super::{
    Concerned, Desk,
    supervisor::{LONGEST_PAUSE, Session, SessionError, Supervisor},
    topology,
    wanted::Job,
};
use crate::{
    clients::{
        broker::{self, Publish},
        broker_admin,
    },
    domain::{
        control::{
            CONTROL_EXCHANGE, EVENTS_EXCHANGE, Envelope, StreamOrphaned, camera_config_key, instance_key,
            instance_queue, stream_config_key, stream_orphaned_key,
        },
        token::Purpose,
    },
    operator::backoff,
    telemetry::chain,
};

/// Jobs under way at once.
const AT_ONCE: usize = 16;

/// Why one job failed.
#[derive(Debug, thiserror::Error)]
enum JobError {
    /// The connection is of no use any more: everything behind would fail as well.
    #[error(transparent)]
    Lost(broker::Error),
    #[error(transparent)]
    Broker(broker::Error),
    #[error(transparent)]
    Admin(#[from] broker_admin::Error),
}

impl Supervisor {
    /// Does what lies on the desk, for as long as the connection lasts.
    pub(super) async fn work(&self, session: &Session) -> Result<Infallible, SessionError> {
        let mut failures = 0;
        let mut retry_at = None;
        loop {
            // Everything that makes work wakes the desk; what failed waits for its time.
            tokio::select! {
                () = self.desk().woken() => {}
                () = sleep_until(retry_at) => {}
            }
            let (well, concerned) = work_off(self.desk(), |job| self.job(session, job).boxed()).await?;
            self.trigger(concerned).await;
            failures = if well { 0 } else { failures + 1 };
            retry_at =
                (failures > 0).then(|| tokio::time::Instant::now() + backoff::pause(failures).min(LONGEST_PAUSE));
        }
    }

    async fn job(&self, session: &Session, job: Job) -> (Job, Result<(), JobError>) {
        let done = self.perform(session, &job).await.map_err(|error| match error {
            JobError::Broker(error @ (broker::Error::Timeout | broker::Error::Blocked)) => JobError::Lost(error),
            JobError::Broker(error) if !session.broker.is_open() => JobError::Lost(error),
            other => other,
        });
        if done.is_ok() {
            self.ctx.metrics.published(job.word());
        }
        (job, done)
    }

    async fn perform(&self, session: &Session, job: &Job) -> Result<(), JobError> {
        let now = Timestamp::now();
        let broker = &session.broker;
        let done = match job {
            Job::User(namespace) => {
                let password = self.ctx.master.derive(Purpose::Broker, namespace);
                let user = topology::agent_user(namespace);
                let permissions = topology::agent_permissions();
                return Ok(session.admin.ensure_user(&user, &password, topology::AGENT_TAG, &permissions).await?);
            }
            Job::Declare(instance) => topology::declare_instance(broker, session.queue_type, instance).await,
            Job::Assign(instance) => {
                let key = instance_key(instance.uid, instance.command);
                broker.publish_text(CONTROL_EXCHANGE, &key, instance.text.as_bytes(), Publish::mandatory()).await
            }
            Job::Stream(config, revision) => {
                let mut message = Envelope::unordered(config.stream.to_string(), "stream", now, &**config);
                message.revision = *revision;
                let key = stream_config_key(config.stream);
                broker.publish(EVENTS_EXCHANGE, &key, &message, Publish::mandatory()).await
            }
            Job::Orphan(stream) => {
                let message =
                    Envelope::unordered(stream.to_string(), "orphan", now, StreamOrphaned { stream: *stream });
                broker.publish(EVENTS_EXCHANGE, &stream_orphaned_key(*stream), &message, Publish::mandatory()).await
            }
            Job::Camera(config, revision) => {
                let mut message = Envelope::unordered(config.camera.uid.clone(), "camera", now, config);
                message.revision = *revision;
                let key = camera_config_key(&config.camera.uid);
                broker.publish(EVENTS_EXCHANGE, &key, &message, Publish::mandatory()).await
            }
            Job::DeleteQueue(uid) => broker.delete_queue(&instance_queue(*uid)).await,
        };
        done.map_err(JobError::Broker)
    }
}

/// Does what lies on the desk, kind after kind, those of one kind side by side: whether all went well, and whom it concerns.
async fn work_off<F>(desk: &Desk, perform: impl Fn(Job) -> F) -> Result<(bool, Concerned), broker::Error>
where
    F: Future<Output = (Job, Result<(), JobError>)>,
{
    let mut concerned = Concerned::default();
    let mut well = true;
    for kind in desk.jobs().chunk_by(|a, b| a.word() == b.word()) {
        let mut working = stream::iter(kind.to_vec()).map(&perform).buffer_unordered(AT_ONCE);
        while let Some((job, result)) = working.next().await {
            match &job {
                Job::Declare(instance) | Job::Assign(instance) => {
                    concerned.pipelines.insert(instance.pipeline.clone());
                }
                Job::User(namespace) => concerned.pipelines.extend(desk.pipelines_in(namespace)),
                Job::Stream(..) | Job::Orphan(_) | Job::Camera(..) | Job::DeleteQueue(_) => {}
            }
            match result {
                Ok(()) => desk.done(&job),
                Err(JobError::Lost(error)) => return Err(error),
                Err(error) => {
                    well = false;
                    tracing::warn!(job = job.word(), error = chain(&error), "failed at the broker; trying again");
                    if let (Job::Assign(instance), JobError::Broker(broker::Error::Unroutable { .. })) = (&job, &error)
                    {
                        desk.queue_missing(instance.uid);
                    } else {
                        desk.failed(&job, &chain(&error));
                    }
                }
            }
        }
    }
    Ok((well, concerned))
}

/// Until then; for ever when there is no such time.
async fn sleep_until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::operator::broker::wanted::fixture;

    fn desk_of(instances: u32) -> Desk {
        let desk = Desk::new(Timestamp::now());
        for number in 0..instances {
            desk.want_instance(fixture::numbered(number), Timestamp::now());
        }
        desk
    }

    /// Three thousand jobs once waited ten seconds each, one after the other, while nothing was heard.
    #[tokio::test]
    async fn a_broker_that_does_not_answer_is_given_up_after_one_wait() {
        let desk = desk_of(1000);
        let asked = Cell::new(0);
        let ended = work_off(&desk, |job| {
            asked.set(asked.get() + 1);
            async move { (job, Err(JobError::Lost(broker::Error::Timeout))) }
        })
        .await;
        assert!(matches!(ended, Err(broker::Error::Timeout)), "{ended:?}");
        assert!(asked.get() <= AT_ONCE, "{} were asked for", asked.get());
    }

    #[tokio::test]
    async fn the_recorder_knows_a_stream_before_its_agent_can_speak() {
        let desk = desk_of(40);
        let done = &RefCell::new(Vec::new());
        let (well, concerned) = work_off(&desk, |job| async move {
            // Some of the later ones are done before the earlier ones.
            let turns = done.borrow().len() % 3;
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            done.borrow_mut().push(job.word());
            (job, Ok(()))
        })
        .await
        .expect("the broker answers");
        assert!(well && concerned.pipelines.len() == 40, "{concerned:?}");
        let mut done = done.take();
        done.dedup();
        assert_eq!(done, ["stream", "declare", "assignment"]);
        assert!(desk.jobs().is_empty());
    }
}
