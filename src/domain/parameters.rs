//! What a stream's own first bytes say: codec and picture size in a sequence parameter set, the profile in an ADTS
//! header.
//!
//! Not h264-reader's parameter sets: that refuses those of cameras whose picture is larger than the level they claim.

use std::num::NonZeroUsize;

use h264_reader::rbsp::{BitRead, BitReader, BitReaderError, ByteReader};

use crate::domain::codec;

/// RFC 6381 name and size of a picture; empty and 0 when unknown.
pub(super) type Picture = (String, (u32, u32));

/// Pictures of H.264 and H.265 are told apart by the program map table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    H264,
    Hevc,
}

impl Codec {
    fn is_parameter_set(self, header: u8) -> bool {
        match self {
            Self::H264 => header & 0x1f == 7,
            Self::Hevc => (header >> 1) & 0x3f == 33,
        }
    }

    /// Reads the first NAL units of a keyframe. An unreadable size leaves the codec.
    pub(super) fn picture<'a>(self, mut units: impl Iterator<Item = &'a [u8]>) -> Picture {
        let parameters = units.find(|unit| unit.first().is_some_and(|header| self.is_parameter_set(*header)));
        let Some(unit) = parameters else { return Picture::default() };
        match self {
            Self::H264 => avc(unit),
            Self::Hevc => hevc(unit).unwrap_or_default(),
        }
    }
}

/// NAL units of an Annex B byte stream, without their start codes; zeros may follow them.
pub(super) fn units(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts: Vec<usize> =
        bytes.windows(3).enumerate().filter(|(_, three)| *three == [0, 0, 1]).map(|(at, _)| at + 3).collect();
    let ends: Vec<usize> = starts.iter().skip(1).map(|next| next - 3).chain([bytes.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| &bytes[start..end])
}

/// NAL units that each have their length before them, in so many bytes; one that is cut short is none.
pub(super) fn sized_units(mut bytes: &[u8], length_bytes: usize) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_at_checked(length_bytes)?;
        let length = length.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
        let (unit, rest) = rest.split_at_checked(length).filter(|_| length > 0)?;
        bytes = rest;
        Some(unit)
    })
}

/// ITU-T H.264 §7.3.2.1.1.
fn avc(unit: &[u8]) -> Picture {
    let [_, profile, constraints, level, ..] = *unit else { return Picture::default() };
    let size = avc_size(profile, unit).unwrap_or_default();
    (codec::avc("avc1", [profile, constraints, level]), size)
}

fn avc_size(profile: u8, unit: &[u8]) -> Result<(u32, u32), BitReaderError> {
    let mut bits = BitReader::new(ByteReader::skipping_h264_header(unit));
    bits.skip(24, "profile, constraints, level")?;
    bits.read_ue("seq_parameter_set_id")?;
    let (mut chroma, mut planes) = (1, false);
    if [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135].contains(&profile) {
        chroma = bits.read_ue("chroma_format_idc")?;
        if chroma == 3 {
            planes = bits.read_bit("separate_colour_plane_flag")?;
        }
        bits.read_ue("bit_depth_luma_minus8")?;
        bits.read_ue("bit_depth_chroma_minus8")?;
        bits.skip(1, "qpprime_y_zero_transform_bypass_flag")?;
        if bits.read_bit("seq_scaling_matrix_present_flag")? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.read_bit("seq_scaling_list_present_flag")? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.read_ue("log2_max_frame_num_minus4")?;
    match bits.read_ue("pic_order_cnt_type")? {
        0 => {
            bits.read_ue("log2_max_pic_order_cnt_lsb_minus4")?;
        }
        1 => {
            bits.skip(1, "delta_pic_order_always_zero_flag")?;
            bits.read_se("offset_for_non_ref_pic")?;
            bits.read_se("offset_for_top_to_bottom_field")?;
            for _ in 0..bits.read_ue("num_ref_frames_in_pic_order_cnt_cycle")?.min(255) {
                bits.read_se("offset_for_ref_frame")?;
            }
        }
        _ => {}
    }
    bits.read_ue("max_num_ref_frames")?;
    bits.skip(1, "gaps_in_frame_num_value_allowed_flag")?;
    let width = bits.read_ue("pic_width_in_mbs_minus1")?.saturating_add(1).saturating_mul(16);
    let rows = bits.read_ue("pic_height_in_map_units_minus1")?.saturating_add(1).saturating_mul(16);
    let frames_only = bits.read_bit("frame_mbs_only_flag")?;
    if !frames_only {
        bits.skip(1, "mb_adaptive_frame_field_flag")?;
    }
    bits.skip(1, "direct_8x8_inference_flag")?;
    let fields = if frames_only { 1 } else { 2 };
    let (across, down) = if planes { (1, 1) } else { chroma_unit(chroma) };
    cropped(&mut bits, (width, rows.saturating_mul(fields)), (across, down * fields))
}

fn skip_scaling_list(bits: &mut impl BitRead, size: u32) -> Result<(), BitReaderError> {
    let (mut last, mut next) = (8, 8);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.read_se("delta_scale")?.clamp(-128, 127)).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Ok(())
}

/// ITU-T H.265 §7.3.2.2.
fn hevc(unit: &[u8]) -> Result<Picture, BitReaderError> {
    const HEADER: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
    let mut bits = BitReader::new(ByteReader::skipping_bytes(unit, HEADER));
    bits.skip(4, "sps_video_parameter_set_id")?;
    let sub_layers: u32 = bits.read::<3, u32>("sps_max_sub_layers_minus1")?;
    bits.skip(1, "sps_temporal_id_nesting_flag")?;
    let mut general = [0; 12];
    for byte in &mut general {
        *byte = bits.read::<8, u8>("profile_tier_level")?;
    }
    let size = hevc_size(&mut bits, sub_layers).unwrap_or_default();
    Ok((codec::hevc("hvc1", general), size))
}

fn hevc_size(bits: &mut impl BitRead, sub_layers: u32) -> Result<(u32, u32), BitReaderError> {
    let mut present = Vec::new();
    for _ in 0..sub_layers {
        let (profile, level) = (bits.read_bit("sub_layer_profile")?, bits.read_bit("sub_layer_level")?);
        present.push(u32::from(profile) * 88 + u32::from(level) * 8);
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers), "reserved_zero_2bits")?;
    }
    for length in present {
        bits.skip(length, "sub_layer")?;
    }
    bits.read_ue("sps_seq_parameter_set_id")?;
    let chroma = bits.read_ue("chroma_format_idc")?;
    let planes = chroma == 3 && bits.read_bit("separate_colour_plane_flag")?;
    let size = (bits.read_ue("pic_width_in_luma_samples")?, bits.read_ue("pic_height_in_luma_samples")?);
    cropped(bits, size, if planes { (1, 1) } else { chroma_unit(chroma) })
}

/// In steps of how many pixels a picture of this chroma format is cropped.
fn chroma_unit(format: u32) -> (u32, u32) {
    match format {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    }
}

/// Reads the cropping, the same in both codecs, and applies it.
fn cropped(
    bits: &mut impl BitRead,
    (width, height): (u32, u32),
    (across, down): (u32, u32),
) -> Result<(u32, u32), BitReaderError> {
    let mut crop = [0; 4];
    if bits.read_bit("cropping_flag")? {
        for edge in &mut crop {
            *edge = bits.read_ue("crop_offset")?;
        }
    }
    let [left, right, top, bottom] = crop;
    let less = |size: u32, unit: u32, a: u32, b: u32| size.saturating_sub(a.saturating_add(b).saturating_mul(unit));
    Ok((less(width, across, left, right), less(height, down, top, bottom)))
}

/// Codec of a stream of ADTS frames by the header of the first (ISO/IEC 13818-7 §6.2); `None`: it is none.
pub(super) fn adts(frame: &[u8]) -> Option<String> {
    let [0xff, sync, profile, ..] = *frame else { return None };
    (sync & 0xf6 == 0xf0).then(|| codec::aac((profile >> 6) + 1))
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER_PERMISSIVE;
    use proptest::prelude::*;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        HEXLOWER_PERMISSIVE.decode(hex.replace(' ', "").as_bytes()).expect("hex")
    }

    #[test]
    fn pictures_are_named_by_their_parameter_sets() {
        // From streams that ffmpeg wrote, with what ffprobe says of them: plain, interlaced with scaling lists, other chroma.
        for (codec, hex, name, size) in [
            (Codec::H264, "6742c00cd901419f9f0110000003001000000301e0f142a480", "avc1.42c00c", (320, 180)),
            (Codec::H264, "67640028ace8078044fde022000003000200000300643e2c5d40", "avc1.640028", (1920, 1080)),
            (Codec::H264, "677a000cbcd941519e222f0110000003001000000301e0f1429960", "avc1.7a000c", (322, 182)),
            (Codec::H264, "67f4000c919b282a33c7c5e0220000030002000003003c1e28532c", "avc1.f4000c", (322, 182)),
            (Codec::Hevc, HEVC, "hvc1.1.6.L60.90", (320, 180)),
            (
                Codec::Hevc,
                "42010102200000030090000003000003003ca00a480b9c94d96566924caf0168080000030008000003007840",
                "hvc1.2.4.L60.90",
                (322, 182),
            ),
            (
                Codec::Hevc,
                "42010121600000030090000003000003007ba005020171f2e595992930bc05a020000003002000000301e1",
                "hvc1.1.6.H123.90",
                (640, 360),
            ),
        ] {
            let before = if codec == Codec::H264 { "000001 09f0 00000001 0605ff" } else { "000001 4601" };
            let stream = [bytes(before), bytes("00000001"), bytes(hex), bytes("00000001 0101")].concat();
            assert_eq!(codec.picture(units(&stream)), (name.to_owned(), size), "{hex}");
        }
    }

    const HEVC: &str = "42010101600000030090000003000003003ca00a080b9f796566924caf0168080000030008000003007840";

    #[test]
    fn temporal_layers_stand_between_level_and_size() {
        // Put together by hand: two layers below the highest, one of them with profile and level; 352 x 290, two rows cut.
        let layered = "42010501600000030090000003000003003cc00055555555555555555555553ca00b08048fd4";
        let stream = [bytes("000001"), bytes(layered)].concat();
        assert_eq!(Codec::Hevc.picture(units(&stream)), ("hvc1.1.6.L60.90".to_owned(), (352, 288)));
    }

    #[test]
    fn a_parameter_set_that_is_cut_short_still_names_the_codec() {
        assert_eq!(Codec::H264.picture(units(&bytes("000001 67 64001f"))), ("avc1.64001f".to_owned(), (0, 0)));
        for none in ["", "000001", "00000167", "000001 6764", "000001 65 88 84", "67 42c00c da05067e"] {
            assert_eq!(Codec::H264.picture(units(&bytes(none))), Picture::default(), "{none}");
        }
        assert_eq!(Codec::Hevc.picture(units(&bytes("000001 4201 0101 60000003 0090"))), Picture::default());
    }

    #[test]
    fn units_with_their_length_end_where_one_is_cut() {
        let all =
            |hex: &str, length_bytes| sized_units(&bytes(hex), length_bytes).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(all("00000002 09f0 00000001 67", 4), [bytes("09f0"), bytes("67")]);
        assert_eq!(all("02 09f0 0367", 1), [bytes("09f0")]);
        assert_eq!(all("0002 09f0 0000 0001 67", 2), [bytes("09f0")], "an empty one");
        assert_eq!(all("ffffffff 67", 4), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn sound_is_named_by_its_first_header() {
        assert_eq!(adts(&bytes("fff15040 2dfffc")).as_deref(), Some("mp4a.40.2"));
        assert_eq!(adts(&bytes("fff11040")).as_deref(), Some("mp4a.40.1"));
        for none in ["", "fff1", "ffe15040", "0000000000"] {
            assert_eq!(adts(&bytes(none)), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn hostile_parameters_never_panic(tail in prop::collection::vec(any::<u8>(), 0..120), high in any::<bool>()) {
            for (codec, header) in [(Codec::H264, if high { "00000167 64" } else { "00000167" }), (Codec::Hevc, "0000014201")] {
                let frame = [bytes(header), tail.clone()].concat();
                let _ = codec.picture(units(&frame));
                let _ = codec.picture(sized_units(&frame[2..], 1));
            }
            let _ = adts(&tail);
        }
    }
}
