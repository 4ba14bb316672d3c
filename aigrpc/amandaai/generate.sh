#!/bin/sh
# Generates the Go code of amanda_ai.proto beside it, or with -check compares
# it with what is there and fails on a difference.
#
# protoc is Debian's (protobuf-compiler 3.21); its plugins are the tools that
# go.mod names. All three write their version into what they generate.
set -eu
cd "$(dirname "$0")"

out=.
case "${1-}" in
'') ;;
-check)
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
	;;
*)
	echo "usage: generate.sh [-check]" >&2
	exit 2
	;;
esac

protoc \
	--plugin=protoc-gen-go="$(go tool -n protoc-gen-go)" \
	--plugin=protoc-gen-go-grpc="$(go tool -n protoc-gen-go-grpc)" \
	--go_out="$out" --go_opt=paths=source_relative \
	--go-grpc_out="$out" --go-grpc_opt=paths=source_relative \
	amanda_ai.proto

if [ "$out" != . ]; then
	for f in amanda_ai.pb.go amanda_ai_grpc.pb.go; do
		diff -u "$f" "$out/$f"
	done
fi
