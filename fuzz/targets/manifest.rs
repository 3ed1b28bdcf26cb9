//! Any bytes as a manifest: no panic, and what is read can be written and is read as the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repository::manifest::{Committed, generation_of, manifest_generation, manifest_name};

fuzz_target!(|input: &[u8]| {
    if let Ok(committed) = Committed::parse("manifest.json", input) {
        let json = match &committed {
            Committed::Backup(manifest) => serde_json::to_vec(manifest),
            Committed::Abandoned(abandoned) => serde_json::to_vec(abandoned),
        };
        let json = json.expect("a manifest is plain data");
        assert_eq!(Committed::parse("again", &json).expect("we wrote it"), committed);
    }
    if let Some(generation) = str::from_utf8(input).ok().and_then(manifest_generation) {
        assert_eq!(manifest_name(generation).as_bytes(), input);
    }
    let _ = str::from_utf8(input).map(generation_of);
});
