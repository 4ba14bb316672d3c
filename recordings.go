package main

import (
	"context"
	"errors"
	"log/slog"

	"parley/aigrpc"
	"parley/models"
	"parley/stream"
	"parley/voice"
)

// dial returns the AI backend, and who hears and speaks, nil where nobody does.
// hangUp ends both.
func dial(ctx context.Context, cfg *Config, watch *observation, log *slog.Logger) (backend *aigrpc.Client, speaker *aigrpc.Voice, hangUp func() error, err error) {
	if backend, err = dialBackend(cfg, log, watch.calls()...); err != nil {
		return nil, nil, nil, err
	}
	if speaker, err = dialVoice(ctx, cfg, log, watch.calls()...); err != nil {
		return nil, nil, nil, errors.Join(err, backend.Close())
	}
	if speaker == nil {
		return backend, nil, backend.Close, nil
	}
	return backend, speaker, func() error { return errors.Join(speaker.Close(), backend.Close()) }, nil
}

// newRecordings returns what makes messages of recordings; nil where nobody hears.
// It lets go of them as soon as ctx ends, or letGo is called, which waits until it
// has.
func newRecordings(ctx context.Context, db *models.DB, hub *stream.Hub, hears *aigrpc.Voice, log *slog.Logger) (recordings *voice.Recordings, letGo func()) {
	if hears == nil {
		return nil, func() {}
	}
	recordings = voice.New(db, hub, voice.Config{Transcriber: hears}, log)
	return recordings, inBackground(ctx, func(ctx context.Context) {
		recordings.Run(ctx)
		recordings.Drain()
	})
}

// synthesizer is who speaks for the hub; nil where nobody does.
func synthesizer(speaks *aigrpc.Voice) stream.Synthesizer {
	if speaks == nil {
		return nil
	}
	return speaks
}
