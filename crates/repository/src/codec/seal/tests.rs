use super::*;
use std::fs;
use std::process::Command;

const SECRET: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
const PUBLIC: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

fn identities() -> Identities {
    let mut identities = Identities::none();
    identities.add(SECRET, "a test").unwrap();
    identities
}

fn sealed(content: &[u8], recipients: &Recipients) -> Vec<u8> {
    let mut sealer = Sealer::new(recipients, Vec::new()).unwrap();
    sealer.write_all(content).unwrap();
    sealer.finish().unwrap()
}

fn opened(stored: &[u8], identities: &Identities) -> Result<Vec<u8>, SealError> {
    let mut opener = Opener::sealed(identities, stored)?;
    let mut out = Vec::new();
    opener.read_to_end(&mut out).map_err(read_failed)?;
    Ok(out)
}

fn no_passphrase(_: &Path) -> io::Result<SecretString> {
    panic!("nobody needs a passphrase")
}

#[test]
fn each_of_several_recipients_can_read() {
    let other = x25519::Identity::generate();
    let mut recipients: Recipients = PUBLIC.parse().unwrap();
    recipients.add(&format!(" {}\n", other.to_public())).unwrap();
    recipients.add(PUBLIC).unwrap();
    assert_eq!(recipients.keys().len(), 2, "the same key counts once");
    for bytes in [0, 1, 65_535, 65_536, 65_537, 200_000] {
        let content = vec![7; bytes];
        let stored = sealed(&content, &recipients);
        assert!(opened(&stored, &identities()).unwrap() == content);
        assert!(opened(&stored, &Identities { keys: vec![other.clone()] }).unwrap() == content);
    }
}

#[test]
fn another_key_and_no_key_are_told_apart_from_damage() {
    let stored = sealed(b"content", &PUBLIC.parse().unwrap());
    let other = Identities { keys: vec![x25519::Identity::generate()] };
    assert!(matches!(opened(&stored, &other), Err(SealError::NotForUs)));
    assert!(matches!(opened(&stored, &Identities::none()), Err(SealError::NoIdentity)));
    assert!(matches!(opened(b"hello", &other), Err(SealError::NotAge)));
    assert!(matches!(opened(b"", &other), Err(SealError::NotAge)));
}

#[test]
fn a_cut_at_any_place_is_found() {
    let content = vec![7; 3 * 65_536];
    let stored = sealed(&content, &PUBLIC.parse().unwrap());
    let header = stored.len() - content.len() - 3 * 16;
    let pieces = (0..4).flat_map(|n| [0, 1, 15, 16, 17].map(|more| header + n * 65_552 + more));
    for cut in (0..header).chain(pieces).filter(|cut| *cut < stored.len()) {
        let error = opened(&stored[..cut], &identities()).unwrap_err();
        assert!(error.is_damage(), "{cut}: {error}");
    }
    let longer = [&stored[..], b"x"].concat();
    assert!(matches!(
        opened(&longer, &identities()),
        Err(SealError::Damaged | SealError::CutShort)
    ));
}

#[test]
fn a_header_without_end_is_refused_before_it_fills_the_memory() {
    let endless = io::Read::chain(MAGIC, io::repeat(b'x'));
    let error = Opener::sealed(&identities(), endless).err().unwrap();
    assert!(matches!(error, SealError::Header), "{error}");
    let lines = [MAGIC, &b"-> x\n".repeat(1 << 20)].concat();
    assert!(matches!(opened(&lines, &identities()), Err(SealError::Header)));
}

#[test]
fn an_error_of_the_input_is_not_taken_for_damage() {
    struct Reset;
    impl Read for Reset {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
    let stored = sealed(&[7; 100_000], &PUBLIC.parse().unwrap());
    for cut in [0, 10, 200, 90_000] {
        let mut opener = match Opener::sealed(&identities(), (&stored[..cut]).chain(Reset)) {
            Ok(opener) => opener,
            Err(error) => {
                assert!(matches!(error, SealError::Read(_)), "{cut}: {error}");
                continue;
            }
        };
        let error = read_failed(opener.read_to_end(&mut Vec::new()).unwrap_err());
        assert!(matches!(error, SealError::Read(_)), "{cut}: {error}");
    }
}

#[test]
fn keys_are_read_from_files_with_comments() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    fs::write(&path, format!("# created: today\n\n{PUBLIC}\r\n")).unwrap();
    let mut recipients = Recipients::none();
    recipients.add_file(&path).unwrap();
    assert_eq!(recipients.keys(), [PUBLIC]);

    fs::write(&path, format!("# public key: {PUBLIC}\n{SECRET}\n")).unwrap();
    let mut identities = Identities::none();
    identities.add_file(&path, no_passphrase).unwrap();
    assert_eq!(identities.recipients(), recipients);
}

#[test]
fn a_bad_key_is_named_by_its_place_and_a_secret_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let short = SECRET.trim_end_matches("AEX");
    for text in [SECRET, short, &SECRET.to_lowercase(), "hunter2"] {
        fs::write(&path, format!("\n{text}\n")).unwrap();
        let mut recipients = Recipients::none();
        let errors = [recipients.add_file(&path), recipients.add(text)].map(Result::unwrap_err);
        assert!(errors[0].to_string().starts_with("line 2 of"), "{}", errors[0]);
        for error in errors {
            assert!(!format!("{error:?} {error}").contains(text), "{error:?}");
        }
    }
    fs::write(&path, short).unwrap();
    let mut identities = Identities::none();
    let error = identities.add_file(&path, no_passphrase).unwrap_err();
    assert!(!format!("{error:?} {error}").contains(short), "{error:?}");
    identities.add(SECRET, "a test").unwrap();
    assert!(!format!("{identities:?}").contains(SECRET));

    let error = "age1xyz".parse::<Recipients>().unwrap_err();
    assert_eq!(error.to_string(), "\"age1xyz\" is no age recipient: one begins with age1");
    fs::write(&path, "# nothing\n").unwrap();
    assert!(matches!(identities.add_file(&path, no_passphrase), Err(SealError::NoKeys { .. })));
    fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
    let error = identities.add_file(&path, no_passphrase).unwrap_err();
    assert!(matches!(error, SealError::KeyFileSize { .. }), "{error}");
}

/// An identity file as `age -p` writes it, which takes its passphrase only from a terminal.
fn locked(work_factor: u8, passphrase: &str) -> Vec<u8> {
    let mut recipient = scrypt::Recipient::new(passphrase.to_owned().into());
    recipient.set_work_factor(work_factor);
    let recipients: [&dyn age::Recipient; 1] = [&recipient];
    let encryptor = Encryptor::with_recipients(recipients.into_iter()).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(SECRET.as_bytes()).unwrap();
    writer.finish().unwrap()
}

fn armored(bytes: &[u8]) -> Vec<u8> {
    let mut writer =
        age::armor::ArmoredWriter::wrap_output(Vec::new(), age::armor::Format::AsciiArmor).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

#[test]
fn a_passphrase_opens_a_file_of_identities_armored_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.age");
    let file = locked(4, "open sesame");
    for file in [armored(&file), file] {
        fs::write(&path, file).unwrap();
        let mut identities = Identities::none();
        identities.add_file(&path, |_| Ok("open sesame".to_owned().into())).unwrap();
        assert_eq!(identities.recipients().keys(), [PUBLIC]);

        let wrong = identities.add_file(&path, |_| Ok("please".to_owned().into())).unwrap_err();
        assert!(matches!(wrong, SealError::Passphrase { .. }), "{wrong}");
        let none = identities.add_file(&path, |_| Err(io::ErrorKind::NotFound.into())).unwrap_err();
        assert!(matches!(none, SealError::NoPassphrase { .. }), "{none}");
    }
}

#[test]
fn a_passphrase_that_costs_too_much_is_refused_before_it_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.age");
    // What a hostile file asks for stands in the clear.
    let file = locked(4, "open sesame");
    let text = String::from_utf8_lossy(&file);
    let at = text.find(" 4\n").expect("the work factor ends the stanza's first line") + 1;
    let file = [&file[..at], b"62", &file[at + 1..]].concat();
    fs::write(&path, file).unwrap();
    let error =
        Identities::none().add_file(&path, |_| Ok("open sesame".to_owned().into())).unwrap_err();
    assert!(matches!(error, SealError::Work { work_factor: 62, .. }), "{error}");
}

#[test]
fn a_file_encrypted_to_a_key_is_no_file_of_identities() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.age");
    fs::write(&path, sealed(b"x", &PUBLIC.parse().unwrap())).unwrap();
    let error = Identities::none().add_file(&path, no_passphrase).unwrap_err();
    assert!(matches!(error, SealError::NotByPassphrase { .. }), "{error}");
}

#[test]
fn age_reads_what_we_write_and_we_what_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let run = |command: &mut Command| {
        let status = command.status().unwrap_or_else(|e| panic!("age is needed: {e}"));
        assert!(status.success(), "{command:?}");
    };
    run(Command::new("age-keygen").arg("-o").arg(path("key")));
    let mut identities = Identities::none();
    identities.add_file(&path("key"), no_passphrase).unwrap();
    let recipients = identities.recipients();
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();

    fs::write(path("ours.age"), sealed(&content, &recipients)).unwrap();
    let (ours, out) = (path("ours.age"), path("out"));
    run(Command::new("age").arg("-d").arg("-i").arg(path("key")).arg("-o").arg(&out).arg(ours));
    assert!(fs::read(&out).unwrap() == content);

    fs::write(path("plain"), &content).unwrap();
    let theirs = path("theirs.age");
    let key = &recipients.keys()[0];
    run(Command::new("age").args(["-r", key]).arg("-o").arg(&theirs).arg(path("plain")));
    assert!(opened(&fs::read(theirs).unwrap(), &identities).unwrap() == content);
}
