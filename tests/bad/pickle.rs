//! Rows P: PyTorch archives that are damaged, hostile, or more than a state dict.

#![allow(clippy::unwrap_used)]

use std::fs;

use janus_model::ErrorKind;
use janus_model::checkpoint::{
    Checkpoint, CheckpointError, Format, Impostor, Limits, PickleError, ViewProblem, ZipError,
};
use proptest::prelude::*;

use super::weights::{assert_says, draw_all, folder, open, open_as, valid};

const BIN: &str = "pytorch_model.bin";
const SYSTEM: &[u8] = b"cposix\nsystem\n";

// --- building archives ---

/// One entry as it will stand in the archive; tests bend single fields.
struct Part {
    name: String,
    data: Vec<u8>,
    flags: u16,
    method: u16,
    /// Size as the central directory claims it, if it lies.
    claimed: Option<u32>,
}

fn part(name: &str, data: &[u8]) -> Part {
    Part { name: name.into(), data: data.into(), flags: 0, method: 0, claimed: None }
}

fn put(target: &mut Vec<u8>, numbers: &[(u64, usize)]) {
    for (number, width) in numbers {
        target.extend_from_slice(&number.to_le_bytes()[..*width]);
    }
}

/// A zip file of stored entries; `entries` overrides the number in the end record.
fn zip_claiming(parts: &[Part], entries: Option<u64>) -> Vec<u8> {
    let (mut file, mut central) = (Vec::new(), Vec::new());
    for part in parts {
        let (name, local) = (part.name.len() as u64, file.len() as u64);
        let size = part.data.len() as u64;
        let claimed = part.claimed.map_or(size, u64::from);
        let (flags, method) = (u64::from(part.flags), u64::from(part.method));
        put(&mut file, &[(0x0403_4b50, 4), (20, 2), (flags, 2), (method, 2), (0, 4), (0, 4)]);
        put(&mut file, &[(size, 4), (size, 4), (name, 2), (0, 2)]);
        file.extend_from_slice(part.name.as_bytes());
        file.extend_from_slice(&part.data);
        put(&mut central, &[(0x0201_4b50, 4), (20, 2), (20, 2), (flags, 2), (method, 2)]);
        put(&mut central, &[(0, 4), (0, 4), (claimed, 4), (claimed, 4), (name, 2), (0, 2)]);
        put(&mut central, &[(0, 2), (0, 2), (0, 2), (0, 4), (local, 4)]);
        central.extend_from_slice(part.name.as_bytes());
    }
    let (offset, size) = (file.len() as u64, central.len() as u64);
    let entries = entries.unwrap_or(parts.len() as u64);
    file.extend_from_slice(&central);
    put(&mut file, &[(0x0605_4b50, 4), (0, 4), (entries, 2), (entries, 2)]);
    put(&mut file, &[(size, 4), (offset, 4), (0, 2)]);
    file
}

fn zip(parts: &[Part]) -> Vec<u8> {
    zip_claiming(parts, None)
}

/// The parts of a checkpoint with this pickle and one storage of sixteen bytes.
fn parts(pickle: &[u8]) -> Vec<Part> {
    let storage: Vec<u8> = (0..4).flat_map(|i: u8| f32::from(i).to_le_bytes()).collect();
    vec![
        part("archive/data.pkl", pickle),
        part("archive/byteorder", b"little"),
        part("archive/data/0", &storage),
        part("archive/version", b"3\n"),
    ]
}

fn checkpoint(pickle: &[u8]) -> Vec<u8> {
    zip(&parts(pickle))
}

// --- building pickles ---

fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn int(number: i64) -> Vec<u8> {
    [&b"\x8a\x08"[..], &number.to_le_bytes()].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(".to_vec(), items.concat(), b"t".to_vec()].concat()
}

fn ints(numbers: &[i64]) -> Vec<u8> {
    tuple(&numbers.iter().map(|&number| int(number)).collect::<Vec<_>>())
}

/// Offset, size and stride.
type View<'a> = (i64, &'a [i64], &'a [i64]);

/// A tensor of `torch.<kind>` storage `key` with `elements` elements.
fn tensor(kind: &str, key: &str, elements: i64, view: View<'_>) -> Vec<u8> {
    let (offset, size, stride) = view;
    let storage = format!("ctorch\n{kind}\n").into_bytes();
    let id = tuple(&[text("storage"), storage, text(key), text("cpu"), int(elements)]);
    let hooks = b"ccollections\nOrderedDict\n)R".to_vec();
    let arguments =
        [[id, b"Q".to_vec()].concat(), int(offset), ints(size), ints(stride), vec![0x89], hooks];
    [b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(), tuple(&arguments), b"R".to_vec()].concat()
}

/// A plain view of the whole storage.
fn plain() -> Vec<u8> {
    tensor("FloatStorage", "0", 4, (0, &[2, 2], &[2, 1]))
}

/// An `OrderedDict` of these entries, with attributes, as `torch.save` writes it.
fn state_dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut code = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
    for (name, value) in items {
        code.extend([text(name), value.clone()].concat());
    }
    code.extend(b"u}q\x02");
    code.extend(text("_metadata"));
    code.extend(b"h\x00)Rsb.");
    code
}

// --- expecting errors ---

#[track_caller]
fn pickle_error(pickle: &[u8], words: &[&str]) -> PickleError {
    archive_refused(&checkpoint(pickle), words)
}

#[track_caller]
fn archive_refused(archive: &[u8], words: &[&str]) -> PickleError {
    let error = open_as(BIN, archive).unwrap_err();
    assert_says(&error, words);
    assert_says(&error, &[BIN]);
    assert_eq!(error.kind(), ErrorKind::BadData);
    assert!(error.hint().is_some());
    match error {
        CheckpointError::Pickle { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn zip_error(archive: &[u8], words: &[&str]) -> ZipError {
    let error = open_as(BIN, archive).unwrap_err();
    assert_says(&error, words);
    match error {
        CheckpointError::Archive { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn view_error(tensor: Vec<u8>, words: &[&str]) -> ViewProblem {
    let words: Vec<_> = words.iter().copied().chain(["'w'"]).collect();
    match pickle_error(&state_dict(&[("w", tensor)]), &words) {
        PickleError::BadView { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

// --- what works ---

#[test]
fn state_dict_opens() {
    let transposed = tensor("FloatStorage", "0", 4, (0, &[2, 2], &[1, 2]));
    let second = tensor("FloatStorage", "0", 4, (2, &[2], &[1]));
    let parameter = [
        b"ctorch._utils\n_rebuild_parameter\n".to_vec(),
        tuple(&[plain(), vec![0x88], b"ccollections\nOrderedDict\n)R".to_vec()]),
        b"R".to_vec(),
    ]
    .concat();
    let items = [("a", plain()), ("b", transposed), ("c", second), ("d", parameter)];
    let checkpoint = open_as(BIN, &checkpoint(&state_dict(&items))).unwrap();
    assert_eq!(checkpoint.files[0].format, Format::Pickle);
    let floats = |i: usize| -> Vec<f32> {
        let bytes = checkpoint.raw()[i].to_bytes().unwrap();
        bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    assert_eq!(floats(0), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(floats(1), [0.0, 2.0, 1.0, 3.0]);
    assert_eq!(floats(2), [2.0, 3.0]);
    assert_eq!(floats(3), floats(0));
}

// --- P1, P2: nothing is ever called ---

#[test]
fn p1_forbidden_global() {
    let root = tempfile::tempdir().unwrap();
    let witness = root.path().join("executed");
    let command = format!("touch {}", witness.display());
    let call = [SYSTEM.to_vec(), tuple(&[text(&command)]), b"R".to_vec()].concat();
    let error =
        pickle_error(&[b"\x80\x02".to_vec(), call, b".".to_vec()].concat(), &["posix.system"]);
    assert!(matches!(error, PickleError::ForbiddenGlobal { at: 2, .. }), "{error:?}");
    assert!(!witness.exists());
}

#[test]
fn p1_forbidden_stack_global() {
    let code = [b"\x80\x04".to_vec(), text("os"), text("system"), b"\x93.".to_vec()].concat();
    let error = pickle_error(&code, &["os.system", "byte 20"]);
    assert!(matches!(error, PickleError::ForbiddenGlobal { at: 20, .. }), "{error:?}");
}

/// Names close to allowed ones are not allowed.
#[test]
fn p1_near_misses() {
    for (module, name) in [
        ("torch._utils", "_rebuild_tensor"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch", "EvilStorage"),
        ("builtins", "eval"),
    ] {
        let code = format!("\u{2}c{module}\n{name}\n.").into_bytes();
        let error = pickle_error(&[&[0x80], &code[..]].concat(), &[&format!("{module}.{name}")]);
        assert!(matches!(error, PickleError::ForbiddenGlobal { .. }));
    }
}

#[test]
fn p2_forbidden_calls() {
    let rows: [(&[u8], &str); 3] = [
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "REDUCE"),
        (b"\x80\x02K\x01)R.", "REDUCE"),
        (b"\x80\x02]}b.", "BUILD"),
    ];
    for (code, what) in rows {
        let error = pickle_error(code, &[what]);
        assert!(matches!(error, PickleError::ForbiddenCall { .. }), "{error:?}");
    }
    let rows: [(&[u8], &str); 6] = [
        (b"\x80\x02(iposix\nsystem\n.", "INST"),
        (b"\x80\x02(ccollections\nOrderedDict\no.", "OBJ"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"\x80\x04ccollections\nOrderedDict\n)}\x92.", "NEWOBJ_EX"),
        (b"\x80\x02\x82\x01.", "EXT"),
        (b"\x80\x02Pid\n.", "PERSID"),
    ];
    for (code, what) in rows {
        let error = pickle_error(code, &[what, "byte"]);
        assert!(matches!(error, PickleError::ForbiddenOpcode { .. }), "{error:?}");
    }
}

#[test]
fn p2_build_on_a_tensor() {
    let value = [plain(), b"}b".to_vec()].concat();
    let error = pickle_error(&state_dict(&[("w", value)]), &["BUILD"]);
    assert!(matches!(error, PickleError::ForbiddenCall { .. }));
}

// --- P3: programs that want to exhaust something ---

#[test]
fn p3_deep_nesting() {
    let marks = [b"\x80\x02".to_vec(), vec![b'('; 300], b".".to_vec()].concat();
    let lists = [b"\x80\x02".to_vec(), vec![b']'; 300], vec![b'a'; 299], b".".to_vec()].concat();
    let tuples = [b"\x80\x02)".to_vec(), vec![0x85; 300], b".".to_vec()].concat();
    for code in [marks, lists, tuples] {
        let error = pickle_error(&code, &["nesting", "256"]);
        assert!(matches!(error, PickleError::Limit { limit: 256, .. }));
    }
}

#[test]
fn p3_memo_out_of_range() {
    let error = pickle_error(b"\x80\x02h\x05.", &["memo 5"]);
    assert!(matches!(error, PickleError::UnknownMemo { index: 5, .. }));
    let error = pickle_error(b"\x80\x02j\xff\xff\xff\xff.", &["memo 4294967295"]);
    assert!(matches!(error, PickleError::UnknownMemo { .. }));
}

#[test]
fn p3_too_many_opcodes_or_objects() {
    let (_root, dir) = folder(&[(BIN, &checkpoint(&b"N0".repeat(600)))]);
    let limits = Limits { pickle_opcodes: 1000, ..Limits::default() };
    let error = Checkpoint::open(&dir, &limits).unwrap_err();
    assert_says(&error, &["number of instructions", "1000"]);
    let error = pickle_error(&[b'N'; 600_000], &["number of objects", "500000"]);
    assert!(matches!(error, PickleError::Limit { .. }));
    // Values that have moved into containers count on.
    let tuple = [vec![b'('], vec![b'N'; 1000], vec![b't']].concat();
    let error = pickle_error(&tuple.repeat(600), &["number of objects"]);
    assert!(matches!(error, PickleError::Limit { .. }));
}

#[test]
fn p3_broken_programs() {
    let rows: [(&[u8], &str); 9] = [
        (b"", "cut off"),
        (b"\x80\x02", "cut off"),
        (b"\x80\x02X\xff\xff\xff\xffabc", "cut off"),
        (b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "cut off"),
        (b"\x80\x02.", "not there"),
        (b"\x80\x02N(0.", "not there"),
        (b"\x80\x02t.", "not there"),
        (b"\x80\x02N.N", "goes on after its end"),
        (b"\x80\x02\xffN.", "0xff"),
    ];
    for (code, words) in rows {
        pickle_error(code, &[words]);
    }
}

// --- P4: the archive ---

#[test]
fn p4_compressed_or_encrypted() {
    let mut compressed = parts(&state_dict(&[]));
    compressed[0].method = 8;
    let error = zip_error(&zip(&compressed), &["archive/data.pkl", "compressed"]);
    assert!(matches!(error, ZipError::Compressed { method: 8, .. }));
    let mut encrypted = parts(&state_dict(&[]));
    encrypted[2].flags = 1;
    let error = zip_error(&zip(&encrypted), &["archive/data/0", "encrypted"]);
    assert!(matches!(error, ZipError::Encrypted { .. }));
}

#[test]
fn p4_bad_names() {
    for name in ["../data.pkl", "/data.pkl", "a/../b", "a\\b", "C:x", "a//b", "a\nb", ""] {
        let error = zip_error(&zip(&[part(name, b"")]), &["name"]);
        assert!(matches!(error, ZipError::BadName { .. }), "{name:?}");
    }
    let error = zip_error(&zip(&[part("a", b""), part("a", b"")]), &["duplicate entry 'a'"]);
    assert!(matches!(error, ZipError::Duplicate { .. }));
}

#[test]
fn p4_entry_counts() {
    let archive = checkpoint(&state_dict(&[("w", plain())]));
    let (_root, dir) = folder(&[(BIN, &archive)]);
    let limits = Limits { tensors: 3, ..Limits::default() };
    let error = Checkpoint::open(&dir, &limits).unwrap_err();
    assert_says(&error, &["number of zip entries is 4", "3"]);
    for claimed in [3, 5, 60_000] {
        zip_error(&zip_claiming(&parts(b"."), Some(claimed)), &["directory"]);
    }
}

#[test]
fn p4_lying_sizes() {
    for claimed in [0, 4, 17, 1 << 30, u32::MAX] {
        let mut lying = parts(&state_dict(&[("w", plain())]));
        lying[2].claimed = Some(claimed);
        let error = zip_error(&zip(&lying), &["archive/data/0"]);
        assert!(matches!(error, ZipError::BadEntry { .. }), "{claimed}: {error:?}");
    }
}

#[test]
fn p4_lying_zip64() {
    // "All ones" announces zip64 records, which are not there.
    let error = zip_error(&zip_claiming(&parts(b"."), Some(0xffff)), &["directory"]);
    assert!(matches!(error, ZipError::BadDirectory(_)));
    // A locator that points behind itself, and one that points to nonsense.
    for target in [u64::MAX, 1 << 20, 0] {
        let mut archive = zip_claiming(&parts(b"."), Some(0xffff));
        let mut locator = Vec::new();
        put(&mut locator, &[(0x0706_4b50, 4), (0, 4), (target, 8), (1, 4)]);
        let end = archive.len() - 22;
        archive.splice(end..end, locator);
        let error = zip_error(&archive, &["zip64"]);
        assert!(matches!(error, ZipError::BadDirectory(_)));
    }
}

#[test]
fn p4_truncated_or_extended() {
    let archive = checkpoint(&state_dict(&[("w", plain())]));
    for length in [30, archive.len() / 2, archive.len() - 1] {
        let error = zip_error(&archive[..length], &["truncated"]);
        assert!(matches!(error, ZipError::NoDirectory));
    }
    let error = zip_error(&[&archive[..], b"MZ"].concat(), &["appended"]);
    assert!(matches!(error, ZipError::NoDirectory));
}

#[test]
fn p4_overlapping_entries() {
    // Two entries of one local header would need one name; a local header inside another entry's
    // data needs none.
    let inner = zip(&[part("inner", b"12345678")]);
    let local = &inner[..30 + 5 + 8];
    let outer = [part("outer", local), part("inner", b"12345678")];
    let mut archive = zip(&outer);
    let central = archive.len() - 22 - (46 + 5);
    let inside = (30 + 5_u32).to_le_bytes();
    archive[central + 42..central + 46].copy_from_slice(&inside);
    let error = zip_error(&archive, &["'inner'", "overlaps"]);
    assert!(matches!(error, ZipError::BadEntry { .. }));
}

#[test]
fn p4_pickle_too_large() {
    let (_root, dir) = folder(&[(BIN, &checkpoint(&[b'N'; 5000]))]);
    let limits = Limits { pickle_bytes: 4096, ..Limits::default() };
    let error = Checkpoint::open(&dir, &limits).unwrap_err();
    assert_says(&error, &["data.pkl is 5000", "4096"]);
    assert!(matches!(error, CheckpointError::Limit { .. }));
}

#[test]
fn p4_pickle_missing_or_twice() {
    let error = archive_refused(&zip(&[part("archive/version", b"3")]), &["data.pkl", "found 0"]);
    assert!(matches!(error, PickleError::NoPickle { found: 0 }));
    let two = [part("a/data.pkl", b"."), part("b/data.pkl", b".")];
    let error = archive_refused(&zip(&two), &["found 2"]);
    assert!(matches!(error, PickleError::NoPickle { found: 2 }));
}

// --- P5: views ---

#[test]
fn p5_storage_too_small() {
    let rows: [(i64, View<'_>); 5] = [
        (4, (0, &[5], &[1])),
        (4, (1, &[2, 2], &[2, 1])),
        (4, (0, &[2, 2], &[3, 1])),
        (5, (0, &[1], &[1])), // the entry holds four
        (2, (0, &[4], &[1])), // the storage admits to two
    ];
    for (elements, view) in rows {
        let problem = view_error(tensor("FloatStorage", "0", elements, view), &["storage"]);
        assert!(matches!(problem, ViewProblem::StorageTooSmall { .. }), "{problem:?}");
    }
    let problem = view_error(tensor("FloatStorage", "9", 4, (0, &[4], &[1])), &["'9'"]);
    assert!(matches!(problem, ViewProblem::MissingStorage { .. }));
}

#[test]
fn p5_impossible_geometry() {
    let rows: [(i64, &[i64], &[i64], &str); 9] = [
        (0, &[1 << 40], &[0], "stride 0"),
        (0, &[3, 2], &[1, 1], "twice"),
        (-1, &[1], &[1], "negative"),
        (0, &[-1], &[1], "negative"),
        (1, &[2], &[-1], "negative"),
        (0, &[i64::MAX, i64::MAX], &[1, 1], "overflow"),
        (i64::MAX, &[2, 2], &[i64::MAX, i64::MAX], "overflow"),
        (0, &[2], &[1, 1], "rank"),
        (0, &[1; 9], &[1; 9], "rank"),
    ];
    for (offset, size, stride, words) in rows {
        let problem = view_error(tensor("FloatStorage", "0", 4, (offset, size, stride)), &[words]);
        assert!(matches!(problem, ViewProblem::BadGeometry(_)), "{problem:?}");
    }
}

/// No elements, but dimensions whose product overflows.
#[test]
fn p5_empty_view_of_huge_dimensions() {
    for stride in [[1 << 40, 1 << 40, 1], [1, 1, 1], [0, 0, 0]] {
        let view = tensor("FloatStorage", "0", 4, (0, &[0, 1 << 40, 1 << 40], &stride));
        let checkpoint = open_as(BIN, &checkpoint(&state_dict(&[("w", view)]))).unwrap();
        assert_eq!(checkpoint.raw()[0].shape.to_vec(), [0, 1 << 40, 1 << 40]);
        draw_all(&checkpoint);
    }
}

#[test]
fn p5_unsupported_dtype() {
    let view = tensor("DoubleStorage", "0", 2, (0, &[2], &[1]));
    let problem = view_error(view, &["DoubleStorage", "not supported"]);
    assert!(matches!(problem, ViewProblem::UnsupportedDtype { .. }));
}

// --- P6: more than a state dict ---

#[test]
fn p6_whole_module_sparse_quantized() {
    for global in [
        "ctorch.nn.modules.linear\nLinear\n",
        "ctorch._utils\n_rebuild_sparse_tensor\n",
        "ctorch._utils\n_rebuild_qtensor\n",
        "ctorch\nQInt8Storage\n",
    ] {
        let code = [b"\x80\x02", global.as_bytes(), b"."].concat();
        let error = open_as(BIN, &checkpoint(&code)).unwrap_err();
        let hint = error.hint().unwrap();
        assert!(hint.contains("unsupported") && hint.contains("re-save the state"), "{hint}");
    }
}

#[test]
fn p6_not_a_state_dict() {
    for code in [&b"\x80\x02N."[..], b"\x80\x02].", b"\x80\x02}K\x01Ns."] {
        let error = pickle_error(code, &["state dict"]);
        assert!(matches!(error, PickleError::NotStateDict));
    }
    let error = pickle_error(&state_dict(&[("epoch", int(3))]), &["'epoch'", "not a tensor"]);
    assert!(matches!(error, PickleError::NotATensor { .. }));
    let twice = state_dict(&[("w", plain()), ("w", plain())]);
    assert!(matches!(pickle_error(&twice, &["'w'"]), PickleError::DuplicateKey { .. }));
    let long = "n".repeat(1000);
    let error = pickle_error(&state_dict(&[(&long, plain())]), &["1000 bytes", "512"]);
    assert!(matches!(error, PickleError::NameTooLong { .. }));
}

#[test]
fn p6_big_endian() {
    let mut parts = parts(&state_dict(&[("w", plain())]));
    parts[1].data = b"big".to_vec();
    let error = archive_refused(&zip(&parts), &["byte order 'big'"]);
    assert!(matches!(error, PickleError::ByteOrder { .. }));
}

#[test]
fn p6_old_formats() {
    let legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    for bytes in [&legacy[..], &tar] {
        let error = open_as(BIN, bytes).unwrap_err();
        assert!(error.hint().unwrap().contains("unsupported: re-save"));
        let legacy = Impostor::LegacyTorch;
        assert!(matches!(error, CheckpointError::NotWeights { found, .. } if found == legacy));
    }
}

// --- P7: names that lie ---

#[test]
fn p7_extension_lies() {
    let archive = checkpoint(&state_dict(&[("w", plain())]));
    let rows = [
        ("model.safetensors", &archive, Format::Safetensors, Format::Pickle),
        (BIN, &valid(&["w"]), Format::Pickle, Format::Safetensors),
    ];
    for (name, bytes, promised, held) in rows {
        let error = open_as(name, bytes).unwrap_err();
        assert_says(&error, &[name, "safetensors", "PyTorch pickle"]);
        let as_promised = matches!(error, CheckpointError::WrongFormat { expected, found, .. }
            if (expected, found) == (promised, held));
        assert!(as_promised, "{error:?}");
    }
    // A bare pickle is never run, under whatever name.
    let bare = [b"\x80\x02", SYSTEM, b"."].concat();
    for name in ["model.safetensors", BIN] {
        assert!(open_as(name, &bare).is_err());
    }
}

/// safetensors wins where both exist, and a broken one does not fall back to the pickle.
#[test]
fn p7_no_fallback() {
    let archive = checkpoint(&state_dict(&[("pickled", plain())]));
    let (_root, dir) = folder(&[("model.safetensors", &valid(&["safe"])), (BIN, &archive)]);
    assert_eq!(open(&dir).unwrap().raw()[0].name, "safe");
    fs::write(dir.join("model.safetensors"), b"broken").unwrap();
    assert!(open(&dir).is_err());
    assert_eq!(open(&dir.join(BIN)).unwrap().raw()[0].name, "pickled");
}

/// Archives whose refusal must not cost memory; see `weights::refusing_costs_no_memory`.
pub(super) fn memory_cases() -> Vec<(&'static str, Vec<u8>)> {
    let stretched = tensor("FloatStorage", "0", 4, (0, &[1 << 40], &[0]));
    let many_tuples = [vec![b'('], vec![b'N'; 1000], vec![b't', b'0']].concat().repeat(9000);
    let lists = b"](e0".repeat(2_000_000);
    vec![
        ("p3-values.bin", checkpoint(&[b'N'; 10_000_000])),
        ("p3-tuples.bin", checkpoint(&many_tuples)),
        ("p3-lists.bin", checkpoint(&lists)),
        ("p3-endless.bin", checkpoint(&b"N0".repeat(6_000_000))),
        ("p5-stretched.bin", checkpoint(&state_dict(&[("w", stretched)]))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_pickles_never_panic(code in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(checkpoint) = open_as(BIN, &checkpoint(&code)) {
            draw_all(&checkpoint);
        }
    }

    #[test]
    fn mutations_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let transposed = tensor("HalfStorage", "0", 8, (1, &[2, 3], &[1, 2]));
        let mut archive = checkpoint(&state_dict(&[("a", plain()), ("b", transposed)]));
        let at = at.index(archive.len());
        archive[at] = byte;
        if let Ok(checkpoint) = open_as(BIN, &archive) {
            draw_all(&checkpoint);
        }
    }
}
