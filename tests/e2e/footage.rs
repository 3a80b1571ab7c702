//! Playlists and media, read as any client reads them.

use jiff::Timestamp;
use m3u8_rs::{MediaPlaylist, MediaSegment};
use sha2::{Digest, Sha256};

use crate::world::{http_get, replay_path, try_http_get};

/// The replay playlist of a camera over a range.
pub fn replay(camera: &str, start: Timestamp, end: Timestamp) -> MediaPlaylist {
    let path = replay_path(camera, start, end);
    let (status, body) = http_get(&path);
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
    m3u8_rs::parse_media_playlist_res(&body).unwrap_or_else(|e| panic!("{path}: {e:?}"))
}

/// The replay playlist, or the status that came instead.
pub fn try_replay(camera: &str, start: Timestamp, end: Timestamp) -> Result<MediaPlaylist, String> {
    try_playlist(&replay_path(camera, start, end))
}

/// A playlist, or the status that came instead.
pub fn try_playlist(path: &str) -> Result<MediaPlaylist, String> {
    let (status, body) = try_http_get(path)?;
    if status != 200 {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
    }
    m3u8_rs::parse_media_playlist_res(&body).map_err(|e| format!("{e:?}"))
}

/// Bytes behind a URI of a playlist.
pub fn media(uri: &str) -> Vec<u8> {
    let (status, body) = http_get(uri);
    assert_eq!(status, 200, "{uri}: {}", String::from_utf8_lossy(&body));
    body
}

/// (stream, rendition, session, seq) of a media URI `/media/{stream}/{session}/{rendition}/{seq}…`.
pub fn key(segment: &MediaSegment) -> (String, String, String, u64) {
    let parts: Vec<&str> = segment.uri.trim_start_matches('/').split('/').collect();
    assert!(parts.len() >= 5 && parts[0] == "media", "{}", segment.uri);
    let seq: String = parts[4].chars().take_while(char::is_ascii_digit).collect();
    (parts[1].into(), parts[3].into(), parts[2].into(), seq.parse().expect("a number"))
}

/// SHA-256, hex.
pub fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}
