use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

/// A folder of files as a control plane has them.
fn control_plane() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path().join("pki");
    fs::create_dir_all(pki.join("etcd")).unwrap();
    fs::write(pki.join("ca.key"), "secret").unwrap();
    fs::set_permissions(pki.join("ca.key"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::write(pki.join("etcd/peer.crt"), "certificate".repeat(10_000)).unwrap();
    fs::write(pki.join("n".repeat(180)), "").unwrap();
    symlink("etcd/peer.crt", pki.join("inside")).unwrap();
    symlink("/etc/passwd", pki.join("absolute")).unwrap();
    symlink("../../outside", pki.join("out")).unwrap();
    fs::set_permissions(pki.join("etcd"), fs::Permissions::from_mode(0o500)).unwrap();
    folder
}

fn packed(paths: &[PathBuf]) -> Result<Vec<u8>, IncludeError> {
    let mut tar = Vec::new();
    pack(paths, &mut tar)?;
    Ok(tar)
}

#[test]
fn what_was_packed_is_unpacked_with_its_modes_but_no_link_that_leads_out() {
    let source = control_plane();
    let pki = source.path().join("pki");
    let tar = packed(std::slice::from_ref(&pki)).unwrap();
    assert_eq!(tar, packed(std::slice::from_ref(&pki)).unwrap(), "the same files, the same tar");

    let target = tempfile::tempdir().unwrap();
    let target = target.path().join("new");
    let unpacked = unpack(&tar[..], &target).unwrap();
    let there = target.join(pki.strip_prefix("/").unwrap());
    assert_eq!((unpacked.files, unpacked.bytes), (3, 110_006));
    assert_eq!(fs::read_to_string(there.join("ca.key")).unwrap(), "secret");
    let mode = |path: &str| fs::metadata(there.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("ca.key"), mode("etcd")), (0o400, 0o500));
    assert_eq!(fs::read_link(there.join("inside")).unwrap(), Path::new("etcd/peer.crt"));
    // `out` leads out of `pki`, but not out of the folder that all is unpacked in.
    assert!(there.join("out").is_symlink());
    let left = vec![(there.join("absolute"), PathBuf::from("/etc/passwd"))];
    assert_eq!(unpacked.links_left_out, left);
}

#[test]
fn the_real_tar_reads_what_was_packed() {
    let source = control_plane();
    let file = source.path().join("out.tar");
    fs::write(&file, packed(&[source.path().join("pki")]).unwrap()).unwrap();
    let run = std::process::Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    assert_eq!(String::from_utf8(run.stdout).unwrap().lines().count(), 8);
}

#[test]
fn nothing_is_overwritten() {
    let source = control_plane();
    let tar = packed(&[source.path().join("pki/ca.key")]).unwrap();
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("mine"), "").unwrap();
    let error = unpack(&tar[..], target.path()).unwrap_err();
    assert!(matches!(error, UnpackError::NotEmpty { .. }), "{error:?}");
}

fn plain_header(kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

/// An archive with one entry that no `pack` would write.
fn hostile(name: &str, kind: EntryType, link: &str) -> Vec<u8> {
    let mut header = plain_header(kind);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_link_name_literal(link).unwrap();
    header.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&header, io::empty()).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn entries_that_lead_out_or_are_no_files_are_refused() {
    for (name, kind) in [
        ("../x", EntryType::Regular),
        ("a/../../x", EntryType::Regular),
        ("/tmp/x", EntryType::Regular),
        ("x", EntryType::Link),
        ("x", EntryType::Char),
        ("x", EntryType::Fifo),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let error = unpack(&hostile(name, kind, "y")[..], folder.path()).unwrap_err();
        assert!(matches!(error, UnpackError::Hostile { .. }), "{name} {kind:?}: {error:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn nothing_is_written_through_a_link_of_the_archive() {
    let outside = tempfile::tempdir().unwrap();
    let mut tar = Builder::new(Vec::new());
    let mut link = plain_header(EntryType::Symlink);
    tar.append_link(&mut link, "a", outside.path()).unwrap();
    let mut file = plain_header(EntryType::Regular);
    file.set_size(3);
    tar.append_data(&mut file, "a/file", &b"abc"[..]).unwrap();
    let tar = tar.into_inner().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let unpacked = unpack(&tar[..], folder.path()).unwrap();
    assert_eq!(unpacked.links_left_out.len(), 1);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn what_is_no_file_or_not_there_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let error = packed(&[folder.path().to_owned()]).unwrap_err();
    assert!(matches!(&error, IncludeError::Kind { path, .. } if *path == socket), "{error:?}");
    let error = packed(&["/dev/null".into()]).unwrap_err();
    assert!(matches!(error, IncludeError::Kind { kind: "a device", .. }), "{error:?}");
    let error = packed(&[folder.path().join("gone")]).unwrap_err();
    assert!(matches!(error, IncludeError::Read { .. }), "{error:?}");
    let error = packed(&["a/../b".into()]).unwrap_err();
    assert!(matches!(error, IncludeError::Path { .. }), "{error:?}");
}

#[test]
fn a_file_that_became_shorter_is_not_padded() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"abc").unwrap();
    let mut content = Exactly { file: &file, left: 10, failed: None };
    io::Seek::rewind(&mut &file).unwrap();
    let read = io::copy(&mut &mut content, &mut io::sink());
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert!(content.failed.is_some());
}
