//! Files as real tools write them, around a real snapshot.

use super::*;
use age::secrecy::ExposeSecret;
use std::{io::Seek, process::Command};
use tempfile::TempDir;
use testbed::fixtures::fixture;

const ROOM: u64 = 64 << 20;

fn snapshot() -> Vec<u8> {
    fs::read(fixture("3.5.30/final.db")).unwrap()
}

fn unwrapped(path: &Path) -> Result<(Vec<u8>, Vec<Layer>), ImportError> {
    let mut output = Vec::new();
    let layers = unwrap("it", File::open(path).unwrap(), &mut output, ROOM, &Identities::none())?;
    Ok((output, layers))
}

/// Runs a shell command in a folder that holds the snapshot as `s.db`.
#[track_caller]
fn made_by(command: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s.db"), snapshot()).unwrap();
    let status = Command::new("sh").args(["-ec", command]).current_dir(folder.path()).status();
    assert!(status.unwrap().success(), "{command}");
    folder
}

#[track_caller]
fn comes_out_of(command: &str, layers: &[Layer]) {
    let folder = made_by(command);
    let (content, found) = unwrapped(&folder.path().join("out")).expect(command);
    assert_eq!(found, layers, "{command}");
    assert!(content == snapshot(), "{command}: other bytes than those that went in");
}

#[test]
fn what_real_tools_wrap_is_unwrapped_whatever_its_name() {
    let zip = "import zipfile as z; f = z.ZipFile('out', 'w', z.ZIP_DEFLATED); f.mkdir('backup') if hasattr(f, 'mkdir') else 0; f.write('s.db', 'backup/on-demand-node-1763829864'); f.close()";
    let zlib = "import zlib; open('out', 'wb').write(zlib.compress(open('s.db', 'rb').read()))";
    comes_out_of("cp s.db out", &[]);
    comes_out_of("gzip -c s.db > out", &[Layer::Gzip]);
    comes_out_of("zstd -q -19 s.db -o out", &[Layer::Zstd]);
    comes_out_of(&format!("python3 -c \"{zip}\""), &[Layer::Zip]);
    comes_out_of(&format!("python3 -c \"{zlib}\""), &[Layer::Zlib]);
    comes_out_of("gzip -c s.db | zstd -q > out", &[Layer::Zstd, Layer::Gzip]);
}

/// The compressor of etcd-backup-restore is Go's `compress/lzw`.
#[test]
fn what_go_compresses_by_lzw_is_unwrapped() {
    let program = r#"package main
import ("compress/lzw"; "io"; "os")
func main() { w := lzw.NewWriter(os.Stdout, lzw.LSB, 8); io.Copy(w, os.Stdin); w.Close() }"#;
    let command = format!(
        "cat > m.go <<'END'\n{program}\nEND\nGOFLAGS=-mod=mod GOCACHE=$PWD/cache go run m.go < s.db > out"
    );
    comes_out_of(&command, &[Layer::Lzw]);
}

#[test]
fn every_wrapping_that_is_cut_short_is_refused() {
    let zlib = "import zlib; open('out', 'wb').write(zlib.compress(open('s.db', 'rb').read()))";
    let zip = "import zipfile as z; f = z.ZipFile('out', 'w', z.ZIP_DEFLATED); f.write('s.db'); f.close()";
    for command in [
        "gzip -c s.db > out",
        "zstd -q s.db -o out",
        &format!("python3 -c \"{zlib}\""),
        &format!("python3 -c \"{zip}\""),
    ] {
        let folder = made_by(command);
        let file = File::options().write(true).open(folder.path().join("out")).unwrap();
        file.set_len(file.metadata().unwrap().len() - 20).unwrap();
        let error = unwrapped(&folder.path().join("out")).unwrap_err();
        assert!(error.is_damage(), "{command}: {error:?}");
    }
}

#[test]
fn an_archive_with_several_files_is_not_guessed_at() {
    let zip = "import zipfile as z; f = z.ZipFile('out', 'w'); f.write('s.db', '../../a'); f.write('s.db', 'b'); f.close()";
    let folder = made_by(&format!("python3 -c \"{zip}\""));
    let error = unwrapped(&folder.path().join("out")).unwrap_err();
    let ImportError::Unwrap { source: LayerError::Entries { files: 2, names }, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(names, ["../../a", "b"]);
}

#[test]
fn no_more_is_written_than_there_is_room_for() {
    let folder = made_by("cat s.db /dev/zero | head -c 50000000 | gzip -c > out");
    let mut output = Vec::new();
    let file = File::open(folder.path().join("out")).unwrap();
    let error = unwrap("it", file, &mut output, 2_000_000, &Identities::none()).unwrap_err();
    assert!(
        matches!(
            &error,
            ImportError::Unwrap { source: LayerError::TooLarge { max: 2_000_000 }, .. }
        ),
        "{error:?}"
    );
    assert!(output.len() <= 2_000_000);
}

#[test]
fn what_is_no_backup_is_said_to_be_none() {
    let mut file = tempfile::tempfile().unwrap();
    for content in
        [&b""[..], b"x", b"\x00\x01", b"\x00\x01\x02\x03\x04garbage", b"hello, world", &[0; 9000]]
    {
        file.set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        let file = file.try_clone().unwrap();
        let error = unwrap("it", file, &mut Vec::new(), ROOM, &Identities::none()).unwrap_err();
        assert!(
            matches!(
                &error,
                ImportError::Unwrap {
                    source: LayerError::Unknown | LayerError::Damaged { .. },
                    ..
                }
            ),
            "{content:?}: {error:?}"
        );
    }
}

#[test]
fn what_age_has_encrypted_is_opened_with_the_identity_and_not_without() {
    let folder = made_by(":");
    let key = age::x25519::Identity::generate().to_string();
    let mut identities = Identities::none();
    identities.add(key.expose_secret(), "the test").unwrap();
    let recipients = identities.recipients();
    let encoding = repository::codec::Encoding { recipients, ..Default::default() };
    let path = folder.path().join("out");
    let out = File::create(&path).unwrap();
    repository::codec::encode("out", &snapshot()[..], out, &encoding, &|_| {}).unwrap();

    let opened = |identities: &Identities| {
        let mut output = Vec::new();
        unwrap("it", File::open(&path).unwrap(), &mut output, ROOM, identities).map(|_| output)
    };
    assert!(opened(&identities).unwrap() == snapshot());
    assert!(matches!(opened(&Identities::none()), Err(ImportError::Decrypt { .. })));
}

#[test]
fn a_folder_is_searched_and_a_data_directory_is_refused() {
    let folder = made_by(
        "mkdir -p etcdbr/v2 member/snap; touch member/snap/db; mv s.db etcdbr/v2/Full-00000000-00000600-1763829864",
    );
    let (found, left) = find(&folder.path().join("etcdbr")).unwrap();
    assert!(found.ends_with("etcdbr/v2/Full-00000000-00000600-1763829864") && left.is_empty());
    let error = find(folder.path()).unwrap_err();
    assert!(matches!(error, ImportError::DataDir { .. }), "{error:?}");
}
