//! What the gateway's map of cameras is loaded from, once, at start.

use super::{Error, Reader, pinning, sql};
use crate::domain::{
    control::{CameraConfig, InstanceReport, ObjectRef, Phase, StreamConfig},
    id::InstanceUid,
};

impl Reader {
    /// Every camera ever heard of.
    pub async fn cameras(&self) -> Result<Vec<CameraConfig>, Error> {
        let rows: Vec<(String, String, String, String, bool)> =
            sqlx::query_as("SELECT uid, namespace, name, site, deleted FROM cameras WHERE name <> '' ORDER BY id")
                .fetch_all(&self.pool)
                .await
                .map_err(sql("read the cameras"))?;
        Ok(rows
            .into_iter()
            .map(|(uid, namespace, name, site, deleted)| CameraConfig {
                camera: ObjectRef { namespace, name, uid },
                site,
                deleted,
            })
            .collect())
    }

    /// Every stream that was told about.
    pub async fn streams(&self) -> Result<Vec<StreamConfig>, Error> {
        let rows: Vec<String> = sqlx::query_scalar("SELECT config FROM streams WHERE config IS NOT NULL ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .map_err(sql("read the streams"))?;
        rows.iter().map(|text| pinning::config(text)).collect()
    }

    /// The last report of every instance, as far as it is kept.
    pub async fn instances(&self) -> Result<Vec<(InstanceUid, InstanceReport)>, Error> {
        let rows: Vec<(String, String, Option<String>)> = sqlx::query_as("SELECT uid, phase, problem FROM instances")
            .fetch_all(&self.pool)
            .await
            .map_err(sql("read the instances"))?;
        rows.into_iter()
            .map(|(uid, phase, problem)| {
                let phase: Phase = serde_json::from_value(phase.into())
                    .map_err(|_| Error::Unreadable { what: "phase of an instance" })?;
                let problem = problem.and_then(|text| serde_json::from_str(&text).ok());
                let uid = uid.parse().map_err(|_| Error::Unreadable { what: "instance" })?;
                Ok((uid, InstanceReport { phase, problem, ..InstanceReport::default() }))
            })
            .collect()
    }
}
