//! One address for all nodes of a group: uploads and reads, and the cluster's REST API. Only nodes that work answer.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::{COMPONENT, Plan, group_metadata, port};
use crate::{
    domain::name::{self, CLUSTER_REST_PORT, STORAGE_PORT},
    operator::labels,
};

/// The Service.
pub fn service(plan: &Plan) -> Service {
    Service {
        metadata: group_metadata(plan, name::storage_group(&plan.group)),
        spec: Some(ServiceSpec {
            selector: Some(labels::storage_group(&plan.group, COMPONENT)),
            ports: Some(vec![port("storage", STORAGE_PORT), port("cluster", CLUSTER_REST_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn service_of_a_group() {
        insta::assert_yaml_snapshot!(super::service(&super::super::super::plan::fixture::plan()));
    }
}
