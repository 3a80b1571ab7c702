//! The list of the group's nodes, mounted into each of them. It is followed while they run: no pod template depends on
//! it, so a new node restarts nobody.

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Plan, group_metadata};
use crate::domain::{group::PEERS_KEY, name};

/// The `ConfigMap`.
pub fn config_map(plan: &Plan) -> ConfigMap {
    let list = serde_json::to_string_pretty(&plan.peers).expect("names and numbers are JSON");
    ConfigMap {
        metadata: group_metadata(plan, name::storage_group(&plan.group)),
        data: Some([(PEERS_KEY.to_owned(), format!("{list}\n"))].into()),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn peers_of_a_group_of_two() {
        insta::assert_yaml_snapshot!(super::config_map(&super::super::super::plan::fixture::plan()));
    }
}
