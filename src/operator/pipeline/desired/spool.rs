//! The volume claim on which footage of one instance waits until it is stored.

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::instance_metadata;
use crate::operator::pipeline::plan::{Instance, Plan, SpoolVolume};

/// The claim; `None` for an ephemeral spool. Its spec is immutable: it is created once and never applied over.
pub fn claim(plan: &Plan, instance: &Instance) -> Option<PersistentVolumeClaim> {
    let SpoolVolume::Claim { size, class } = &instance.spool else { return None };
    Some(PersistentVolumeClaim {
        metadata: instance_metadata(plan, instance),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(size.clone()))].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{planned, simple},
        *,
    };
    use crate::api::pipeline::Spool;

    #[test]
    fn spool_claim() {
        let spool =
            Spool { size: Some(Quantity("10Gi".into())), storage_class_name: Some("fast".into()), ephemeral: None };
        let (plan, instance) = planned(&simple().spool(spool));
        insta::assert_yaml_snapshot!(claim(&plan, &instance));
    }

    #[test]
    fn an_ephemeral_spool_has_no_claim() {
        let spool = Spool { ephemeral: Some(true), ..Spool::default() };
        let (plan, instance) = planned(&simple().spool(spool));
        assert_eq!(claim(&plan, &instance), None);
    }
}
