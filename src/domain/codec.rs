//! Names of codecs as RFC 6381 spells them, for the `CODECS` attribute of playlists.

use std::fmt::Write;

/// H.264: profile, constraints and level, the three bytes that `avcC` and the sequence parameter set begin with.
pub fn avc(entry: &str, [profile, constraints, level]: [u8; 3]) -> String {
    format!("{entry}.{profile:02x}{constraints:02x}{level:02x}")
}

/// H.265 (ISO/IEC 14496-15 annex E.3): the twelve bytes that `hvcC` and the sequence parameter set have in common, from
/// the profile to the level.
pub fn hevc(entry: &str, general: [u8; 12]) -> String {
    let [profile, a, b, c, d, constraints @ .., level] = general;
    let constraints: [u8; 6] = constraints;
    let compatibility = u32::from_be_bytes([a, b, c, d]);
    let space = ["", "A", "B", "C"][usize::from(profile >> 6)];
    let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
    let mut codec = format!(
        "{entry}.{space}{}.{:X}.{tier}{level}",
        profile & 0x1f,
        // The standard counts these flags from the other end.
        compatibility.reverse_bits()
    );
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        let _ = write!(codec, ".{byte:X}");
    }
    codec
}

/// AAC by its audio object type.
pub fn aac(object: u8) -> String {
    format!("mp4a.40.{object}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_spelled_as_the_standards_say() {
        assert_eq!(avc("avc1", [0x64, 0, 0x1f]), "avc1.64001f");
        assert_eq!(hevc("hvc1", [1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 60]), "hvc1.1.6.L60.90");
        assert_eq!(hevc("hvc1", [0x62, 0x20, 0, 0, 0, 0xb0, 0, 0, 0, 0, 8, 123]), "hvc1.A2.4.H123.B0.0.0.0.0.8");
        assert_eq!(hevc("hev1", [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 30]), "hev1.1.0.L30");
        assert_eq!(aac(2), "mp4a.40.2");
    }
}
