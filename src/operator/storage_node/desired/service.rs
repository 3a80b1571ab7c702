//! The name of one node for the other nodes of its group.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::{Plan, node_metadata, port, stateful_set::selector};
use crate::domain::name::{self, CLUSTER_REST_PORT, CLUSTER_SWARM_PORT, KUBO_SWARM_PORT, STORAGE_PORT};

/// The headless Service.
pub fn service(plan: &Plan) -> Service {
    Service {
        metadata: node_metadata(plan, name::storage_node(&plan.node)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            // Nodes find each other in order to get ready.
            publish_not_ready_addresses: Some(true),
            selector: Some(selector(plan)),
            ports: Some(vec![
                port("kubo", KUBO_SWARM_PORT),
                port("cluster-swarm", CLUSTER_SWARM_PORT),
                port("cluster", CLUSTER_REST_PORT),
                port("storage", STORAGE_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn service_of_a_node() {
        insta::assert_yaml_snapshot!(super::service(&super::super::super::plan::fixture::plan()));
    }
}
