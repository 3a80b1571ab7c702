//! Clients of the systems around us: narrow, typed, without business.

pub mod broker;
pub mod broker_address;
pub mod broker_admin;
pub mod groups;
pub mod ipfs;
pub mod ipfs_cluster;
pub mod storage_agent;
