//! The children of a `StorageNode` and the objects its group shares: one file, one function, one snapshot each. Pure.

pub mod disruption_budget;
pub mod group_secret;
pub mod group_service;
pub mod identity_secret;
pub mod peers;
pub mod service;
pub mod stateful_set;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Secret, ServicePort},
    apimachinery::pkg::{apis::meta::v1::OwnerReference, util::intstr::IntOrString},
};
use kube::api::ObjectMeta;

use super::plan::Plan;
use crate::operator::labels;

/// Label value of everything here.
const COMPONENT: &str = "storage";

/// Of a child of the node: it goes with the node.
fn node_metadata(plan: &Plan, name: String) -> ObjectMeta {
    metadata(plan, name, labels::storage_node(&plan.node, &plan.group, COMPONENT), vec![plan.owner.clone()])
}

/// Of what the group shares: it goes with the last of its nodes.
fn group_metadata(plan: &Plan, name: String) -> ObjectMeta {
    metadata(plan, name, labels::storage_group(&plan.group, COMPONENT), plan.group_owners.clone())
}

fn metadata(plan: &Plan, name: String, labels: BTreeMap<String, String>, owners: Vec<OwnerReference>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(plan.namespace.clone()),
        labels: Some(labels),
        owner_references: Some(owners),
        ..ObjectMeta::default()
    }
}

/// Of a Secret: nobody owns it, so that the data it opens stays within reach.
fn secret_metadata(namespace: &str, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

fn port(name: &str, port: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(port),
        target_port: Some(IntOrString::Int(i32::from(port))),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}

/// A text of a Secret.
fn text<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok().map(str::trim_end).filter(|text| !text.is_empty())
}
