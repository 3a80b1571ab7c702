//! How far each stream has come, for the recorder's summaries to the operator.

use jiff::Timestamp;

use super::{Error, Reader, pinning::config, sql, time};
use crate::domain::{control::ObjectRef, id::StreamId};

/// What is known of a stream's progress, for the summary.
#[derive(Clone, Debug)]
pub struct StreamProgress {
    /// The stream.
    pub stream: StreamId,
    /// Its pipeline.
    pub pipeline: ObjectRef,
    /// Its camera.
    pub camera: ObjectRef,
    /// End of its newest segment.
    pub catalogued_until: Option<Timestamp>,
    /// Everything of the source before is stored.
    pub stored_until: Option<Timestamp>,
}

impl Reader {
    /// Progress of every stream that is recorded.
    pub async fn progress(&self) -> Result<Vec<StreamProgress>, Error> {
        let rows: Vec<(String, Option<i64>, Option<i64>)> = sqlx::query_as(
            "SELECT s.config, s.newest_us,
               (SELECT g.start_us FROM segments g WHERE g.stream_id = s.id AND g.stored = 0
                 AND g.rendition = 'source' ORDER BY g.start_us LIMIT 1)
             FROM streams s WHERE s.config IS NOT NULL AND s.deleted = 0 ORDER BY s.uid",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(sql("read the progress of the streams"))?;
        rows.into_iter()
            .map(|(text, newest, open)| {
                let config = config(&text)?;
                Ok(StreamProgress {
                    stream: config.stream,
                    pipeline: config.pipeline,
                    camera: config.camera,
                    catalogued_until: newest.map(time),
                    stored_until: newest.map(|newest| time(open.unwrap_or(newest))),
                })
            })
            .collect()
    }
}
