//! The layout of the spool and the files in it that runner and agent exchange.
//!
//! ```text
//! <spool>/report-capture.json                     runner → agent: RunnerReport
//! <spool>/<session>/session.json                  runner → agent: SessionFile
//! <spool>/<session>/source/{init.mp4,%08d.m4s}    ffmpeg → agent, transcoder; live.m3u8 is for people and the runner
//! <spool>/<session>/source/%08d.ts                the same as MPEG-TS, which has no init section anywhere
//! <spool>/report-transcoder.json                  transcoder → agent: TranscoderReport
//! <spool>/<session>/<rendition>/{init.mp4,%08d.m4s}   transcoder → agent, cut as the source is
//! <spool>/<session>/<rendition>/init-%08d.mp4     the same, for a segment that init.mp4 does not fit
//! <spool>/<session>/<rendition>/%08d.given-up     transcoder → agent: this one will not be made, and why
//! <spool>/<session>/.ladder/                      the transcoder's own; removed when it starts
//! <spool>/<session>/.tries/%08d                   the transcoder's own: how often it has begun with a segment
//! <spool>/.agent/                                 the agent's own
//! <assignment>/assignment.json                    agent → runner: Envelope<Assignment>
//! <assignment>/transcoder.json                    agent → transcoder: Envelope<LadderAssignment>
//! ```
//!
//! Every file changes by writing a temporary one and renaming it. The agent treats all of it as hostile.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    container::Container,
    control::{Phase, Problem, VideoInfo},
    id::SessionId,
    segment::GapReason,
};

/// What the runner should do, in the assignment folder; also the key of the `ConfigMap`.
pub const ASSIGNMENT_FILE: &str = "assignment.json";
/// What the transcoder should do, in the assignment folder; also the key of the `ConfigMap`.
pub const LADDER_FILE: &str = "transcoder.json";
/// What the transcoder says.
pub const TRANSCODER_REPORT_FILE: &str = "report-transcoder.json";
/// The transcoder's own folder in a session: nothing in it is finished.
pub const LADDER_FOLDER: &str = ".ladder";
/// How often the transcoder has begun with a segment, in a session.
pub const TRIES_FOLDER: &str = ".tries";
/// What the runner says.
pub const REPORT_FILE: &str = "report-capture.json";
/// What a session is, in its folder.
pub const SESSION_FILE: &str = "session.json";
/// The init section of a rendition.
pub const INIT_FILE: &str = "init.mp4";
/// ffmpeg's own playlist. Its times drift: for people; the runner learns from it which segment is finished.
pub const FFMPEG_PLAYLIST: &str = "live.m3u8";
/// The agent's own folder.
pub const AGENT_FOLDER: &str = ".agent";
/// Held by the one agent that works on the spool; in [`AGENT_FOLDER`].
pub const AGENT_LOCK: &str = "lock";
/// Held by the one runner that works on the spool.
pub const RUNNER_LOCK: &str = ".runner.lock";
/// Held by the one transcoder that works on the spool.
pub const TRANSCODER_LOCK: &str = ".transcoder.lock";
/// Keys of the camera's Secret, mounted as files.
pub const USERNAME_FILE: &str = "username";
/// See [`USERNAME_FILE`].
pub const PASSWORD_FILE: &str = "password";

/// The runner touches its report at least this often; three times as old is silent.
pub const REPORT_TOUCH_SECONDS: u64 = 5;

/// The newest finished segment, by [`FFMPEG_PLAYLIST`]; its name there is all that is believed of that.
pub fn newest_segment(playlist: &str) -> Option<&str> {
    playlist.lines().rev().find(|line| segment_of(line).is_some())
}

/// Name of the file of a segment.
pub fn segment_file(seq: u64, container: Container) -> String {
    format!("{seq:08}.{}", container.extension())
}

/// Number and container of a segment file; `None` for anything else, temporary files included.
pub fn segment_of(file: &str) -> Option<(u64, Container)> {
    let (digits, extension) = file.split_once('.')?;
    let container = Container::ALL.into_iter().find(|container| container.extension() == extension)?;
    Some((number(digits)?, container))
}

/// The number of a segment file.
pub fn segment_seq(file: &str) -> Option<u64> {
    segment_of(file).map(|(seq, _)| seq)
}

fn number(digits: &str) -> Option<u64> {
    let plain = digits.len() >= 8 && digits.len() <= 12 && digits.bytes().all(|b| b.is_ascii_digit());
    // One name per number: 000000001 is not a second segment 1.
    digits.parse().ok().filter(|seq| plain && format!("{seq:08}") == digits)
}

/// The mark of a segment that the transcoder has given up.
pub fn given_up_file(seq: u64) -> String {
    format!("{seq:08}.given-up")
}

/// The number of such a mark.
pub fn given_up_seq(file: &str) -> Option<u64> {
    number(file.strip_suffix(".given-up")?)
}

/// The init section that only this segment of a rendition uses: its decoder configuration is another one than that of
/// [`INIT_FILE`], for the picture or the assignment changed within the session.
pub fn own_init_file(seq: u64) -> String {
    format!("init-{seq:08}.mp4")
}

/// The number of the segment that such an init section belongs to.
pub fn own_init_seq(file: &str) -> Option<u64> {
    file.strip_prefix("init-").and_then(|rest| rest.strip_suffix(".mp4")).and_then(number)
}

/// Is this the name of an init section?
pub fn is_init(file: &str) -> bool {
    file == INIT_FILE || own_init_seq(file).is_some()
}

/// The session whose folder has this name; only the canonical spelling counts.
pub fn session_of(folder: &str) -> Option<SessionId> {
    folder.parse::<SessionId>().ok().filter(|session| session.to_string() == folder)
}

/// `session.json`: written by the runner before ffmpeg starts, and again when it has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionFile {
    /// The session: also the name of the folder.
    pub session: SessionId,
    /// Revision of the assignment it runs under.
    pub revision: u64,
    /// Begin of the run.
    pub started: Timestamp,
    /// Target segment length in effect, seconds.
    pub segment_seconds: u32,
    /// What the probe found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoInfo>,
    /// What kept the camera from being captured since the footage before, in runs of which nothing was left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hindrances: Vec<Hindrance>,
    /// How it ended; absent while it runs, and when the runner had no chance to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<SessionEnd>,
}

/// Something that kept a camera from being captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hindrance {
    /// What the missing footage is put down to.
    pub reason: GapReason,
    /// How long altogether, ms.
    pub lasted_ms: u64,
    /// One sentence, without secrets.
    pub detail: String,
}

/// How a capture run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionEnd {
    /// When the end was noticed.
    pub at: Timestamp,
    /// What the missing footage after it is put down to.
    pub reason: GapReason,
    /// One sentence, without secrets.
    pub detail: String,
}

/// `report-capture.json`: what the runner says. Rewritten on coarse change, touched in between.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunnerReport {
    /// Revision of the assignment in effect; 0 = none seen.
    pub revision: u64,
    /// What it is doing.
    pub phase: Phase,
    /// The running session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// What the camera sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoInfo>,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// How often ffmpeg was started by this runner.
    pub starts: u64,
    /// Frames of the running session when the report was written.
    pub frames: u64,
    /// Media time of the running session when the report was written, µs.
    pub out_time_us: i64,
}

impl RunnerReport {
    /// Is the other one worth a rewrite? Counters alone are not.
    pub fn differs(&self, other: &Self) -> bool {
        let coarse = |report: &Self| Self { frames: 0, out_time_us: 0, ..report.clone() };
        coarse(self) != coarse(other)
    }
}

/// `report-transcoder.json`: what the transcoder says. Rewritten on change, touched in between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TranscoderReport {
    /// Revision of the assignment in effect; 0 = none seen.
    pub revision: u64,
    /// What it is doing; `Drained` when nothing is left to make.
    pub phase: Phase,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// How often ffmpeg was started by this transcoder.
    pub starts: u64,
}

impl TranscoderReport {
    /// Is the other one worth a rewrite? Counters alone are not.
    pub fn differs(&self, other: &Self) -> bool {
        let coarse = |report: &Self| Self { starts: 0, ..report.clone() };
        coarse(self) != coarse(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_finished_segments_count() {
        assert_eq!(segment_of("00000012.m4s"), Some((12, Container::Fmp4)));
        assert_eq!(segment_of("00000012.ts"), Some((12, Container::MpegTs)));
        assert_eq!(segment_seq("100000000.m4s"), Some(100_000_000));
        for other in [
            "00000012.m4s.tmp",
            "00000012.ts.tmp",
            "init.mp4",
            "12.m4s",
            "12.ts",
            "000000012.m4s",
            "+0000012.m4s",
            "live.m3u8",
            ".m4s",
            ".ts",
            "00000012",
            "00000012.mp4",
        ] {
            assert_eq!(segment_of(other), None, "{other}");
        }
    }

    #[test]
    fn ffmpegs_playlist_names_the_newest() {
        let playlist = "#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:1.0,\n00000003.m4s\n#EXTINF:1.0,\n00000004.m4s\n";
        assert_eq!(newest_segment(playlist), Some("00000004.m4s"));
        assert_eq!(newest_segment("#EXTM3U\n../00000004.m4s\n"), None);
    }

    #[test]
    fn a_mark_of_what_was_given_up_is_no_segment() {
        assert_eq!(given_up_seq(&given_up_file(7)), Some(7));
        assert_eq!(segment_seq(&given_up_file(7)), None);
        assert_eq!(segment_seq(&own_init_file(7)), None);
        assert_eq!(own_init_seq(&own_init_file(7)), Some(7));
        assert!(is_init(&own_init_file(7)) && is_init(INIT_FILE) && !is_init("init-7.mp4") && !is_init("init-..mp4"));
        assert_eq!(given_up_seq("00000007.m4s"), None);
    }

    #[test]
    fn folders_are_sessions_only_in_canonical_spelling() {
        let session = SessionId::new();
        assert_eq!(session_of(&session.to_string()), Some(session));
        assert_eq!(session_of(&session.to_string().to_uppercase()), None);
        assert_eq!(session_of(&session.0.simple().to_string()), None);
        assert_eq!(session_of(AGENT_FOLDER), None);
    }

    #[test]
    fn counters_alone_are_no_change() {
        let report = RunnerReport::default();
        assert!(!report.differs(&RunnerReport { frames: 9, out_time_us: 9, ..report.clone() }));
        assert!(report.differs(&RunnerReport { starts: 1, ..report.clone() }));
    }

    proptest! {
        #[test]
        fn a_number_has_one_name(seq in 0_u64..999_999_999_999) {
            for container in Container::ALL {
                prop_assert_eq!(segment_of(&segment_file(seq, container)), Some((seq, container)));
            }
            prop_assert_eq!(given_up_seq(&given_up_file(seq)), Some(seq));
        }
    }
}
