//! `ControlPlane`: instances are reached by message. When it doesn't hold, capture goes on with the last assignment.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::{
        condition::{Truth, Verdict},
        pipeline::PipelineState,
    },
    domain::name::AGENT_SECRET,
    operator::{
        broker::{
            fleet::{Link, View},
            wanted::Control,
        },
        pipeline::{
            observe::Observed,
            plan::{Instance, Plan},
        },
    },
};

/// Type of the condition.
pub const KIND: &str = "ControlPlane";
/// How long an instance that is there may take to apply an assignment.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// Concludes from the broker, the queues and the acknowledgements. A new leader knows of none of them yet, and what its
/// predecessor said still holds.
pub fn condition(plan: &Plan, observed: &Observed, agent_secret_stale: bool, previous: Option<&Condition>) -> Verdict {
    let verdict = |truth, reason, message: String| Verdict::new(KIND, truth, reason, message);
    if agent_secret_stale {
        return verdict(
            Truth::False,
            "AgentSecretStale",
            format!(
                "Secret {AGENT_SECRET:?} in namespace {:?} is for another broker or installation: delete it, the operator \
                 makes it anew",
                plan.pipeline.namespace
            ),
        );
    }
    if let Link::Down(_) = observed.link {
        return match &observed.trouble {
            Some(trouble) => verdict(
                Truth::Unknown,
                trouble.reason,
                format!("{}; instances go on with their last assignment", trouble.message),
            ),
            None => previous.map_or_else(
                || verdict(Truth::Unknown, "Connecting", "connecting to the broker".to_owned()),
                |said| Verdict::again(KIND, said),
            ),
        };
    }
    for instance in &plan.instances {
        for (uid, ..) in instance.participants() {
            if let Some(Control::Failed(why)) = observed.views.get(&uid).map(|view| &view.control) {
                return verdict(Truth::False, "QueueFailed", format!("{}: {why}", instance.camera.name));
            }
        }
    }
    let mut pending = plan
        .instances
        .iter()
        .flat_map(Instance::participants)
        .map(|(uid, ..)| observed.views.get(&uid))
        .filter(|view| view.is_none_or(|view| view.control == Control::Pending))
        .peekable();
    if pending.peek().is_some() {
        if let Some(said) = previous.filter(|said| said.status == Truth::True.as_str())
            && pending.all(|view| view.is_none_or(|view| view.view == View::Awaiting))
        {
            return Verdict::again(KIND, said);
        }
        return verdict(Truth::Unknown, "Pending", "queues are being made and assignments sent".to_owned());
    }
    let deaf = plan.instances.iter().find(|instance| {
        plan.state != PipelineState::Stopped
            && instance.participants().any(|(uid, revision, issued_at)| {
                observed.now.duration_since(issued_at) > PATIENCE
                    && observed
                        .views
                        .get(&uid)
                        .is_some_and(|view| matches!(view.view, View::Fresh(_)) && view.applied < revision)
            })
    });
    if let Some(instance) = deaf {
        return verdict(
            Truth::False,
            "NotAcknowledged",
            format!(
                "{}: the agent has not applied its latest assignment for more than 30 s; see kubectl -n {} logs deploy/{} \
                 -c agent",
                instance.camera.name, plan.pipeline.namespace, instance.name
            ),
        );
    }
    verdict(Truth::True, "InPlace", "queues are in place and assignments sent".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{
        broker::{InstanceView, Trouble},
        fixture::{self, at},
        pipeline::plan::tests::{carried_out, observed, plan},
    };

    #[test]
    fn truth_table() {
        let fixture = fixture::pipeline("p").selecting_all();
        let plan = plan(&fixture, &observed(&["lobby"]));
        let down = Link::Down(at(0));
        let up = Link::Up(at(0));
        let trouble = Some(Trouble { reason: "BrokerUnreachable", message: "no route".into() });
        let failed = Control::Failed("no".into());
        let latest = plan.instances[0].assignment.envelope.revision;
        let table = [
            (false, up, None, Control::InPlace, latest, Truth::True, "InPlace"),
            (true, up, None, Control::InPlace, latest, Truth::False, "AgentSecretStale"),
            (false, down, trouble, Control::InPlace, latest, Truth::Unknown, "BrokerUnreachable"),
            (false, down, None, Control::Pending, 0, Truth::Unknown, "Connecting"),
            (false, up, None, Control::Pending, 0, Truth::Unknown, "Pending"),
            (false, up, None, failed, 0, Truth::False, "QueueFailed"),
            (false, up, None, Control::InPlace, latest - 1, Truth::False, "NotAcknowledged"),
        ];
        for (stale, link, trouble, control, applied, truth, reason) in table {
            let mut seen = carried_out(&plan, &observed(&["lobby"]));
            (seen.link, seen.trouble, seen.now) = (link, trouble, at(60));
            let view = View::Fresh(Box::default());
            seen.views.insert(plan.instances[0].uid, InstanceView { view, control, applied });
            let found = condition(&plan, &seen, stale, None);
            assert_eq!((found.truth, &*found.reason), (truth, reason));
        }
    }
}
