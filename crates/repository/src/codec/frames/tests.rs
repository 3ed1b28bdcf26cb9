use super::*;
use proptest::prelude::*;
use std::process::{Command, Stdio};

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// Half noise, half text.
fn data(bytes: usize) -> Vec<u8> {
    let mut data = noise(bytes);
    for (n, chunk) in data.chunks_mut(100).enumerate() {
        if n % 2 == 0 {
            chunk.fill(b'a' + u8::try_from(n % 23).unwrap());
        }
    }
    data
}

fn packed(content: &[u8], workers: usize) -> Vec<u8> {
    let mut out = Vec::new();
    compress(&mut &*content, &mut out, 1, workers, &|_| ()).unwrap();
    out
}

fn unpacked(mut stored: &[u8], workers: usize) -> Result<Vec<u8>, FrameError> {
    let mut out = Vec::new();
    match decompress(&mut stored, &mut out, workers, &|_| ()) {
        Ok(()) => Ok(out),
        Err(PassError::Frame(error)) => Err(error),
        Err(error) => panic!("{error:?}"),
    }
}

/// Runs a stock command over bytes.
fn stock(command: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    let out = Command::new(command)
        .args(args)
        .stdin(Stdio::from(file))
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|e| panic!("{command} is needed: {e}"));
    assert!(out.status.success(), "{command} {args:?}");
    out.stdout
}

#[test]
fn content_of_any_size_comes_back_from_any_number_of_workers() {
    for bytes in [0, 1, 1000, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES] {
        let content = data(bytes);
        let stored = packed(&content, 3);
        assert_eq!(stored, packed(&content, 1), "{bytes}: workers do not change what is written");
        for workers in [1, 3] {
            assert!(unpacked(&stored, workers).unwrap() == content, "{bytes}, {workers}");
        }
    }
}

#[test]
fn a_hundred_megabytes_of_noise_and_of_zeros_come_back() {
    for content in [noise(100 << 20), vec![0; 100 << 20]] {
        assert!(unpacked(&packed(&content, 2), 2).unwrap() == content);
    }
}

#[test]
fn zstd_reads_what_we_write() {
    for bytes in [0, 1, FRAME_BYTES, 2 * FRAME_BYTES + 17] {
        let content = data(bytes);
        assert!(stock("zstd", &["-dqc"], &packed(&content, 2)) == content, "{bytes}");
    }
}

#[test]
fn we_read_what_zstd_writes_with_any_of_its_options() {
    let content = data(20 << 20);
    for args in [
        &["-qc"] as &[&str],
        &["-qc", "-1", "--no-check"],
        &["-qc", "-19", "--long=23"],
        &["-qc", "-T2", "-B1048576"],
        &["-qc", "--stream-size=20971520"],
    ] {
        let content = if args.contains(&"-19") { &content[..9 << 20] } else { &content[..] };
        let stored = stock("zstd", args, content);
        for workers in [1, 3] {
            assert!(unpacked(&stored, workers).unwrap() == content, "{args:?}");
        }
    }
    for bytes in [0, 1, 300, 100_000] {
        let content = data(bytes);
        assert!(unpacked(&stock("zstd", &["-qc"], &content), 2).unwrap() == content, "{bytes}");
    }
}

#[test]
fn frames_of_every_kind_may_follow_each_other() {
    let content = data(1 << 20);
    let skippable = [b"\x53\x2A\x4D\x18\x05\0\0\0hello" as &[u8]].concat();
    let streamed = stock("zstd", &["-qc"], &content);
    let whole = packed(&content, 1);
    let parts = [&skippable, &whole, &streamed, &skippable, &streamed, &whole, &skippable];
    let stored: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
    for workers in [1, 3] {
        assert!(unpacked(&stored, workers).unwrap() == content.repeat(4));
    }
}

#[test]
fn a_window_or_a_dictionary_that_we_do_not_have_is_refused_with_its_place() {
    let content = data(20 << 20);
    let stored = stock("zstd", &["-qc", "-3", "--long=27"], &content);
    let expected =
        "the zstd frame at offset 0 needs a window of 134217728 bytes, more than 8388608";
    assert_eq!(unpacked(&stored, 2).unwrap_err().to_string(), expected);

    // Single segment, a dictionary's id of one byte, content of one byte.
    let dictionary = [&MAGIC.to_le_bytes()[..], &[0x21, 7, 1, 9, 0, 0, b'x']].concat();
    assert!(matches!(unpacked(&dictionary, 1), Err(FrameError::Dictionary { offset: 0 })));
}

#[test]
fn a_small_file_cannot_ask_for_much_memory() {
    // A single segment that claims 2^60 bytes: its window would be as large.
    let claim = [&MAGIC.to_le_bytes()[..], &[0xE0], &(1_u64 << 60).to_le_bytes()].concat();
    assert!(
        matches!(unpacked(&claim, 1), Err(FrameError::Window { bytes, .. }) if bytes == 1 << 60)
    );
    // A megabyte of empty blocks in a frame of one byte.
    let mut blocks = [&MAGIC.to_le_bytes()[..], &[0x20, 1]].concat();
    blocks.resize(1 << 20, 0);
    assert!(matches!(unpacked(&blocks, 1), Err(FrameError::Malformed { offset: 0, .. })));
}

#[test]
fn a_frame_cut_anywhere_is_cut_short() {
    let frame = packed(b"hello, hello, hello", 1);
    let whole = [&frame[..], &frame[..]].concat();
    for cut in (0..whole.len()).filter(|cut| *cut != frame.len()) {
        let error = unpacked(&whole[..cut], 1).unwrap_err();
        let offset = if cut < frame.len() { 0 } else { frame.len() } as u64;
        match error {
            FrameError::CutShort { offset: found, end } => {
                assert_eq!((found, end), (offset, cut as u64));
            }
            error => panic!("{cut}: {error}"),
        }
    }
    let streamed = stock("zstd", &["-qc"], &data(500_000));
    for cut in [5, 100, streamed.len() / 2, streamed.len() - 1] {
        let error = unpacked(&streamed[..cut], 2).unwrap_err();
        assert!(matches!(error, FrameError::CutShort { offset: 0, .. }), "{cut}: {error}");
    }
}

#[test]
fn an_error_of_either_end_stops_all_threads_and_is_told() {
    struct Failing(u64);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(io::Error::other("the disk is gone"))?;
            Ok(buffer.len())
        }
    }
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let read = compress(&mut Failing(1000), &mut io::sink(), 1, 3, &|_| ());
    assert!(matches!(read, Err(PassError::Read(_))));
    let write = compress(&mut io::repeat(7), &mut Full, 1, 3, &|_| ());
    assert!(matches!(write, Err(PassError::Write(_))));
    let stored = packed(&data(5 * FRAME_BYTES), 2);
    let write = decompress(&mut stored.as_slice(), &mut Full, 3, &|_| ());
    assert!(matches!(write, Err(PassError::Write(_))));
}

/// A reader that gives as few bytes at a time as it is told.
struct Dribble<'a> {
    rest: &'a [u8],
    sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes.next().copied().unwrap_or(1).min(buffer.len());
        (&mut self.rest).take(size as u64).read(buffer)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_found_however_the_input_is_cut_into_reads(
        lengths in prop::collection::vec(0..20_000_usize, 1..6),
        sizes in prop::collection::vec(1..5000_usize, 1..8),
        is_streamed: bool,
    ) {
        let mut stored = Vec::new();
        let mut content = Vec::new();
        for length in lengths {
            let part = data(length);
            stored.extend(if is_streamed {
                zstd::stream::encode_all(part.as_slice(), 1).unwrap()
            } else {
                packed(&part, 1)
            });
            content.extend(part);
        }
        let mut input = Dribble { rest: &stored, sizes: sizes.iter().cycle() };
        let mut out = Vec::new();
        decompress(&mut input, &mut out, 1, &|_| ()).unwrap();
        prop_assert!(out == content);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = unpacked(&bytes, 1);
        let _ = unpacked(&[&MAGIC.to_le_bytes()[..], &bytes].concat(), 1);
    }

    /// Goal: we accept nothing that zstd does not. Method: change one byte of a frame of each kind.
    #[test]
    fn what_we_decode_zstd_decodes_to_the_same(at: prop::sample::Index, bit in 0..8_u32, is_streamed: bool) {
        let content = data(3000);
        let mut stored = if is_streamed {
            zstd::stream::encode_all(content.as_slice(), 1).unwrap()
        } else {
            packed(&content, 1)
        };
        let at = at.index(stored.len());
        stored[at] ^= 1 << bit;
        let judge = zstd::stream::decode_all(stored.as_slice());
        if let Ok(ours) = unpacked(&stored, 1) {
            prop_assert!(judge.unwrap() == ours);
        }
    }
}
