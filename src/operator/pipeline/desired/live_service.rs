//! The headless Service that gives each capture pod a stable host name for live viewing.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::api::ObjectMeta;

use super::{COMPONENT, owners};
use crate::{
    domain::name::LIVE_PORT,
    operator::{labels, pipeline::plan::Plan},
};

/// The Service over all capture pods of a Pipeline.
pub fn service(plan: &Plan) -> Service {
    let labels = labels::pipeline(&plan.pipeline.name, COMPONENT);
    Service {
        metadata: ObjectMeta {
            name: Some(plan.service.clone()),
            namespace: Some(plan.pipeline.namespace.clone()),
            labels: Some(labels.clone()),
            owner_references: Some(owners(plan)),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(
                labels.into_iter().filter(|(key, _)| key == labels::PIPELINE || key == labels::COMPONENT).collect(),
            ),
            // Live must be found also while the pod isn't ready for another reason.
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![ServicePort {
                name: Some("live".to_owned()),
                port: i32::from(LIVE_PORT),
                target_port: Some(IntOrString::String("live".to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{planned, simple};

    #[test]
    fn live_service() {
        insta::assert_yaml_snapshot!(super::service(&planned(&simple()).0));
    }
}
