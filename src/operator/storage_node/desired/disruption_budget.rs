//! One node of a group at a time may be drained: two at once could be both that hold a minute of footage.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{COMPONENT, Plan, group_metadata};
use crate::{domain::name, operator::labels};

/// The budget.
pub fn disruption_budget(plan: &Plan) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: group_metadata(plan, name::storage_group(&plan.group)),
        spec: Some(PodDisruptionBudgetSpec {
            // Not minAvailable: a group of one node could then never be drained.
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(labels::storage_group(&plan.group, COMPONENT)),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn disruption_budget_of_a_group() {
        insta::assert_yaml_snapshot!(super::disruption_budget(&super::super::super::plan::fixture::plan()));
    }
}
