package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/asticode/go-astits"
	"github.com/bluenviron/gortsplib/v4"
	"github.com/bluenviron/gortsplib/v4/pkg/description"
	"github.com/bluenviron/gortsplib/v4/pkg/format"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mpegts"
	"github.com/pion/rtp"
)

// A clip is an MPEG transport stream without B-frames whose tracks all have the same length, so that it can be repeated
// without a gap. (Not MP4: this reader of MP4 knows only the boxes that it writes itself.) Sound in G.711, which no transport
// stream carries, lies beside it: NAME.alaw, A-law at 8 kHz.
type clip struct {
	tracks []*track
	units  []unit // of all tracks, in the order of time
	length time.Duration
}

type track struct {
	media  *description.Media
	clock  int64 // RTP ticks a second
	encode func(parts [][]byte) ([]*rtp.Packet, error)
	// Says from the next DESCRIBE on what this frame says of the picture, if it says anything: a clip may change its
	// resolution in the middle, and go on in the same connection.
	note  func(parts [][]byte)
	ticks int64  // length of the clip
	base  uint32 // RTP time of the clip's first frame; random, as RFC 3550 asks for
}

// A unit is one frame of one track.
type unit struct {
	track *track
	ticks int64    // since the clip's beginning
	parts [][]byte // NAL units, or the one frame of sound
}

func (u unit) time() time.Duration { return seconds(u.ticks, u.track.clock) }

// seconds avoids the overflow of ticks × 10⁹ after some days of play.
func seconds(ticks, clock int64) time.Duration {
	return time.Duration(ticks/clock)*time.Second + time.Duration(ticks%clock)*time.Second/time.Duration(clock)
}

// The clock of the file's timestamps.
const fileClock = 90000

func openClip(path string) (*clip, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	reader := &mpegts.Reader{R: bytes.NewReader(content)}
	if err := reader.Initialize(); err != nil {
		return nil, fmt.Errorf("failed to read %s: %w", path, err)
	}
	opened := &clip{}
	for _, source := range reader.Tracks() {
		t := &track{base: rand.Uint32()}
		opened.tracks = append(opened.tracks, t)
		var first *int64
		// add notes one frame; the clip begins with the first one, whatever time the file gives it.
		add := func(at int64, parts [][]byte) error {
			if first == nil {
				first = &at
				if err := t.describe(source.Codec, parts); err != nil {
					return err
				}
			}
			opened.units = append(opened.units, unit{t, (at - *first) * t.clock / fileClock, parts})
			return nil
		}
		switch codec := source.Codec.(type) {
		case *mpegts.CodecH264:
			reader.OnDataH264(source, func(pts, _ int64, parts [][]byte) error { return add(pts, parts) })
		case *mpegts.CodecH265:
			reader.OnDataH265(source, func(pts, _ int64, parts [][]byte) error { return add(pts, parts) })
		case *mpegts.CodecMPEG4Audio:
			reader.OnDataMPEG4Audio(source, func(pts int64, frames [][]byte) error {
				for i, frame := range frames {
					if err := add(pts+int64(i)*mpeg4audio.SamplesPerAccessUnit*fileClock/int64(codec.SampleRate), [][]byte{frame}); err != nil {
						return err
					}
				}
				return nil
			})
		default:
			return nil, fmt.Errorf("%s: no codec %T in this camera", path, codec)
		}
	}
	for err == nil {
		err = reader.Read()
	}
	if !errors.Is(err, astits.ErrNoMorePackets) {
		return nil, fmt.Errorf("failed to read %s: %w", path, err)
	}
	if sound, err := os.ReadFile(strings.TrimSuffix(path, ".ts") + ".alaw"); err == nil {
		if err := opened.addG711(sound); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(opened.units, func(a, b unit) int { return cmp.Compare(a.time(), b.time()) })
	return opened, opened.measure(path)
}

// addG711 adds sound in packets of 20 ms, as cameras send it.
func (c *clip) addG711(sound []byte) error {
	const packet = 160
	forma := &format.G711{PayloadTyp: 8, SampleRate: 8000, ChannelCount: 1}
	encoder, err := forma.CreateEncoder()
	if err != nil {
		return err
	}
	t := &track{base: rand.Uint32(), note: func([][]byte) {}}
	t.carry(description.MediaTypeAudio, forma, func(parts [][]byte) ([]*rtp.Packet, error) { return encoder.Encode(parts[0]) })
	c.tracks = append(c.tracks, t)
	for at := 0; at < len(sound); at += packet {
		c.units = append(c.units, unit{t, int64(at), [][]byte{sound[at:min(at+packet, len(sound))]}})
	}
	return nil
}

// measure finds the length of the clip: each track's last frame is as long as its first.
func (c *clip) measure(path string) error {
	for _, t := range c.tracks {
		var times []int64
		for _, u := range c.units {
			if u.track == t {
				times = append(times, u.ticks)
			}
		}
		if len(times) < 2 {
			return fmt.Errorf("%s is empty", path)
		}
		t.ticks = times[len(times)-1] + times[1]
		length := seconds(t.ticks, t.clock)
		if c.length != 0 && c.length != length {
			return fmt.Errorf("%s: tracks of %s and %s: a loop would have a gap", path, c.length, length)
		}
		c.length = length
	}
	return nil
}

// describe says what the track is, from its first frame: a key frame, which carries the parameter sets.
func (t *track) describe(codec mpegts.Codec, parts [][]byte) error {
	switch codec := codec.(type) {
	case *mpegts.CodecH264:
		forma := &format.H264{PayloadTyp: 96, PacketizationMode: 1}
		t.note = func(parts [][]byte) {
			kind := func(part []byte) h264.NALUType { return h264.NALUType(part[0] & 0x1F) }
			sps, pps := first(parts, kind, h264.NALUTypeSPS), first(parts, kind, h264.NALUTypePPS)
			if sps != nil && pps != nil {
				forma.SafeSetParams(sps, pps)
			}
		}
		t.note(parts)
		encoder, err := forma.CreateEncoder()
		if err != nil {
			return err
		}
		t.carry(description.MediaTypeVideo, forma, encoder.Encode)
	case *mpegts.CodecH265:
		forma := &format.H265{PayloadTyp: 96}
		t.note = func(parts [][]byte) {
			kind := func(part []byte) h265.NALUType { return h265.NALUType((part[0] >> 1) & 0x3F) }
			vps, sps := first(parts, kind, h265.NALUType_VPS_NUT), first(parts, kind, h265.NALUType_SPS_NUT)
			if pps := first(parts, kind, h265.NALUType_PPS_NUT); vps != nil && sps != nil && pps != nil {
				forma.SafeSetParams(vps, sps, pps)
			}
		}
		t.note(parts)
		encoder, err := forma.CreateEncoder()
		if err != nil {
			return err
		}
		t.carry(description.MediaTypeVideo, forma, encoder.Encode)
	case *mpegts.CodecMPEG4Audio:
		t.note = func([][]byte) {}
		forma := &format.MPEG4Audio{PayloadTyp: 97, Config: &codec.Config, SizeLength: 13, IndexLength: 3, IndexDeltaLength: 3}
		encoder, err := forma.CreateEncoder()
		if err != nil {
			return err
		}
		t.carry(description.MediaTypeAudio, forma, encoder.Encode)
	}
	return nil
}

// first finds the first NAL unit of a kind.
func first[K comparable](parts [][]byte, kind func([]byte) K, wanted K) []byte {
	at := slices.IndexFunc(parts, func(part []byte) bool { return len(part) > 0 && kind(part) == wanted })
	if at < 0 {
		return nil
	}
	return parts[at]
}

func (t *track) carry(kind description.MediaType, forma format.Format, encode func([][]byte) ([]*rtp.Packet, error)) {
	t.media = &description.Media{Type: kind, Formats: []format.Format{forma}}
	t.clock = int64(forma.ClockRate())
	t.encode = encode
}

func (c *clip) medias() []*description.Media {
	medias := make([]*description.Media, len(c.tracks))
	for i, t := range c.tracks {
		medias[i] = t.media
	}
	return medias
}

// play sends the clip for ever, whether somebody watches or not. A delay of this process delays packets; it never changes
// their time.
func (c *clip) play(stream *gortsplib.ServerStream) error {
	began := time.Now()
	for round := int64(0); ; round++ {
		for _, u := range c.units {
			due := began.Add(time.Duration(round)*c.length + u.time())
			time.Sleep(time.Until(due))
			u.track.note(u.parts)
			packets, err := u.track.encode(u.parts)
			if err != nil {
				return err
			}
			for _, packet := range packets {
				packet.Timestamp = u.track.base + uint32(round*u.track.ticks+u.ticks)
				if err := stream.WritePacketRTPWithNTP(u.track.media, packet, due); err != nil {
					return err
				}
			}
		}
	}
}
