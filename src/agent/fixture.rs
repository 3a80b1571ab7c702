//! An agent on a folder of its own, for tests.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use super::{
    Args,
    assignment::Applied,
    context::{Context, now},
    live::Live,
    outbox::Outbox,
    spool::{Spool, folder_path},
};
use crate::domain::{
    container::Container,
    control::{Activity, Assignment, Audio, CaptureSource, ObjectRef, VideoInfo},
    id::{InstanceUid, Role, SessionId, StreamId},
    name::secret_key,
    segment::{GapReason, SOURCE},
    spool::{AGENT_FOLDER, SESSION_FILE, SessionEnd, SessionFile},
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

/// What a runner says of a session; the folder of its segments.
pub fn session(context: &Context, session: SessionId, has_ended: bool) -> PathBuf {
    let ended = SessionEnd { at: now(), reason: GapReason::CaptureDied, detail: String::new() };
    let file = SessionFile {
        session,
        revision: 3,
        started: now(),
        segment_seconds: 4,
        video: Some(VideoInfo::default()),
        hindrances: Vec::new(),
        ended: has_ended.then_some(ended),
    };
    let source = context.spool.path().join(folder_path(session, SOURCE));
    fs::create_dir_all(&source).expect("a folder");
    fs::write(source.with_file_name(SESSION_FILE), serde_json::to_vec(&file).expect("JSON")).expect("writes");
    source
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
