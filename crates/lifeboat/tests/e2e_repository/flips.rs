//! One bit of a stored object is wrong: `verify` finds it and `restore` refuses, whichever bit it is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::keys::Keys;
use crate::{Random, Repo, files, snapshot, text};

/// How many bits, spread over the object by chance.
const FLIPS: usize = 500;

fn every_flip_is_found(seed: u64, object_name: &str, repo: impl Fn(&Path) -> Repo) {
    let folder = tempfile::tempdir().unwrap();
    let repo = repo(folder.path());
    repo.backup(&snapshot()).ok();
    let object = files(folder.path()).into_iter().find(|path| path.ends_with(object_name)).unwrap();
    let file = File::options().read(true).write(true).open(&object).unwrap();
    let bytes = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let target = folder.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let data = target.join("data");

    let mut random = Random(seed);
    for flip in 0..FLIPS {
        // The first bytes are of another kind than the rest: a header, and the first frame's.
        let offset = if flip < 100 { flip * 2 + random.below(2) } else { random.below(bytes) };
        let bit = random.below(8);
        let place = format!("seed {seed}: bit {bit} of byte {offset} of {bytes}");
        let turn = || {
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset as u64).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << bit)], offset as u64).unwrap();
        };
        turn();
        let verify = repo.run(["verify", "--no-record"]);
        assert_eq!(verify.code, Some(3), "{place}\n{verify}");
        let restore = repo.run(["restore", "--data-dir", text(&data)]);
        assert_eq!(restore.code, Some(3), "{place}\n{restore}");
        let left = std::fs::read_dir(&target).unwrap().count();
        assert_eq!(left, 0, "{place}: something is left in the target\n{restore}");
        turn();
    }
    repo.run(["verify", "--no-record"]).ok();
    repo.run(["restore", "--data-dir", text(&data)]).ok();
}

#[test]
fn each_of_500_flipped_bits_of_a_compressed_object_is_found_and_not_restored() {
    every_flip_is_found(1, "db.zst", |folder| Repo::folder(&folder.join("repo")));
}

#[test]
fn each_of_500_flipped_bits_of_an_encrypted_object_is_found_and_not_restored() {
    every_flip_is_found(2, "db.zst.age", |folder| {
        Repo::folder(&folder.join("repo")).encrypted(&Keys::make_in(folder))
    });
}
