//! Wakes who reads the spool and the mounted assignment: one inotify instance for both, for they are few on a node.

use std::{ffi::OsStr, path::Path, sync::Arc, time::Duration};

use super::context::Context;
use crate::{domain::spool, files::Hints};

/// Everything is looked at this often even without a hint.
const RESCAN: Duration = Duration::from_secs(5);

/// Raises the signals until the end.
pub async fn run(context: Arc<Context>) {
    let folder = context.args.config.parent().unwrap_or(Path::new("/")).to_owned();
    let mounted = folder.clone();
    let mut hints = Hints::new(RESCAN, move |path| path.parent() == Some(&mounted) || is_news(path))
        .folder(&folder, false)
        .folder(context.spool.path(), true);
    loop {
        tokio::select! { () = hints.wait() => {}, () = context.finished.cancelled() => return }
        context.to_look.raise();
        context.to_scan.raise();
    }
}

/// Is this a change of the spool that is worth a look?
fn is_news(path: &Path) -> bool {
    // Our own outbox lies in the same volume; its writes must not wake us.
    // Nor must what the transcoder has not finished.
    let aside = [spool::AGENT_FOLDER, spool::LADDER_FOLDER];
    let is_segment = |name: &OsStr| name.to_str().is_some_and(|name| spool::segment_seq(name).is_some());
    !path.components().any(|part| aside.iter().any(|name| part.as_os_str() == *name))
        && (path.file_name().is_some_and(is_segment) || path.extension().is_some_and(|kind| kind == "json"))
}
