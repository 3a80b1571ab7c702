//! `CamerasAccepted`: every camera that is named or selected is taken.

use crate::{
    api::condition::{Truth, Verdict},
    operator::pipeline::plan::{Plan, Refused},
};

/// Type of the condition.
pub const KIND: &str = "CamerasAccepted";

/// Concludes from the plan.
pub fn condition(plan: &Plan) -> Verdict {
    let verdict = |truth, reason, message: String| Verdict::new(KIND, truth, reason, message);
    let more = match plan.refused.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    // A name that leads nowhere is the easiest to cure: first.
    let worst = plan.refused.iter().min_by_key(|refused| !matches!(refused, Refused::NotFound { .. }));
    match worst {
        Some(Refused::NotFound { camera }) => verdict(
            Truth::False,
            "CameraNotFound",
            format!(
                "there is no Camera {camera:?} in namespace {:?}: create it, or take it out of spec.cameras.names{more}",
                plan.pipeline.namespace
            ),
        ),
        Some(Refused::ClaimedBy { camera, pipeline }) => verdict(
            Truth::False,
            "ClaimedBy",
            format!(
                "Camera {camera:?} is recorded by the older Pipeline {pipeline:?}: take it out of one of the two{more}"
            ),
        ),
        None if plan.selected == 0 => verdict(
            Truth::False,
            "NoCamerasSelected",
            format!(
                "spec.cameras.selector matches no Camera in namespace {:?}: label a Camera or change the selector \
                 (selector: {{}} takes every Camera)",
                plan.pipeline.namespace
            ),
        ),
        None => verdict(Truth::True, "AllAccepted", "every selected camera is accepted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{
        fixture,
        pipeline::plan::tests::{observed, plan},
    };

    #[test]
    fn truth_table() {
        let mut contested = observed(&["a"]);
        contested.pipelines.push(fixture::pipeline("older").created(-5).selecting_all().arc());
        for (plan, truth, reason) in [
            (plan(&fixture::pipeline("p").selecting_all(), &observed(&["a"])), Truth::True, "AllAccepted"),
            (plan(&fixture::pipeline("p").matching("site", "x"), &observed(&["a"])), Truth::False, "NoCamerasSelected"),
            (plan(&fixture::pipeline("p").naming(&["b"]), &observed(&["a"])), Truth::False, "CameraNotFound"),
            (plan(&fixture::pipeline("p").naming(&["a"]), &contested), Truth::False, "ClaimedBy"),
            (plan(&fixture::pipeline("p").naming(&["a", "b"]), &contested), Truth::False, "CameraNotFound"),
        ] {
            let found = condition(&plan);
            assert_eq!((found.truth, &*found.reason), (truth, reason), "{}", found.message);
        }
    }
}
