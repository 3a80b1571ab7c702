module dsn.invalid/camera

go 1.26.0

require (
	github.com/asticode/go-astits v1.13.0
	github.com/bluenviron/gortsplib/v4 v4.14.1
	github.com/bluenviron/mediacommon/v2 v2.2.0
	github.com/pion/rtp v1.8.16
)

require (
	github.com/asticode/go-astikit v0.30.0 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/pion/randutil v0.1.0 // indirect
	github.com/pion/rtcp v1.2.15 // indirect
	github.com/pion/sdp/v3 v3.0.13 // indirect
	golang.org/x/net v0.40.0 // indirect
	golang.org/x/sys v0.33.0 // indirect
)
