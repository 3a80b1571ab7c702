//! How the server reaches the storage groups: addresses by rule, credentials by derivation, no token of Kubernetes.
//!
//! Used by the recorder (roll-ups, pins) and the gateway (bytes); one client per group is kept, since each holds its
//! connections.

use std::{collections::HashMap, sync::Mutex};

use super::{ipfs_cluster, ipfs_cluster::IpfsCluster, storage_agent, storage_agent::StorageAgent};
use crate::domain::token::{MasterKey, Purpose};

/// A storage group: its namespace and its name in there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// Namespace of the `StorageNodes`.
    pub namespace: String,
    /// Name of the group.
    pub name: String,
}

impl Group {
    fn scope(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn fill(&self, template: &str) -> String {
        template.replace("{group}", &self.name).replace("{namespace}", &self.namespace)
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.scope())
    }
}

/// Clients of every group.
pub struct Groups {
    master: MasterKey,
    storage_template: String,
    cluster_template: String,
    storage: Mutex<HashMap<Group, StorageAgent>>,
    cluster: Mutex<HashMap<Group, IpfsCluster>>,
}

impl Groups {
    /// Templates hold `{group}` and `{namespace}`.
    pub fn new(master: MasterKey, storage_template: String, cluster_template: String) -> Self {
        Self { master, storage_template, cluster_template, storage: Mutex::default(), cluster: Mutex::default() }
    }

    /// Any storage agent of a group.
    pub fn storage(&self, group: &Group) -> Result<StorageAgent, storage_agent::Error> {
        let mut known = self.storage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = known.get(group) {
            return Ok(client.clone());
        }
        let client = self.another_storage(group)?;
        known.insert(group.clone(), client.clone());
        Ok(client)
    }

    /// A storage agent of a group over a connection of its own: behind one address stand many, and another may have what
    /// the first one lacks.
    pub fn another_storage(&self, group: &Group) -> Result<StorageAgent, storage_agent::Error> {
        let token = self.master.derive(Purpose::Server, &group.scope());
        StorageAgent::new(group.fill(&self.storage_template), token)
    }

    /// Any ipfs-cluster peer of a group.
    pub fn cluster(&self, group: &Group) -> Result<IpfsCluster, Box<ipfs_cluster::Error>> {
        let mut known = self.cluster.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = known.get(group) {
            return Ok(client.clone());
        }
        let password = self.master.derive(Purpose::ClusterRest, &group.scope());
        let client = IpfsCluster::new(&group.fill(&self.cluster_template), password)?;
        known.insert(group.clone(), client.clone());
        Ok(client)
    }
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Groups({}, {})", self.storage_template, self.cluster_template)
    }
}
