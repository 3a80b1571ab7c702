//! Does a camera still send the picture with which its session began, by what players are told of one: codec, profile,
//! level, size?
//!
//! It may be given another and go on in the same connection; ffmpeg, which copies, goes on as well and says nothing. Not
//! here: reading segments, or what follows from the judgement (the runner does both).

use super::{capture::Probe, media::Description};

/// What the segments of one session have said so far.
#[derive(Debug)]
pub struct Pictures {
    probe: Probe,
    /// Something was finished that told nothing, before anything that told something.
    began_silent: bool,
    /// With what the session began.
    first: Option<Description>,
    /// The last one, if it was another.
    other: Option<Description>,
}

impl Pictures {
    /// Of a session that begins with what this probe found.
    pub fn new(probe: Probe) -> Self {
        Self { probe, began_silent: false, first: None, other: None }
    }

    /// Takes what the next finished segment says, if it says anything. Is this for certain another picture?
    ///
    /// Certain is what two in a row say: a damaged segment must end no session, and until then nothing is lost.
    pub fn are_others(&mut self, told: Option<Description>) -> bool {
        let Some(told) = told else {
            // Many cameras send parameter sets beside the stream only.
            self.began_silent |= self.first.is_none() && self.other.is_none();
            return false;
        };
        let fits = self.first.as_ref().map_or_else(|| self.probe.describes(&told), |first| agree(first, &told));
        if fits {
            self.other = None;
            if told.width > 0 {
                self.first.get_or_insert(told);
            }
            return false;
        }
        if self.other.as_ref() != Some(&told) {
            self.other = Some(told);
            return false;
        }
        // Trap: what did not go with the probe from the beginning is no change. To end the session for it would be to end
        // each one that follows as well, with a camera that describes itself wrongly.
        if self.first.is_none() && !self.began_silent {
            self.first = self.other.take();
            return false;
        }
        true
    }
}

/// What is not known agrees with everything.
fn agree(one: &Description, other: &Description) -> bool {
    let (a, b) = ((one.width, one.height), (other.width, other.height));
    one.codecs == other.codecs && (a == b || a == (0, 0) || b == (0, 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{capture::VideoCodec, control::VideoInfo};

    fn pictures() -> Pictures {
        let info = VideoInfo { codec: "h264".into(), width: 1280, height: 720, ..VideoInfo::default() };
        Pictures::new(Probe { codec: VideoCodec::H264, audio_profile: None, info })
    }

    /// One letter for each segment: as probed, Larger, of another Profile, Unreadable size, damaged or silent.
    fn told(letter: char) -> Option<Description> {
        match letter {
            'p' => Some(Description::new("avc1.64001f", (1280, 720), None)),
            'L' => Some(Description::new("avc1.640028", (1920, 1080), None)),
            'P' => Some(Description::new("avc1.4d001f", (1280, 720), None)),
            'U' => Some(Description::new("avc1.64001f", (0, 0), None)),
            _ => None,
        }
    }

    #[test]
    fn only_a_picture_that_stays_another_one_ends_a_session() {
        for (segments, ends) in [
            // Nothing happens, parameter sets in band or not.
            ("pppppppp", None),
            ("........", None),
            ("p..p.p..", None),
            // Another size, another profile.
            ("pppLL", Some(4)),
            ("pPP", Some(2)),
            ("ppL.L", Some(4)),
            // Something damaged, now and then; back and forth.
            ("ppLppPpLpp", None),
            ("pLPLPLP", None),
            ("pUUUUU", None),
            ("LpppLppp", None),
            // From the beginning otherwise than probed: not ended for that, but for a change.
            ("LLLLLLLL", None),
            ("L.LLL", None),
            ("LLLpp", Some(4)),
            // Parameter sets come in band only with the other picture.
            ("...LL", Some(4)),
            ("...pp", None),
        ] {
            let mut pictures = pictures();
            let ended = segments.chars().position(|letter| pictures.are_others(told(letter)));
            assert_eq!(ended, ends, "{segments}");
        }
    }

    #[test]
    fn it_stays_another_one_until_the_first_one_is_back() {
        let mut pictures = pictures();
        let said: Vec<bool> = "pLLLpL".chars().map(|letter| pictures.are_others(told(letter))).collect();
        assert_eq!(said, [false, false, true, true, false, false]);
    }

    proptest! {
        /// Whatever comes in between: it takes two segments in a row that tell the same.
        #[test]
        fn one_segment_never_ends_a_session(segments in "([pLPU.][.]{0,2}){1,30}") {
            let mut pictures = pictures();
            let mut before = None;
            for letter in segments.chars() {
                let now = told(letter);
                if pictures.are_others(now.clone()) {
                    prop_assert_eq!(&now, &before, "{}", segments);
                }
                before = now.or(before);
            }
        }

        #[test]
        fn one_picture_never_ends_a_session(segments in "[p.]{0,40}|[L][L.]{0,40}") {
            let mut pictures = pictures();
            for letter in segments.chars() {
                prop_assert!(!pictures.are_others(told(letter)), "{}", segments);
            }
        }
    }
}
