//! An agent on a folder of its own, for tests.

use std::{fs, path::Path, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{Args, assignment::Applied, context::Context, live::Live, outbox::Outbox, spool::Spool};
use crate::domain::{
    container::Container,
    control::{Activity, Assignment, Audio, CaptureSource, ObjectRef},
    id::{InstanceUid, Role, StreamId},
    name::secret_key,
    spool::AGENT_FOLDER,
};

/// With an assignment of revision 3 in effect.
pub async fn context(folder: &Path, activity: Activity, storage_url: &str) -> Arc<Context> {
    let sub = |name: &str| {
        let path = folder.join(name);
        fs::create_dir_all(&path).expect("a folder");
        path
    };
    let nowhere = ([127, 0, 0, 1], 0).into();
    let args = Args {
        spool: sub("spool"),
        assignment: sub("assignment"),
        config: folder.join("assignment.json"),
        agent_secret: sub("agent"),
        storage_secret: sub("storage"),
        live_address: nowhere,
        metrics_address: nowhere,
    };
    fs::write(args.storage_secret.join(secret_key::UPLOAD_TOKEN), "token").expect("writes");
    let outbox = Outbox::open(&args.spool.join(AGENT_FOLDER)).await.expect("opens");
    let spool = Spool::open(&args.spool).expect("opens");
    let context = Context::new(args, outbox, spool, Live::default(), CancellationToken::new());
    context.assignment.send_replace(Some(Applied { revision: 3, assignment: assignment(activity, storage_url) }));
    Arc::new(context)
}

fn assignment(activity: Activity, storage_url: &str) -> Assignment {
    let object = |name: &str| ObjectRef { namespace: "n".into(), name: name.into(), uid: name.into() };
    Assignment {
        instance: InstanceUid::of("p", "c", Role::Capture, 0),
        stream: StreamId::of("p", "c"),
        activity,
        pipeline: object("p"),
        camera: object("c"),
        site: "hq".into(),
        source: CaptureSource {
            url: "rtsp://10.0.0.8/".into(),
            transport: "tcp".into(),
            credentials: false,
            credentials_secret: None,
        },
        segment_seconds: 4,
        container: Container::default(),
        audio: Audio::default(),
        storage_url: storage_url.into(),
        spool_bytes: 1 << 30,
    }
}
