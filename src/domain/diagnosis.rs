//! From what ffmpeg complains about to a reason and a sentence that says what to do (row B3).
//!
//! The lines come already redacted; nothing here sees a credential. Not here: what to do about it in the program; the
//! runner only asks whether the next try may be soon.

use std::time::Duration;

use super::{capture::SOCKET_TIMEOUT, control::Problem, segment::GapReason, source::redact_userinfo};

/// What a person declared and may have to change.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// Address without credentials.
    pub url: String,
    /// Does the camera have credentials declared?
    pub credentials: bool,
    /// Name of the Secret.
    pub secret: Option<String>,
}

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The camera answered 401 or 403.
    Unauthorized(u16),
    /// The camera answered 404 or 454.
    NotFound(u16),
    /// The camera answered 461: not with this transport.
    Transport,
    /// The name does not resolve.
    UnknownHost,
    /// The port is closed.
    Refused,
    /// No answer.
    NoAnswer,
    /// It answers with something that is no RTSP, or no video.
    Garbage,
    /// Connection open, no pictures.
    Hung,
    /// The camera ended the stream.
    Closed,
    /// Its clock jumped.
    ClockStep,
    /// ffmpeg can't write.
    DiskFull,
    /// ffmpeg ended; its last complaint.
    Died(String),
}

impl Cause {
    /// Reads the end of ffmpeg's (redacted) messages. `ran`: how long it ran without a picture.
    pub fn of(lines: &[String], ran: Duration) -> Self {
        let has = |words: &[&str]| lines.iter().any(|line| words.iter().any(|word| line.contains(word)));
        let code = |code: u16| has(&[&format!("failed: {code}"), &format!("returned {code}")]);
        // Most specific first: a failed login is followed by the line of a failed input.
        if let Some(code) = [401, 403].into_iter().find(|c| code(*c)) {
            return Self::Unauthorized(code);
        }
        if let Some(code) = [404, 454].into_iter().find(|c| code(*c)) {
            return Self::NotFound(code);
        }
        if code(461) || has(&["Nonmatching transport", "Unsupported Transport"]) {
            return Self::Transport;
        }
        if has(&["No space left on device", "Disk quota exceeded"]) {
            return Self::DiskFull;
        }
        if has(&["Failed to resolve hostname", "Name or service not known", "Temporary failure in name resolution"]) {
            return Self::UnknownHost;
        }
        if has(&["Connection refused"]) {
            return Self::Refused;
        }
        if has(&["Connection timed out", "Operation timed out", "No route to host", "unreachable", "Host is down"]) {
            return Self::NoAnswer;
        }
        // It looked for a picture for seconds, and nothing that came was worth a complaint.
        if lines
            .first()
            .is_some_and(|line| line.contains("Could not find codec parameters") && line.contains("(Video:"))
        {
            return Self::Hung;
        }
        if has(&["Connection reset by peer", "Could not find codec"]) {
            return Self::Garbage;
        }
        if has(&["Invalid data found when processing input"]) {
            // Trap: ffmpeg says the same of a camera that takes the connection and never answers.
            return if ran < SOCKET_TIMEOUT { Self::Garbage } else { Self::Hung };
        }
        let last = lines.iter().rev().find(|line| is_error(line));
        Self::Died(last.or(lines.last()).map(|line| short(line)).unwrap_or_default())
    }

    /// Why a run ended that had pictures before. `signal`: what killed ffmpeg, if anything did.
    pub fn of_a_run(lines: &[String], signal: Option<i32>) -> Self {
        if let Some(signal) = signal {
            return Self::Died(format!("killed by signal {signal}"));
        }
        match Self::of(lines, Duration::ZERO) {
            // It answered until now: the connection is open and nothing comes.
            Self::NoAnswer => Self::Hung,
            // A warning on the way is no reason to end.
            Self::Died(_) if !lines.iter().any(|line| is_error(line)) => Self::Closed,
            cause => cause,
        }
    }

    /// Of an ffmpeg that had to be stopped: what it complained about may be no reason.
    #[must_use]
    pub fn or_hung(self) -> Self {
        if matches!(self, Self::Died(_)) { Self::Hung } else { self }
    }

    /// Stable word for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unauthorized(_) => "Unauthorized",
            Self::NotFound(_) => "StreamNotFound",
            Self::Transport => "TransportRefused",
            Self::UnknownHost | Self::Refused | Self::NoAnswer => "CameraUnreachable",
            Self::Garbage => "BadStream",
            Self::Hung => "CameraHung",
            Self::Closed => "CameraClosed",
            Self::ClockStep => "ClockStep",
            Self::DiskFull => "SpoolFull",
            Self::Died(_) => "CaptureDied",
        }
    }

    /// What the loss of footage is put down to.
    pub fn gap(&self) -> GapReason {
        match self {
            Self::Unauthorized(_) => GapReason::Unauthorized,
            Self::NotFound(_) | Self::Transport | Self::UnknownHost | Self::Refused | Self::NoAnswer | Self::Closed => {
                GapReason::CameraUnreachable
            }
            Self::Hung => GapReason::CameraHung,
            Self::ClockStep => GapReason::ClockStep,
            Self::DiskFull => GapReason::SpoolFull,
            Self::Garbage | Self::Died(_) => GapReason::CaptureDied,
        }
    }

    /// A camera locks an account that logs in wrongly every two seconds: such a try comes rarer.
    pub fn is_refused_login(&self) -> bool {
        matches!(self, Self::Unauthorized(_))
    }

    /// Did the camera say nothing that can be understood? Then what is known of it still holds, and to ask once more would
    /// cost the first seconds of its return.
    pub fn tells_nothing(&self) -> bool {
        matches!(self, Self::UnknownHost | Self::Refused | Self::NoAnswer | Self::Garbage | Self::Hung | Self::DiskFull)
    }

    /// The whole for a person.
    pub fn problem(&self, declared: &Declared) -> Problem {
        let url = &declared.url;
        let message = match self {
            Self::Unauthorized(code) => match (&declared.secret, declared.credentials) {
                (Some(secret), _) => format!("RTSP {code}: check Secret {secret:?}, keys username and password"),
                (None, true) => format!("RTSP {code}: check the keys username and password of the camera's Secret"),
                (None, false) => format!(
                    "RTSP {code}: the camera asks for a login: name a Secret with the keys username and password in \
                     source.credentialsSecretRef"
                ),
            },
            Self::NotFound(code) => format!("RTSP {code}: {url} is no stream of this camera: check the path"),
            Self::Transport => {
                "the camera refuses this way of sending: change source.transport (TCP or UDP)".to_owned()
            }
            Self::UnknownHost => format!("the host of {url} has no address: check source.url and the cluster's DNS"),
            Self::Refused => format!("{url} refuses connections: check that the camera is on, and the port"),
            Self::NoAnswer => {
                format!("{url} does not answer: check that the camera is on and that this node reaches its network")
            }
            Self::Garbage => format!("{url} answers with something that is no RTSP video: check address and path"),
            Self::Hung => format!(
                "{url} takes the connection but sends no picture: reconnecting; restart the camera if this stays, or check \
                 the port if it never worked"
            ),
            Self::Closed => "the camera ended the stream: reconnecting".to_owned(),
            Self::ClockStep => "the camera's clock jumped by more than 10 s: a new session was begun; check its NTP \
                                settings"
                .to_owned(),
            Self::DiskFull => "no space is left on the spool: enlarge spool.size".to_owned(),
            Self::Died(line) if line.is_empty() => "ffmpeg ended; restarting it".to_owned(),
            Self::Died(line) => format!("ffmpeg ended; restarting it: {line}"),
        };
        Problem { reason: self.reason().to_owned(), message }
    }
}

/// The word for a Secret that is declared and not there, as the runner and the operator say it.
pub const SECRET_MISSING: &str = "SecretMissing";

/// What the loss of footage is put down to while nothing can be tried.
pub fn gap_of(problem: &Problem) -> GapReason {
    if problem.reason == SECRET_MISSING { GapReason::Unauthorized } else { GapReason::CaptureDied }
}

/// The credentials are declared, the files are not there.
pub fn secret_missing(declared: &Declared) -> Problem {
    let message = match &declared.secret {
        Some(name) => format!("Secret {name:?} or one of its keys username and password is missing: create it"),
        None => "the camera's Secret or one of its keys username and password is missing: create it".to_owned(),
    };
    Problem { reason: SECRET_MISSING.to_owned(), message }
}

/// A line without the addresses of ffmpeg's own objects, which change each run, cut to what fits a condition.
fn short(line: &str) -> String {
    let mut clean = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(" @ 0x") {
        clean.push_str(&rest[..at]);
        rest = rest[at + 5..].trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    clean.push_str(rest);
    redact_userinfo(&clean).chars().filter(|c| !c.is_control()).take(200).collect()
}

fn is_error(line: &str) -> bool {
    line.contains("[error]") || line.contains("[fatal]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(line: &str) -> Cause {
        Cause::of(&[line.to_owned()], Duration::ZERO)
    }

    #[test]
    fn messages_of_ffmpeg_5_1_become_causes() {
        for (line, want) in [
            ("[rtsp @ 0x55] [error] method DESCRIBE failed: 401 Unauthorized", Cause::Unauthorized(401)),
            (
                "[error] rtsp://***@h/x: Server returned 401 Unauthorized (authorization failed)",
                Cause::Unauthorized(401),
            ),
            ("[error] rtsp://***@h/x: Server returned 403 Forbidden (access denied)", Cause::Unauthorized(403)),
            ("[rtsp @ 0x55] [error] method DESCRIBE failed: 404 Not Found", Cause::NotFound(404)),
            ("[tcp @ 0x55] [error] Connection to tcp://h:554?timeout=0 failed: Connection refused", Cause::Refused),
            ("[error] rtsp://h/x: Connection timed out", Cause::NoAnswer),
            ("[error] rtsp://h/x: No route to host", Cause::NoAnswer),
            ("[tcp @ 0x5] [error] Failed to resolve hostname cam: Name or service not known", Cause::UnknownHost),
            ("[error] rtsp://h/x: Invalid data found when processing input", Cause::Garbage),
            ("[error] av_interleaved_write_frame(): No space left on device", Cause::DiskFull),
            ("[hls @ 0x55aa] [fatal] boom", Cause::Died("[hls] [fatal] boom".to_owned())),
        ] {
            assert_eq!(cause(line), want, "{line}");
        }
        assert_eq!(Cause::of(&[], Duration::ZERO), Cause::Died(String::new()));
    }

    #[test]
    fn a_camera_that_never_answers_does_not_send_garbage() {
        let of = |line: &str| Cause::of(&[line.to_owned()], SOCKET_TIMEOUT);
        assert_eq!(of("[error] rtsp://h/x: Invalid data found when processing input"), Cause::Hung);
        // Looking for pictures in what it sends takes as long.
        let (junk, none) = (
            "[rtsp @ 0x5] [error] Undefined type (31)".to_owned(),
            "[rtsp @ 0x5] [warning] Could not find codec parameters for stream 0 (Video: h264, none): unspecified size"
                .to_owned(),
        );
        assert_eq!(Cause::of(&[junk, none.clone()], SOCKET_TIMEOUT), Cause::Garbage);
        assert_eq!(Cause::of(&[none], SOCKET_TIMEOUT), Cause::Hung);
    }

    #[test]
    fn a_refused_login_names_the_secret_to_check() {
        let declared = Declared { url: "rtsp://h/x".to_owned(), credentials: true, secret: Some("lobby".to_owned()) };
        assert_eq!(
            Cause::Unauthorized(401).problem(&declared).message,
            r#"RTSP 401: check Secret "lobby", keys username and password"#
        );
        let none = Declared::default();
        assert!(Cause::Unauthorized(401).problem(&none).message.contains("credentialsSecretRef"));
    }

    #[test]
    fn a_run_that_had_pictures_ends_for_other_reasons() {
        let timeout = ["[error] rtsp://h/x: Connection timed out".to_owned()];
        assert_eq!(Cause::of_a_run(&timeout, None), Cause::Hung);
        assert_eq!(Cause::of_a_run(&[], None), Cause::Closed);
        // What ffmpeg grumbled about on the way was said to be why a camera had gone.
        let grumble = ["[hls @ 0x5] [warning] Timestamps are unset in a packet for stream 0.".to_owned()];
        assert_eq!(Cause::of_a_run(&grumble, None), Cause::Closed);
        assert_eq!(Cause::of_a_run(&[], Some(9)).gap(), GapReason::CaptureDied);
    }

    #[test]
    fn the_most_specific_line_decides() {
        let lines = [
            "[rtsp @ 0x5] [error] method DESCRIBE failed: 401 Unauthorized",
            "[error] x: Invalid data found when processing input",
        ];
        assert_eq!(Cause::of(&lines.map(str::to_owned), Duration::ZERO), Cause::Unauthorized(401));
    }
}
