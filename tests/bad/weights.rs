//! Rows W: safetensors files that are damaged, hostile or something else altogether.

#![allow(clippy::unwrap_used)]

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Bytes, DType};
use janus_model::ErrorKind;
use janus_model::checkpoint::{
    Checkpoint, CheckpointError, HeaderError, Impostor, LazyTensor, Limits, Mismatch, check_tensors,
};
use proptest::prelude::*;

/// A header and data as a safetensors file.
pub(super) fn safetensors(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

/// One entry of a header.
pub(super) fn entry(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

/// A valid file of f32 zeros: one tensor of four elements per name.
pub(super) fn valid(names: &[&str]) -> Vec<u8> {
    let row = |(i, name): (usize, &&str)| {
        entry(name, "F32", "[4]", &format!("[{},{}]", 16 * i, 16 * i + 16))
    };
    let rows: Vec<_> = names.iter().enumerate().map(row).collect();
    let mut header = format!("{{{}}}", rows.join(","));
    // Aligned data, as every writer makes it, is mapped; misaligned data would be copied.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    safetensors(header, &vec![0; 16 * names.len()])
}

/// A folder with these files, and its path.
pub(super) fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model");
    fs::create_dir(&dir).unwrap();
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
    (root, dir)
}

pub(super) fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::open(path, &Limits::default())
}

/// Opens a folder that holds `bytes` as its only file.
pub(super) fn open_as(name: &str, bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let (_root, dir) = folder(&[(name, bytes)]);
    open(&dir)
}

/// The message with its causes, as a person sees it.
pub(super) fn message(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").unwrap();
        cause = error.source();
    }
    text
}

#[track_caller]
pub(super) fn assert_says(error: &dyn Error, words: &[&str]) {
    let text = message(error);
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "unescaped: {text:?}");
}

/// Opens `bytes` as safetensors, expecting the header to be refused.
#[track_caller]
fn header_error(bytes: &[u8], words: &[&str]) -> HeaderError {
    let error = open_as("model.safetensors", bytes).unwrap_err();
    assert_says(&error, words);
    assert_says(&error, &["model.safetensors"]);
    assert_eq!(error.kind(), ErrorKind::BadData);
    match error {
        CheckpointError::Header { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn w1_too_small() {
    for bytes in [&b""[..], b"\x02\0\0\0\0\0\0"] {
        let error = header_error(bytes, &["too few"]);
        assert!(matches!(error, HeaderError::HeaderTooSmall { .. }));
    }
}

#[test]
fn w2_header_longer_than_file() {
    let bytes = [&1000_u64.to_le_bytes()[..], b"{}"].concat();
    let error = header_error(&bytes, &["1000", "10"]);
    assert!(matches!(error, HeaderError::InvalidHeaderLength { length: 1000, file: 10 }));
}

#[test]
fn w3_header_length_absurd() {
    for length in [u64::MAX, 1 << 40, (16 << 20) + 1] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        let error = header_error(&bytes, &[&length.to_string(), "16777216"]);
        assert!(matches!(error, HeaderError::HeaderTooLarge { .. }));
    }
}

#[test]
fn w4_header_not_json() {
    let error = header_error(&safetensors(b"{\xff\xfe}", b""), &["UTF-8"]);
    assert!(matches!(error, HeaderError::NotUtf8 { .. }));
    for header in ["{", "[]", "{}\0\0\0", "{} {}", "null", "{\"a\":1,}"] {
        let error = header_error(&safetensors(header, b""), &["header"]);
        let ok = matches!(error, HeaderError::NotJson { .. } | HeaderError::BadEntry { .. });
        assert!(ok, "{header}: {error:?}");
    }
    let error = open_as("model.safetensors", &safetensors("{}\0", b"")).unwrap_err();
    assert!(error.hint().unwrap().contains("re-export the file"));
}

#[test]
fn w5_duplicate_key() {
    let (a, b) = (entry("x", "F32", "[1]", "[0,4]"), entry("x", "F32", "[1]", "[4,8]"));
    let error = header_error(&safetensors(format!("{{{a},{b}}}"), &[0; 8]), &["duplicate key 'x'"]);
    assert!(matches!(error, HeaderError::DuplicateKey { key } if key == "x"));
}

#[test]
fn w6_overlapping_offsets() {
    let rows: Vec<_> = (0..10).map(|i| entry(&format!("t{i}"), "F32", "[1]", "[0,4]")).collect();
    let error = header_error(&safetensors(format!("{{{}}}", rows.join(",")), &[0; 4]), &["'t1'"]);
    assert!(matches!(error, HeaderError::InvalidOffset { expected: 4, .. }));
}

#[test]
fn w7_gap() {
    let (a, b) = (entry("a", "F32", "[1]", "[0,4]"), entry("b", "F32", "[1]", "[8,12]"));
    let error = header_error(&safetensors(format!("{{{a},{b}}}"), &[0; 12]), &["'b'", "8..12"]);
    assert!(matches!(error, HeaderError::InvalidOffset { begin: 8, expected: 4, .. }));
}

#[test]
fn w8_trailing_or_missing_bytes() {
    let header = format!("{{{}}}", entry("a", "F32", "[1]", "[0,4]"));
    for length in [3_usize, 5, 0] {
        let words = ["need 4 bytes", &format!("has {length}")];
        let error = header_error(&safetensors(&header, &vec![0; length]), &words);
        assert!(matches!(error, HeaderError::MetadataIncompleteBuffer { expected: 4, .. }));
    }
}

#[test]
fn w9_reversed_or_negative_range() {
    let file =
        |offsets: &str| safetensors(format!("{{{}}}", entry("a", "F32", "[1]", offsets)), &[0; 4]);
    let error = header_error(&file("[4,0]"), &["'a'", "4..0"]);
    assert!(matches!(error, HeaderError::InvalidOffset { .. }));
    let error = header_error(&file("[-4,0]"), &["'a'"]);
    assert!(matches!(error, HeaderError::BadEntry { .. }));
}

#[test]
fn w10_shape_and_range_disagree() {
    let bytes = safetensors(format!("{{{}}}", entry("a", "F32", "[2]", "[0,4]")), &[0; 4]);
    let error = header_error(&bytes, &["'a'", "8 bytes", "4"]);
    assert!(matches!(error, HeaderError::TensorInvalidInfo { expected: 8, found: 4, .. }));
}

#[test]
fn w11_size_overflows() {
    for shape in ["[4294967296,4294967296]", "[9223372036854775807]", "[18446744073709551615,2]"] {
        let bytes = safetensors(format!("{{{}}}", entry("a", "F32", shape, "[0,4]")), &[0; 4]);
        let error = header_error(&bytes, &["'a'", "overflow"]);
        assert!(matches!(error, HeaderError::ValidationOverflow { .. }));
    }
}

#[test]
fn w12_unsupported_dtype() {
    for dtype in ["F8_E4M3", "F4", "U64", "F64", "C64", "nonsense"] {
        let bytes = safetensors(format!("{{{}}}", entry("a", dtype, "[0]", "[0,0]")), &[]);
        let error = header_error(&bytes, &[dtype, "not supported for tensor 'a'"]);
        assert!(matches!(error, HeaderError::UnsupportedDtype { .. }));
    }
    // A known type that Janus does not compute with is refused once the tensor would be used.
    let bytes =
        safetensors(format!("{{{}}}", entry("gen_embed.weight", "I64", "[0]", "[0,0]")), &[]);
    let error = open_as("model.safetensors", &bytes).unwrap().canonical().unwrap_err();
    assert_says(&error, &["I64", "not supported for tensor 'gen_embed.weight'"]);
    assert!(matches!(error, CheckpointError::UnsupportedDtype { .. }));
}

/// Of several shards, the one that holds the tensor is named.
#[test]
fn w12_unsupported_dtype_in_a_shard() {
    let whole = safetensors(format!("{{{}}}", entry("whole", "I64", "[0]", "[0,0]")), &[]);
    let map = r#"{"weight_map":{"a":"1.safetensors","whole":"2.safetensors"}}"#.as_bytes();
    let (_root, dir) = folder(&[
        ("model.safetensors.index.json", map),
        ("1.safetensors", &valid(&["a"])),
        ("2.safetensors", &whole),
    ]);
    let error = open(&dir).unwrap().canonical().unwrap_err();
    assert_says(&error, &["2.safetensors", "I64", "'whole'"]);
}

/// Empty tensors may be of any height: joining three of them must not overflow.
#[test]
fn w14_heights_that_overflow() {
    let prefix = "model.vision_model.encoder.layers.0.self_attn";
    let row = |part| {
        entry(
            &format!("{prefix}.{part}_proj.weight"),
            "F32",
            &format!("[{},0]", u64::MAX / 2),
            "[0,0]",
        )
    };
    let bytes = safetensors(format!("{{{}}}", ["q", "k", "v"].map(row).join(",")), &[]);
    let checkpoint = open_as("model.safetensors", &bytes).unwrap();
    let tensors = checkpoint.canonical().unwrap().tensors;
    assert_eq!(tensors.len(), 3);
    assert!(tensors.iter().all(|tensor| tensor.name.starts_with(prefix)));
}

/// A header of many tiny tensors, near the cap on its length.
fn crowd(count: usize) -> Vec<u8> {
    let rows: Vec<_> = (0..count).map(|i| entry(&format!("{i}"), "U8", "[0]", "[0,0]")).collect();
    safetensors(format!("{{{}}}", rows.join(",")), b"")
}

#[test]
fn w13_too_many_tensors() {
    let error = header_error(&crowd(200_000), &["100000"]);
    assert!(matches!(error, HeaderError::TooManyTensors { limit: 100_000 }));
}

#[test]
fn w14_rank_and_empty_dimensions() {
    let bytes =
        safetensors(format!("{{{}}}", entry("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]")), &[0; 4]);
    let error = header_error(&bytes, &["'a'", "rank 9", "8"]);
    assert!(matches!(error, HeaderError::RankTooHigh { rank: 9, .. }));
    // An empty dimension is legal in the format; the model's own shapes refuse it.
    let bytes = safetensors(format!("{{{}}}", entry("a", "F32", "[0,4]", "[0,0]")), &[]);
    let checkpoint = open_as("model.safetensors", &bytes).unwrap();
    let error = Mismatch::check(&[("a".into(), vec![2, 4])], checkpoint.raw()).unwrap_err();
    assert_eq!(error.shape[0].found, [0, 4]);
}

fn zeros(name: &str, shape: &[usize]) -> LazyTensor {
    let bytes = Bytes::from_bytes_vec(vec![0; 4 * shape.iter().product::<usize>()]);
    LazyTensor::new(name.to_owned(), DType::F32, shape.to_vec(), None, bytes)
}

#[test]
fn w15_one_report_of_all_differences() {
    let expected: Vec<(String, Vec<usize>)> =
        [("kept", [2, 3]), ("turned", [2, 3]), ("wide", [2, 3])]
            .into_iter()
            .map(|(name, shape)| (name.to_owned(), shape.to_vec()))
            .chain((0..25).map(|i| (format!("absent.{i}"), vec![1])))
            .collect();
    let found = [
        zeros("kept", &[2, 3]),
        zeros("turned", &[3, 2]),
        zeros("wide", &[2, 4]),
        zeros("extra\n", &[1]),
    ];
    let mismatch = Mismatch::check(&expected, &found).unwrap_err();
    assert_eq!((mismatch.missing.len(), mismatch.unused.len(), mismatch.shape.len()), (25, 1, 2));
    assert!(mismatch.hint().unwrap().contains("transposed"));
    let error = CheckpointError::from(mismatch);
    let text = message(&error);
    for words in ["25 missing, 1 unused, 2 of another shape", "and 5 more", "'extra\\n'", "'wide'"]
    {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(Mismatch::check(&expected[..1], &found[..1]).is_ok());
}

#[test]
fn w16_not_finite() {
    let tensor = |name: &str, values: &[f32]| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = vec![values.len()];
        LazyTensor::new(name.into(), DType::F32, shape, None, Bytes::from_bytes_vec(bytes))
    };
    let good = tensor("good", &[0.0, f32::MAX]);
    let bad = tensor("bad", &[1.0, f32::NAN, f32::INFINITY]);
    assert!(check_tensors([&good]).is_ok());
    let error = check_tensors([&good, &bad]).unwrap_err();
    assert_says(&error, &["'bad'", "2 of 3", "index 1"]);
    assert!(matches!(error, CheckpointError::NonFinite { count: 2, first: 1, .. }));
}

#[test]
fn w17_hostile_names() {
    let bytes = safetensors(
        format!("{{{}}}", entry(r"a\u0000\u001b[31m\nERROR", "F32", "[1]", "[0,8]")),
        &[0; 8],
    );
    header_error(&bytes, &[r"a\0\u{1b}[31m\nERROR"]);
    let long = "n".repeat(1 << 20);
    let bytes = safetensors(format!("{{{}}}", entry(&long, "F32", "[1]", "[0,4]")), &[0; 4]);
    let error = open_as("model.safetensors", &bytes).unwrap_err();
    assert_says(&error, &["1048576 bytes", "512"]);
    assert!(message(&error).len() < 1000);
}

/// The parser quotes what it does not expect.
#[test]
fn w17_long_values() {
    let long = format!("\"{}\u{9b}\"", "n".repeat(1 << 20));
    let bad_shape = format!(r#"{{"a":{{"dtype":"F32","shape":{long},"data_offsets":[0,4]}}}}"#);
    for header in [&long, &bad_shape] {
        let error = open_as("model.safetensors", &safetensors(header, b"")).unwrap_err();
        assert!(message(&error).len() < 1000);
    }
    let index = format!(r#"{{"weight_map":{long}}}"#);
    let error = open_as("model.safetensors.index.json", index.as_bytes()).unwrap_err();
    assert!(message(&error).len() < 1000);
    assert_says(&error, &["not a shard index"]);
}

#[test]
fn w18_truncated_while_mapped() {
    let (_root, dir) = folder(&[("model.safetensors", &valid(&["a"]))]);
    let checkpoint = open(&dir).unwrap();
    let file = fs::OpenOptions::new().write(true).open(dir.join("model.safetensors")).unwrap();
    file.set_len(20).unwrap();
    let error = check_tensors(checkpoint.raw()).unwrap_err();
    assert_says(&error, &["'a'", "truncated while in use", "20 now"]);
    assert!(matches!(error, CheckpointError::Draw { .. }));
}

#[test]
fn w18_lock_lasts_as_long_as_the_bytes() {
    let (_root, dir) = folder(&[("model.safetensors", &valid(&["a"]))]);
    let writer = fs::OpenOptions::new().write(true).open(dir.join("model.safetensors")).unwrap();
    writer.lock().unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, CheckpointError::Locked { .. }), "{error:?}");
    writer.unlock().unwrap();
    let bytes = open(&dir).unwrap().raw()[0].to_bytes().unwrap();
    assert!(writer.try_lock().is_err());
    drop(bytes);
    writer.try_lock().unwrap();
}

#[test]
fn w19_folder_in_place_of_file() {
    let (_root, dir) = folder(&[]);
    fs::create_dir(dir.join("model.safetensors")).unwrap();
    let error = open(&dir).unwrap_err();
    assert_says(&error, &["model.safetensors", "a folder"]);
    assert!(matches!(error, CheckpointError::NotRegular { .. }));
}

#[cfg(unix)]
#[test]
fn w19_pipe_device_and_links() {
    use std::os::unix::fs::symlink;
    let (_root, dir) = folder(&[]);
    let path = dir.join("model.safetensors");
    // Opening a pipe without a writer would block for ever.
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    assert!(matches!(open(&dir).unwrap_err(), CheckpointError::NotRegular { .. }));
    assert!(matches!(open(&path).unwrap_err(), CheckpointError::NotRegular { .. }));
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        open(Path::new("/dev/zero")).unwrap_err(),
        CheckpointError::NotRegular { .. }
    ));

    symlink("nowhere", &path).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, CheckpointError::NotFound { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Missing);
    fs::remove_file(&path).unwrap();
    symlink("model.safetensors", &path).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, CheckpointError::Io { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn w19_absent() {
    let (_root, dir) = folder(&[]);
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, CheckpointError::NoWeights { .. }));
    assert_says(&error, &["model.safetensors.index.json", "pytorch_model.bin"]);
    assert!(matches!(open(&dir.join("x")).unwrap_err(), CheckpointError::NotFound { .. }));
}

#[test]
fn w20_lfs_pointer_or_page() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4178705734\n";
    for name in ["model.safetensors", "pytorch_model.bin"] {
        let error = open_as(name, pointer).unwrap_err();
        assert!(error.hint().unwrap().contains("run `git lfs pull` in that folder"));
        let found = Impostor::LfsPointer;
        assert!(matches!(error, CheckpointError::NotWeights { found: f, .. } if f == found));
        let error = open_as(name, b"\n<!DOCTYPE html><html></html>").unwrap_err();
        assert_says(&error, &["HTML page"]);
    }
}

/// Peak memory is only measurable in a process of its own: this one opens the file named in the
/// environment and fails if refusing it took 64 MiB.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "started by refusing_costs_no_memory"]
fn memory_child() {
    let Some(path) = std::env::var_os("JANUS_BAD_FILE") else { return };
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = peak();
    open(Path::new(&path)).unwrap_err();
    let used = (peak() - before) / 1024;
    assert!(used < 64, "refusing this file took {used} MiB");
}

#[cfg(target_os = "linux")]
#[test]
fn refusing_costs_no_memory() {
    let huge_header = [&(1_u64 << 40).to_le_bytes()[..], b"{}"].concat();
    let huge_shape =
        safetensors(format!("{{{}}}", entry("a", "F32", "[1099511627776]", "[0,4]")), &[0; 4]);
    let mut cases = vec![
        ("w3.safetensors", huge_header),
        ("w11.safetensors", huge_shape),
        ("w13.safetensors", crowd(200_000)),
    ];
    cases.extend(super::pickle::memory_cases());
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in cases {
        let path = root.path().join(name);
        fs::write(&path, bytes).unwrap();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "weights::memory_child", "--ignored"])
            .env("JANUS_BAD_FILE", &path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{name}: {text}");
    }
}

/// Whatever opens must draw exactly the bytes its shapes imply.
pub(super) fn draw_all(checkpoint: &Checkpoint) {
    for tensor in checkpoint.raw() {
        let bytes = tensor.to_bytes().unwrap();
        let elements: usize = tensor.shape.to_vec().iter().product();
        assert_eq!(bytes.len(), elements * tensor.dtype.size());
    }
    let _ = checkpoint.canonical();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = open_as("model.safetensors", &bytes);
        let _ = open_as("pytorch_model.bin", &bytes);
        let _ = open_as("model.safetensors", &safetensors(&bytes, b""));
    }

    /// We are stricter than the reference implementation, never laxer.
    #[test]
    fn mutations_never_panic(at in 0_usize..190, byte in any::<u8>()) {
        let mut bytes = valid(&["a", "gen_embed.weight", "c"]);
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(checkpoint) = open_as("model.safetensors", &bytes) {
            draw_all(&checkpoint);
            prop_assert!(::safetensors::SafeTensors::deserialize(&bytes).is_ok());
        }
    }
}
