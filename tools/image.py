#!/usr/bin/env python3
"""Makes the image of deploy/docker/Dockerfile as an archive, where there is no docker to build it:

    tools/image.py BINARY REFERENCE ARCHIVE

One layer with the binary and the machine's CA certificates, the same user and command.
"""
import hashlib
import io
import json
import os
import sys
import tarfile

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def entry(name, mode, content=None):
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid, info.mtime = mode, 0, 0, 0
    if content is None:
        info.type = tarfile.DIRTYPE
        return info, None
    info.size = len(content)
    return info, io.BytesIO(content)


def archive(entries):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, content)
    return buffer.getvalue()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def layer(binary):
    entries = [entry("lifeboat", 0o755, read(binary))]
    if os.path.exists(CERTIFICATES):
        entries += [entry(name, 0o755) for name in ("etc", "etc/ssl", "etc/ssl/certs")]
        entries.append(entry(CERTIFICATES.lstrip("/"), 0o644, read(CERTIFICATES)))
    return archive(entries)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    binary, reference, out = sys.argv[1:]
    content = layer(binary)
    digest = hashlib.sha256(content).hexdigest()
    config = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": "65532:65532",
            "Entrypoint": ["/lifeboat"],
            "Cmd": ["serve", "--config", "/etc/lifeboat/lifeboat.yaml"],
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
    }).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    layer_name = digest + "/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": [layer_name]}]
    files = [(config_name, config), (layer_name, content), ("manifest.json", json.dumps(manifest).encode())]
    with open(out, "wb") as file:
        file.write(archive(entry(name, 0o644, data) for name, data in files))


main()
