//! What ffmpeg is told for one segment: all renditions from one decode, the audio as it is.
//!
//! Measured with ffmpeg 5.1: equal numbers of frames, shown at the source's times to the tick in every rendition and
//! continuous over segments, in both containers. Source and renditions are written without edit lists, so that players
//! that ignore those agree with players that do not.

use super::Rendition;
use crate::domain::{container::Container, ladder::MAX_RENDITIONS};

/// One segment to transcode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Init section of the source, where it has one. The renditions come in the same container.
    pub init: Option<String>,
    /// The segment.
    pub segment: String,
    /// Its number.
    pub seq: u64,
    /// Does it carry audio?
    pub audio: bool,
    /// Folder that the output goes to, one folder a rendition, see [`folder_of`].
    pub folder: String,
    /// What to make.
    pub renditions: Vec<Rendition>,
}

/// Where ffmpeg leaves a rendition: the segment, and its init section if there is one (`init.mp4`, or `init_<n>.mp4` beside
/// others).
pub fn folder_of(folder: &str, name: &str) -> String {
    format!("{folder}/{name}")
}

/// What ffmpeg writes last, beside the segment: a playlist that nobody plays.
pub const PLAYLIST: &str = "index.m3u8";

/// Arguments of the transcoding ffmpeg.
pub fn arguments(job: &Job) -> Vec<String> {
    let renditions = &job.renditions[..job.renditions.len().min(MAX_RENDITIONS)];
    let container = Container::of_init(job.init.as_ref());
    let mut arguments: Vec<String> = [
        "-nostdin",
        "-hide_banner",
        "-nostats",
        "-loglevel",
        "level+warning",
        // The input is a camera's: it must not lead ffmpeg anywhere else.
        "-protocol_whitelist",
        "file,concat,pipe",
        // Times stay what they are, or each segment would begin at 0.
        "-copyts",
        "-i",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(match &job.init {
        Some(init) => format!("concat:{init}|{}", job.segment),
        None => format!("file:{}", job.segment),
    });
    arguments.extend(["-filter_complex".to_owned(), filter(renditions)]);
    for (n, _) in renditions.iter().enumerate() {
        arguments.extend(["-map".to_owned(), format!("[v{n}]")]);
        if job.audio {
            arguments.extend(["-map".to_owned(), "0:a:0".to_owned()]);
        }
    }
    arguments.extend(
        // As many frames out as in; no B-frames, or the first segment would be shifted; keyframes at the cut only.
        [
            "-fps_mode",
            "passthrough",
            // Or the encoder counts in frames of the nominal rate, and moves those of a camera that is not that exact.
            "-enc_time_base",
            "1:90000",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-tune",
            "zerolatency",
            "-sc_threshold",
            "0",
        ]
        .map(str::to_owned),
    );
    for (n, rendition) in renditions.iter().enumerate() {
        let rate = rendition.video_bitrate_kbps;
        for (option, value) in [("b", rate), ("maxrate", rate), ("bufsize", rate.saturating_mul(2))] {
            arguments.extend([format!("-{option}:v:{n}"), format!("{value}k")]);
        }
    }
    if job.audio {
        arguments.extend(["-c:a".to_owned(), "copy".to_owned()]);
    }
    let streams: Vec<String> = renditions
        .iter()
        .enumerate()
        .map(|(n, rendition)| {
            let audio = if job.audio { format!("a:{n},") } else { String::new() };
            format!("v:{n},{audio}name:{}", rendition.name)
        })
        .collect();
    arguments.extend(
        [
            "-f",
            "hls",
            // One segment, however long.
            "-hls_time",
            "3600",
            "-start_number",
            &job.seq.to_string(),
        ]
        .map(str::to_owned),
    );
    // With var_stream_map ffmpeg puts the number of the stream before the dot of the init section's name.
    arguments.extend(container.hls_options(true));
    arguments.extend(
        [
            "-hls_segment_filename",
            &format!("{}/%v/%08d.{}", job.folder, container.extension()),
            "-var_stream_map",
            &streams.join(" "),
            &format!("{}/%v/{PLAYLIST}", job.folder),
        ]
        .map(str::to_owned),
    );
    arguments
}

/// The picture once for each rendition, never enlarged, in the pixel format that every browser decodes.
fn filter(renditions: &[Rendition]) -> String {
    let count = renditions.len();
    let split: Vec<String> = (0..count).map(|n| format!("[s{n}]")).collect();
    let scaled: Vec<String> = renditions
        .iter()
        .enumerate()
        .map(|(n, rendition)| format!("[s{n}]scale=-2:'trunc(min({},ih)/2)*2',format=yuv420p[v{n}]", rendition.height))
        .collect();
    format!("[0:v:0]split={count}{};{}", split.concat(), scaled.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(audio: bool) -> Job {
        let rung = |name: &str, height, video_bitrate_kbps| Rendition { name: name.into(), height, video_bitrate_kbps };
        Job {
            init: Some("/spool/S/source/init.mp4".into()),
            segment: "/spool/S/source/00000012.m4s".into(),
            seq: 12,
            audio,
            folder: "/spool/S/.ladder".into(),
            renditions: vec![rung("480p", 480, 800), rung("240p", 240, 300)],
        }
    }

    #[test]
    fn ffmpeg_is_told_what_was_tried() {
        insta::assert_snapshot!(arguments(&job(true)).join(" "));
    }

    #[test]
    fn a_transport_stream_becomes_transport_streams() {
        let job = Job { init: None, segment: "/spool/S/source/00000012.ts".into(), ..job(true) };
        insta::assert_snapshot!(arguments(&job).join(" "));
    }

    #[test]
    fn a_silent_camera_has_silent_renditions() {
        let arguments = arguments(&job(false)).join(" ");
        assert!(!arguments.contains("0:a:0") && !arguments.contains("-c:a"), "{arguments}");
        assert!(arguments.contains("-var_stream_map v:0,name:480p v:1,name:240p"), "{arguments}");
    }
}
