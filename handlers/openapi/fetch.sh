#!/bin/sh
# Gets the viewer of /docs, Swagger UI, by npm at one version, and puts it here
# compressed. Prints the checksums that the test of it asks for.
set -eu
version=5.35.0
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
npm pack --silent --pack-destination "$scratch" "swagger-ui-dist@$version" >/dev/null
tar -xzf "$scratch/swagger-ui-dist-$version.tgz" -C "$scratch"
for name in swagger-ui-bundle.js swagger-ui.css; do
	gzip -9n <"$scratch/package/$name" >"$name.gz"
done
cp "$scratch/package/swagger-ui-bundle.js.LICENSE.txt" .
cp "$scratch/package/LICENSE" swagger-ui.LICENSE.txt
cp "$scratch/package/NOTICE" swagger-ui.NOTICE.txt
(cd "$scratch/package" && sha256sum swagger-ui-bundle.js swagger-ui.css)
