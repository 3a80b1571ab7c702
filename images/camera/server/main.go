// The test camera: an RTSP server (TCP, digest authentication) that plays pre-encoded clips in an endless loop. It is no
// mock of a protocol (gortsplib speaks it) and encodes nothing, so several of them run beside everything else on two cores.
//
// Not go2rtc, which authenticates its viewers with Basic only; not mediamtx fed by `ffmpeg -re`, which stamps its RTCP
// reports with the time of arrival: under load viewers then see timestamps jump by up to a second. Here the time that
// stands in the reports and the time that stands in the packets come from the same count of frames.
//
//	CAMERA_USERNAME, CAMERA_PASSWORD  who may watch
//	CAMERA_STREAMS                    which clips, by name: "h264 oddgop"; each is rtsp://HOST:8554/NAME
//	CAMERA_CLIPS                      their folder (/clips)
//	CAMERA_ADDRESS                    where to listen (:8554)
package main

import (
	"cmp"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/bluenviron/gortsplib/v4"
	"github.com/bluenviron/gortsplib/v4/pkg/auth"
	"github.com/bluenviron/gortsplib/v4/pkg/base"
	"github.com/bluenviron/gortsplib/v4/pkg/description"
	"github.com/bluenviron/gortsplib/v4/pkg/liberrors"
)

type camera struct {
	username, password string
	// Set once, after the server has begun to answer.
	streams atomic.Pointer[map[string]*gortsplib.ServerStream]
}

func (c *camera) OnDescribe(ctx *gortsplib.ServerHandlerOnDescribeCtx) (*base.Response, *gortsplib.ServerStream, error) {
	return c.admit(ctx.Conn, ctx.Request, ctx.Path)
}

func (c *camera) OnSetup(ctx *gortsplib.ServerHandlerOnSetupCtx) (*base.Response, *gortsplib.ServerStream, error) {
	return c.admit(ctx.Conn, ctx.Request, ctx.Path)
}

func (c *camera) OnPlay(*gortsplib.ServerHandlerOnPlayCtx) (*base.Response, error) {
	return &base.Response{StatusCode: base.StatusOK}, nil
}

// admit asks for the password before it says whether there is such a stream.
func (c *camera) admit(conn *gortsplib.ServerConn, request *base.Request, path string) (*base.Response, *gortsplib.ServerStream, error) {
	if !conn.VerifyCredentials(request, c.username, c.password) {
		return &base.Response{StatusCode: base.StatusUnauthorized}, nil, liberrors.ErrServerAuth{}
	}
	if streams := c.streams.Load(); streams != nil {
		if stream, found := (*streams)[strings.Trim(path, "/")]; found {
			return &base.Response{StatusCode: base.StatusOK}, stream, nil
		}
	}
	return &base.Response{StatusCode: base.StatusNotFound}, nil, nil
}

func main() {
	log.SetFlags(0)
	cam := &camera{username: os.Getenv("CAMERA_USERNAME"), password: os.Getenv("CAMERA_PASSWORD")}
	if cam.username == "" || cam.password == "" {
		log.Fatal("set CAMERA_USERNAME and CAMERA_PASSWORD")
	}
	server := &gortsplib.Server{
		Handler:     cam,
		RTSPAddress: cmp.Or(os.Getenv("CAMERA_ADDRESS"), ":8554"),
		// Without Basic, which the default allows and clients may prefer.
		AuthMethods: []auth.VerifyMethod{auth.VerifyMethodDigestMD5},
	}
	folder := cmp.Or(os.Getenv("CAMERA_CLIPS"), "/clips")
	clips := map[string]*clip{}
	for _, name := range strings.Fields(cmp.Or(os.Getenv("CAMERA_STREAMS"), "h264 h265 oddgop")) {
		opened, err := openClip(filepath.Join(folder, name+".ts"))
		if err != nil {
			log.Fatalf("CAMERA_STREAMS: %s: %v", name, err)
		}
		clips[name] = opened
	}
	// Streams need a server that runs, and viewers that come before the streams are told 404 and come again.
	if err := server.Start(); err != nil {
		log.Fatal(err)
	}
	streams := map[string]*gortsplib.ServerStream{}
	for name, opened := range clips {
		stream := &gortsplib.ServerStream{Server: server, Desc: &description.Session{Medias: opened.medias()}}
		if err := stream.Initialize(); err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		streams[name] = stream
		go func() { log.Fatalf("%s: %v", name, opened.play(stream)) }()
		log.Printf("playing %s", name)
	}
	cam.streams.Store(&streams)
	log.Fatal(server.Wait())
}
