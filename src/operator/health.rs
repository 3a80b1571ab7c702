//! How one capture instance is, concluded from all that is known of it: its own word, its pod, its camera's Secret.
//!
//! Pure. The Pipeline's rows and the Camera's `Capturing` are both made of it, so they tell the same story.

use super::broker::fleet::View;
use crate::{
    api::pipeline::PipelineState,
    domain::control::{Activity, InstanceReport, Phase, Problem},
};

/// How an instance is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Tries and fails.
    Failing,
    /// Nobody knows.
    Unknown,
    /// No word yet, and none was due: what was known before still holds.
    Awaiting,
    /// On its way to the first picture.
    Starting,
    /// Uploads what is left and goes.
    Draining,
    /// Rests as told.
    Paused,
    /// Pictures arrive.
    Running,
}

impl State {
    /// The word in status rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "Failing",
            Self::Unknown => "Unknown",
            Self::Awaiting | Self::Starting => "Starting",
            Self::Draining => "Draining",
            Self::Paused => "Paused",
            Self::Running => "Running",
        }
    }
}

/// State with reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// How it is.
    pub state: State,
    /// Stable word.
    pub reason: String,
    /// What is wrong and what to do, if anything is.
    pub message: Option<String>,
}

/// Everything known of an instance.
#[derive(Clone, Debug)]
pub struct Signs<'a> {
    /// Wanted activity.
    pub activity: Activity,
    /// State of its Pipeline.
    pub pipeline: PipelineState,
    /// Its own word.
    pub view: &'a View,
    /// What keeps its pod from running.
    pub pod: Option<Problem>,
    /// What is wrong with its camera's Secret.
    pub secret: Option<Problem>,
    /// Why the broker is away, if it is.
    pub broker: Option<&'a str>,
    /// Where to look: name of its Deployment and namespace.
    pub deployment: String,
    /// Namespace.
    pub namespace: String,
}

fn health(state: State, reason: impl Into<String>, message: impl Into<Option<String>>) -> Health {
    Health { state, reason: reason.into(), message: message.into() }
}

fn failing(problem: Problem) -> Health {
    health(State::Failing, problem.reason, problem.message)
}

/// Concludes.
pub fn of(signs: &Signs) -> Health {
    if signs.pipeline == PipelineState::Stopped && signs.activity != Activity::Draining {
        return health(State::Paused, "Stopped", None);
    }
    match signs.view {
        View::Fresh(report) => of_report(signs, report),
        View::Awaiting | View::Silent => match (&signs.secret, &signs.pod) {
            (_, Some(pod)) => failing(pod.clone()),
            (Some(secret), None) => failing(secret.clone()),
            (None, None) => silent(signs),
        },
    }
}

fn of_report(signs: &Signs, report: &InstanceReport) -> Health {
    let word = |message: &str| Some(message.to_owned());
    match report.phase {
        Phase::Running => health(State::Running, "Capturing", report.problem.as_ref().map(|p| p.message.clone())),
        _ if signs.activity == Activity::Draining => {
            health(State::Draining, "Draining", word("leaving this Pipeline: the last footage is being uploaded"))
        }
        Phase::Paused if signs.activity == Activity::Paused => health(State::Paused, "Paused", None),
        // A person can do more about a missing Secret than about what follows from it.
        _ if signs.secret.is_some() => signs.secret.clone().map_or_else(|| silent(signs), failing),
        Phase::Failing => match &report.problem {
            Some(problem) => failing(problem.clone()),
            None => health(State::Failing, "CaptureFailing", word("ffmpeg ends again and again")),
        },
        Phase::Starting | Phase::Paused | Phase::Draining | Phase::Drained => {
            let message = report.problem.as_ref().map_or("waiting for the first picture", |p| p.message.as_str());
            health(State::Starting, "Starting", word(message))
        }
    }
}

/// How a transcoder is, by its own word; what keeps its pod from running is said of the capture beside it.
pub fn of_transcoder(activity: Activity, pipeline: PipelineState, view: &View) -> Health {
    if pipeline == PipelineState::Stopped && activity != Activity::Draining {
        return health(State::Paused, "Stopped", None);
    }
    match view {
        View::Fresh(report) => match (report.phase, &report.problem) {
            (Phase::Failing, Some(problem)) => failing(problem.clone()),
            (Phase::Failing, None) => health(State::Failing, "Failing", Some("ffmpeg ends again and again".to_owned())),
            (Phase::Running, problem) => {
                let reason = problem.as_ref().map_or("Transcoding", |problem| problem.reason.as_str()).to_owned();
                health(State::Running, reason, problem.as_ref().map(|problem| problem.message.clone()))
            }
            (Phase::Paused, _) => health(State::Paused, "Paused", None),
            (Phase::Draining | Phase::Drained, _) => health(State::Draining, "Draining", None),
            (Phase::Starting, _) => {
                health(State::Starting, "Starting", Some("waiting for the first segment".to_owned()))
            }
        },
        View::Awaiting => health(State::Awaiting, "Starting", Some("waiting for the first report".to_owned())),
        View::Silent => health(State::Unknown, "Silent", Some("no word from the capture pod".to_owned())),
    }
}

fn silent(signs: &Signs) -> Health {
    if *signs.view == View::Awaiting {
        return health(State::Awaiting, "Starting", Some("waiting for the capture pod's first report".to_owned()));
    }
    match signs.broker {
        Some(_) => health(
            State::Unknown,
            "BrokerUnreachable",
            "no word from the capture pod, because the broker is not reachable; capture goes on without it".to_owned(),
        ),
        None => health(
            State::Unknown,
            "Silent",
            format!(
                "no word from the capture pod for more than 35 s; see kubectl -n {} logs deploy/{} -c agent",
                signs.namespace, signs.deployment
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(phase: Phase, problem: Option<&str>) -> View {
        View::Fresh(Box::new(InstanceReport {
            phase,
            problem: problem.map(|reason| Problem { reason: reason.into(), message: format!("{reason}!") }),
            ..InstanceReport::default()
        }))
    }

    #[test]
    fn truth_table() {
        use State::{Awaiting, Draining, Failing, Paused, Running, Starting, Unknown};
        let secret = || Some(Problem { reason: "SecretMissing".into(), message: "create Secret".into() });
        let pod = || Some(Problem { reason: "ImagePullBackOff".into(), message: "no image".into() });
        let table = [
            ("runs", Activity::Running, report(Phase::Running, None), None, None, None, Running, "Capturing"),
            (
                "fails",
                Activity::Running,
                report(Phase::Failing, Some("Unauthorized")),
                None,
                None,
                None,
                Failing,
                "Unauthorized",
            ),
            (
                "no secret",
                Activity::Running,
                report(Phase::Failing, Some("CredentialsMissing")),
                secret(),
                None,
                None,
                Failing,
                "SecretMissing",
            ),
            (
                "secret gone, still runs",
                Activity::Running,
                report(Phase::Running, None),
                secret(),
                None,
                None,
                Running,
                "Capturing",
            ),
            ("starts", Activity::Running, report(Phase::Starting, None), None, None, None, Starting, "Starting"),
            ("resumes", Activity::Running, report(Phase::Paused, None), None, None, None, Starting, "Starting"),
            ("paused", Activity::Paused, report(Phase::Paused, None), None, None, None, Paused, "Paused"),
            ("pausing", Activity::Paused, report(Phase::Running, None), None, None, None, Running, "Capturing"),
            ("leaves", Activity::Draining, report(Phase::Draining, None), None, None, None, Draining, "Draining"),
            ("new", Activity::Running, View::Awaiting, None, None, None, Awaiting, "Starting"),
            ("new, no image", Activity::Running, View::Awaiting, None, pod(), None, Failing, "ImagePullBackOff"),
            ("new, no secret", Activity::Running, View::Awaiting, secret(), None, None, Failing, "SecretMissing"),
            ("silent", Activity::Running, View::Silent, None, None, None, Unknown, "Silent"),
            ("silent, no broker", Activity::Running, View::Silent, None, None, Some("x"), Unknown, "BrokerUnreachable"),
        ];
        for (case, activity, view, secret, pod, broker, state, reason) in table {
            let found = of(&Signs {
                activity,
                pipeline: PipelineState::Running,
                view: &view,
                pod,
                secret,
                broker,
                deployment: "d".into(),
                namespace: "n".into(),
            });
            assert_eq!((found.state, found.reason.as_str()), (state, reason), "{case}");
        }
    }

    #[test]
    fn a_stopped_pipeline_rests_whatever_was_said_last() {
        let found = of(&Signs {
            activity: Activity::Paused,
            pipeline: PipelineState::Stopped,
            view: &View::Silent,
            pod: None,
            secret: None,
            broker: None,
            deployment: "d".into(),
            namespace: "n".into(),
        });
        assert_eq!((found.state, found.reason.as_str()), (State::Paused, "Stopped"));
    }
}
