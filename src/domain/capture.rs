//! What ffprobe and ffmpeg are told, as data, and how to read what they answer on stdout.
//!
//! The options are exactly those that were tried against real cameras; none is free-form, so nothing a person declares
//! can become an option. Not here: running anything (the runner does), or the meaning of error lines
//! ([`super::diagnosis`]).

use serde::Deserialize;

use std::time::Duration;

use super::{
    container::Container,
    control::{Audio, CaptureSource, VideoInfo},
    media::Description,
    source::Address,
    spool,
};

/// Socket timeout towards the camera.
pub const SOCKET_TIMEOUT: Duration = Duration::from_secs(5);

/// Segments in ffmpeg's own playlist, which nobody plays.
const HLS_LIST_SIZE: &str = "8";

/// RTP over TCP or over UDP, as `-rtsp_transport` wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Interleaved in the RTSP connection.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// What the source says; anything unknown is TCP, which passes every network.
    pub fn of(source: &CaptureSource) -> Self {
        if source.transport.eq_ignore_ascii_case("udp") { Self::Udp } else { Self::Tcp }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Video encodings that browsers play, from both containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoCodec {
    /// H.264.
    H264,
    /// H.265.
    Hevc,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Encoding of the picture.
    pub codec: VideoCodec,
    /// Which of its kinds the sound is, e.g. `LC` of AAC.
    pub audio_profile: Option<String>,
    /// For people and reports.
    pub info: VideoInfo,
}

impl Probe {
    /// Does what ffmpeg writes go with this? What can't be told goes with everything.
    pub fn describes(&self, written: &Description) -> bool {
        let names: &[&str] = match self.codec {
            VideoCodec::H264 => &["avc1", "avc3"],
            VideoCodec::Hevc => &["hvc1", "hev1"],
        };
        let same_codec = written.codecs.is_empty() || names.iter().any(|name| written.codecs.starts_with(name));
        let size = (written.width, written.height);
        same_codec && (size == (0, 0) || size == (self.info.width, self.info.height))
    }

    /// What becomes of the sound, and a sentence where that is not what is wanted.
    pub fn sound(&self, wanted: Audio, container: Container) -> (Audio, Option<String>) {
        let Some(sent) = &self.info.audio else { return (Audio::None, None) };
        match wanted {
            Audio::Copy if !self.is_playable(sent, container) => {
                let profile = self.audio_profile.as_ref().map(|profile| format!(" ({profile})")).unwrap_or_default();
                let why =
                    format!("browsers do not play the camera's audio {sent}{profile} as it is: encoding it as AAC");
                (Audio::Aac, Some(why))
            }
            wanted => (wanted, None),
        }
    }

    /// Do browsers play this sound from this container?
    fn is_playable(&self, sent: &str, container: Container) -> bool {
        match (sent, container) {
            // The low-delay kinds of AAC are for telephones; a transport stream can't even carry them.
            ("aac", _) => matches!(self.audio_profile.as_deref(), Some("LC" | "HE-AAC" | "HE-AACv2")),
            ("opus", Container::Fmp4) => true,
            _ => false,
        }
    }
}

/// Why a probed source can't be captured.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unusable {
    /// ffprobe's answer is no JSON of the known form.
    #[error("failed to read the answer of ffprobe")]
    Answer,
    /// No picture.
    #[error("the stream has no video: check the path of source.url")]
    NoVideo,
    /// An encoding that no browser plays from MP4.
    #[error("the camera sends {0}: set its stream to H.264 or H.265")]
    Codec(String),
}

impl Unusable {
    /// Stable word for problems and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Answer => "ProbeFailed",
            Self::NoVideo => "NoVideo",
            Self::Codec(_) => "UnsupportedCodec",
        }
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// `-timeout` counts in µs since ffmpeg 5.0.
fn socket_timeout() -> String {
    SOCKET_TIMEOUT.as_micros().to_string()
}

/// Arguments of ffprobe; `url` carries the credentials.
pub fn probe_arguments(address: &Address, transport: Transport, url: &str) -> Vec<String> {
    words([
        "-hide_banner",
        "-loglevel",
        "level+warning",
        "-protocol_whitelist",
        address.protocols(),
        "-rtsp_transport",
        transport.word(),
        "-timeout",
        &socket_timeout(),
        "-print_format",
        "json",
        "-show_streams",
        "-i",
        url,
    ])
}

/// Everything that decides how ffmpeg runs, but for the credentials.
#[derive(Clone, Debug, PartialEq)]
pub struct CaptureSpec {
    /// The camera.
    pub address: Address,
    /// RTP transport.
    pub transport: Transport,
    /// Target segment length, seconds.
    pub segment_seconds: u32,
    /// What segments are packed in.
    pub container: Container,
    /// Encoding of the picture.
    pub codec: VideoCodec,
    /// What becomes of the sound; [`Audio::None`] where there is none.
    pub audio: Audio,
    /// Folder of the rendition, `spool/<session>/source`.
    pub folder: String,
}

/// Arguments of the capturing ffmpeg; `url` carries the credentials.
pub fn arguments(spec: &CaptureSpec, url: &str) -> Vec<String> {
    let mut arguments = words([
        "-nostdin",
        "-hide_banner",
        "-nostats",
        "-loglevel",
        "level+warning",
        "-progress",
        "pipe:1",
        "-stats_period",
        "1",
        "-protocol_whitelist",
        spec.address.protocols(),
        "-rtsp_transport",
        spec.transport.word(),
        "-timeout",
        &socket_timeout(),
        "-fflags",
        "+genpts+discardcorrupt",
        "-i",
        url,
        "-map",
        "0:v:0",
    ]);
    let sound: &[&str] = match spec.audio {
        Audio::None => &[],
        Audio::Copy => &["-c:a", "copy"],
        Audio::Aac => &["-c:a", "aac", "-ac", "1", "-b:a", "64k", "-af", "aresample=async=1"],
    };
    if !sound.is_empty() {
        arguments.extend(words(["-map", "0:a:0?"]));
    }
    arguments.extend(words(["-c:v", "copy"]));
    if spec.codec == VideoCodec::Hevc {
        arguments.extend(spec.container.hevc_options());
    }
    arguments.extend(sound.iter().map(|word| (*word).to_owned()));
    arguments.extend(words([
        "-f",
        "hls",
        "-hls_time",
        &spec.segment_seconds.to_string(),
        "-hls_list_size",
        HLS_LIST_SIZE,
    ]));
    arguments.extend(spec.container.hls_options(false));
    arguments.extend(words([
        "-hls_flags",
        "temp_file+independent_segments+program_date_time+omit_endlist",
        "-hls_segment_filename",
        &format!("{}/%08d.{}", spec.folder, spec.container.extension()),
        &format!("{}/{}", spec.folder, spool::FFMPEG_PLAYLIST),
    ]));
    arguments
}

#[derive(Deserialize)]
struct ProbeAnswer {
    #[serde(default)]
    streams: Vec<ProbeStream>,
}

#[derive(Deserialize)]
struct ProbeStream {
    codec_type: Option<String>,
    codec_name: Option<String>,
    profile: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    avg_frame_rate: Option<String>,
    r_frame_rate: Option<String>,
}

/// Reads ffprobe's JSON.
pub fn parse_probe(json: &[u8]) -> Result<Probe, Unusable> {
    let answer: ProbeAnswer = serde_json::from_slice(json).map_err(|_| Unusable::Answer)?;
    let of_type = |kind: &'static str| answer.streams.iter().find(move |s| s.codec_type.as_deref() == Some(kind));
    let video = of_type("video").ok_or(Unusable::NoVideo)?;
    let name = video.codec_name.clone().unwrap_or_else(|| "an unknown encoding".to_owned());
    let codec = match name.as_str() {
        "h264" => VideoCodec::H264,
        "hevc" => VideoCodec::Hevc,
        _ => return Err(Unusable::Codec(name.chars().take(40).collect())),
    };
    let rate = |text: &Option<String>| text.as_deref().and_then(ratio).filter(|fps| (0.1..=1000.0).contains(fps));
    let audio = of_type("audio");
    Ok(Probe {
        codec,
        audio_profile: audio.and_then(|a| a.profile.clone()).map(|profile| profile.chars().take(40).collect()),
        info: VideoInfo {
            codec: name,
            width: video.width.unwrap_or(0),
            height: video.height.unwrap_or(0),
            fps: rate(&video.avg_frame_rate).or_else(|| rate(&video.r_frame_rate)).unwrap_or(0.0),
            gop_seconds: None,
            // Without a name ffmpeg has no decoder for it, and the whole run would fail for its sake.
            audio: audio.and_then(|a| a.codec_name.clone()).filter(|name| name != "none"),
        },
    })
}

fn ratio(text: &str) -> Option<f64> {
    let (numerator, denominator) = text.split_once('/')?;
    let (numerator, denominator): (f64, f64) = (numerator.parse().ok()?, denominator.parse().ok()?);
    (denominator != 0.0).then(|| numerator / denominator)
}

/// One report of `-progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Video frames written so far.
    pub frames: u64,
    /// Media time written so far, µs; absent before the first packet.
    pub out_time_us: Option<i64>,
}

/// Collects the `key=value` lines of `-progress` into reports.
#[derive(Debug, Default)]
pub struct ProgressReader {
    current: Progress,
}

impl ProgressReader {
    /// Takes a line; the line `progress=…` completes a report.
    pub fn line(&mut self, line: &str) -> Option<Progress> {
        let (key, value) = line.trim().split_once('=')?;
        match key {
            "frame" => self.current.frames = value.trim().parse().unwrap_or(self.current.frames),
            // N/A or an enormous negative number before the first packet.
            "out_time_us" => self.current.out_time_us = value.trim().parse().ok().filter(|time| *time >= 0),
            "progress" => return Some(std::mem::take(&mut self.current)),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> CaptureSpec {
        CaptureSpec {
            address: Address::parse("rtsp://10.0.0.8/x").expect("valid"),
            transport: Transport::Tcp,
            segment_seconds: 4,
            container: Container::Fmp4,
            codec: VideoCodec::H264,
            audio: Audio::Aac,
            folder: "/spool/S/source".to_owned(),
        }
    }

    #[test]
    fn ffmpeg_is_told_what_was_tried() {
        insta::assert_snapshot!(arguments(&spec(), "rtsp://u:p@10.0.0.8/x").join(" "));
    }

    #[test]
    fn h265_without_audio_is_tagged_for_apple_and_maps_no_audio() {
        let spec = CaptureSpec { codec: VideoCodec::Hevc, audio: Audio::None, transport: Transport::Udp, ..spec() };
        insta::assert_snapshot!(arguments(&spec, "rtsp://10.0.0.8/x").join(" "));
    }

    #[test]
    fn a_transport_stream_has_no_init_section_and_needs_no_tag() {
        let spec = CaptureSpec { container: Container::MpegTs, codec: VideoCodec::Hevc, audio: Audio::Copy, ..spec() };
        insta::assert_snapshot!(arguments(&spec, "rtsp://10.0.0.8/x").join(" "));
    }

    #[test]
    fn sound_is_copied_only_where_browsers_play_it() {
        use Audio::{Aac, Copy, None as Silent};
        use Container::{Fmp4, MpegTs};
        let probe = |audio: &str, profile: Option<&str>| Probe {
            codec: VideoCodec::H264,
            audio_profile: profile.map(str::to_owned),
            info: VideoInfo { audio: Some(audio.to_owned()).filter(|name| !name.is_empty()), ..VideoInfo::default() },
        };
        for (sent, profile, wanted, container, want, said) in [
            ("pcm_alaw", None, Aac, Fmp4, Aac, false),
            ("aac", Some("LC"), Aac, MpegTs, Aac, false),
            ("aac", Some("LC"), Copy, Fmp4, Copy, false),
            ("aac", Some("LC"), Copy, MpegTs, Copy, false),
            ("aac", Some("HE-AAC"), Copy, MpegTs, Copy, false),
            ("aac", Some("ELD"), Copy, Fmp4, Aac, true),
            ("aac", None, Copy, MpegTs, Aac, true),
            ("opus", None, Copy, Fmp4, Copy, false),
            ("opus", None, Copy, MpegTs, Aac, true),
            ("pcm_mulaw", None, Copy, Fmp4, Aac, true),
            ("aac", Some("LC"), Silent, Fmp4, Silent, false),
            ("", None, Aac, Fmp4, Silent, false),
            ("", None, Copy, MpegTs, Silent, false),
        ] {
            let (got, sentence) = probe(sent, profile).sound(wanted, container);
            assert_eq!((got, sentence.is_some()), (want, said), "{sent} {profile:?} {wanted:?} {container:?}");
        }
        let (_, sentence) = probe("aac", Some("ELD")).sound(Copy, Fmp4);
        assert_eq!(
            sentence.as_deref(),
            Some("browsers do not play the camera's audio aac (ELD) as it is: encoding it as AAC")
        );
    }

    #[test]
    fn a_probe_tells_picture_and_audio() {
        let probe = parse_probe(
            br#"{"streams":[{"codec_type":"audio","codec_name":"pcm_alaw"},{"codec_type":"video","codec_name":"h264","width":1920,"height":1080,"avg_frame_rate":"0/0","r_frame_rate":"25/1"}]}"#,
        )
        .expect("usable");
        assert_eq!((probe.info.to_string().as_str(), probe.audio_profile), ("h264 1920x1080 25fps pcm_alaw", None));
        assert_eq!(parse_probe(br#"{"streams":[]}"#), Err(Unusable::NoVideo));
        assert_eq!(parse_probe(b"oops"), Err(Unusable::Answer));
        let mjpeg = parse_probe(br#"{"streams":[{"codec_type":"video","codec_name":"mjpeg"}]}"#).expect_err("unusable");
        assert_eq!((mjpeg.reason(), mjpeg.to_string().contains("H.264")), ("UnsupportedCodec", true));
    }

    #[test]
    fn progress_before_the_first_packet_is_no_progress() {
        let mut reader = ProgressReader::default();
        for line in ["frame=0", "out_time_us=N/A"] {
            assert_eq!(reader.line(line), None);
        }
        assert_eq!(reader.line("progress=continue"), Some(Progress { frames: 0, out_time_us: None }));
        reader.line("frame=16");
        reader.line("out_time_us=1066667");
        assert_eq!(reader.line("progress=end"), Some(Progress { frames: 16, out_time_us: Some(1_066_667) }));
    }
}
