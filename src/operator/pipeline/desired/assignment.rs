//! The `ConfigMap` with the assignment of one instance: the truth, of which the AMQP message is a faster copy.

use k8s_openapi::api::core::v1::ConfigMap;

use super::instance_metadata;
use crate::operator::pipeline::{
    plan::{Instance, Plan},
    revision::{ASSIGNMENT_KEY, LADDER_KEY, STREAM_KEY},
};

/// The assignment to the letter as it is sent, and beside it what the recorder is told about the stream.
pub fn config_map(plan: &Plan, instance: &Instance) -> ConfigMap {
    let mut metadata = instance_metadata(plan, instance);
    // A raised revision is written only over the object it was counted up from.
    metadata.resource_version.clone_from(&instance.assignment.resource_version);
    let mut data: std::collections::BTreeMap<_, _> = [
        (ASSIGNMENT_KEY.to_owned(), instance.assignment.text.clone()),
        (STREAM_KEY.to_owned(), instance.assignment.stream_text()),
    ]
    .into();
    if let Some(ladder) = &instance.assignment.ladder {
        data.insert(LADDER_KEY.to_owned(), ladder.text.clone());
    }
    ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{planned, simple};
    use crate::{
        api::pipeline as api,
        domain::{container::Container, control::Audio},
        operator::fixture::PipelineFixture,
    };

    #[test]
    fn assignment_with_ladder() {
        let (plan, instance) = planned(&simple().transcoding(800));
        insta::assert_yaml_snapshot!(super::config_map(&plan, &instance));
    }

    #[test]
    fn container_and_audio_are_told_and_the_absent_setting_means_the_default() {
        let told = |pipeline: &PipelineFixture| {
            let (_, instance) = planned(pipeline);
            let data = instance.assignment.envelope.data;
            (data.container, data.audio)
        };
        assert_eq!(told(&simple()), (Container::Fmp4, Audio::Aac));
        let packed = simple().packed(api::Container::MpegTs, api::Audio::Copy);
        assert_eq!(told(&packed), (Container::MpegTs, Audio::Copy));
    }

    #[test]
    fn assignment() {
        let (plan, instance) = planned(&simple());
        insta::assert_yaml_snapshot!(super::config_map(&plan, &instance));
    }
}
