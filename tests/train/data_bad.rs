//! Rows D1 to D7 of the catalogue of bad inputs.

use std::path::Path;

use janus_train::data::formats::open;
use janus_train::data::{
    Cursor, DataError, Kind, Loader, Objective, OnBad, Options, Packing, Prepare, Shuffle, Source,
    Spec,
};

use crate::data_common::{Toy, png, save, tokens, write};
use crate::data_formats::{table, tar};

const OPTIONS: Options = Options {
    ratio: [0, 0, 1],
    batch: 2,
    rows: 2,
    packing: Packing::Off,
    on_bad: OnBad::Skip,
    workers: 0,
    ahead: 2,
};

fn loader(spec: &Spec, options: Options) -> Result<Loader, DataError> {
    let sources = Source::open(spec, (0, 1.0), Shuffle::Off)?;
    Loader::new(sources, Prepare::new(tokens(Objective::exact(400))), options)
}

/// What is left out in one epoch, without the folder's name.
fn left_out(spec: &Spec, ratio: [u32; 3]) -> Vec<String> {
    let options = Options { ratio, batch: 1, ..OPTIONS };
    let mut loader = loader(spec, options).unwrap();
    let mut all = Vec::new();
    while loader.cursor().sources[0].epoch == 0 {
        all.extend(loader.next(&mut Toy::default()).unwrap().left_out);
    }
    let folder = spec.path.parent().unwrap().to_string_lossy().into_owned();
    all.into_iter().map(|line| line.replace(&format!("{folder}/"), "")).collect()
}

fn drawing(path: &str) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":"a cat"}},{{"role":"assistant","content":"<image>"}}],"images":["{path}"]}}"#
    )
}

/// D1, D2, D5 and pictures: every one is named with its line, and the others are used.
#[test]
fn bad_lines_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = save(folder.path(), 1);
    let outside = folder.path().parent().unwrap().join("outside.png");
    write(folder.path(), "text.png", "hello");
    write(folder.path(), "cut.png", &png(1)[..60]);
    write(folder.path(), "empty.png", "");
    let turn = |user: &str, assistant: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"{user}"}},{{"role":"assistant","content":"{assistant}"}}],"images":["{good}"]}}"#
        )
    };
    let lines = [
        drawing(&good),
        "{\"messages\": [".to_owned(),
        r#"{"images":[]}"#.to_owned(),
        r#"{"messages":null}"#.to_owned(),
        r#"{"messages":[{"role":"user"}]}"#.to_owned(),
        r#"{"messages":[{"role":"pilot","content":"x"}]}"#.to_owned(),
        r#"{"messages":[{"role":"user","content":null}]}"#.to_owned(),
        drawing("../outside.png"),
        drawing(outside.to_str().unwrap()),
        drawing("http://example.org/a.png"),
        drawing("absent.png"),
        drawing("text.png"),
        drawing("cut.png"),
        drawing("empty.png"),
        turn("  ", "<image>"),
        turn("a cat", "<image><image>"),
        turn(&"word ".repeat(500), "<image>"),
        turn("<image>what?", "A cat."),
        drawing(&good).replace("\"assistant\"", "\"assistant\",\"loss\":false"),
        "\u{fffd}".to_owned(),
        drawing(&good),
    ];
    let mut bytes = lines.join("\n").into_bytes();
    // Not UTF-8, in the last line but one.
    let at = bytes.windows(3).rposition(|w| w == "\u{fffd}".as_bytes()).unwrap();
    bytes[at] = 0xff;
    let path = write(folder.path(), "d.jsonl", bytes);
    let found = left_out(&Spec { kind: Some(Kind::Draw), ..Spec::of(path) }, OPTIONS.ratio);
    let outside = outside.display();
    let expected = [
        "d.jsonl:2: not JSON: EOF while parsing a list at line 1 column 14".to_owned(),
        "d.jsonl:3: no list \"messages\"".to_owned(),
        "d.jsonl:4: no list \"messages\"".to_owned(),
        "d.jsonl:5: message 1: no field \"content\"".to_owned(),
        "d.jsonl:6: message 1: unknown role \"pilot\"".to_owned(),
        "d.jsonl:7: message 1: no field \"content\"".to_owned(),
        "d.jsonl:8: the path \"../outside.png\" leads out of the data's folder: allowed only below a stated data root".to_owned(),
        format!("d.jsonl:9: the path \"{outside}\" leads out of the data's folder: allowed only below a stated data root"),
        "d.jsonl:10: the path \"http://example.org/a.png\" is no file: save the picture beside the data".to_owned(),
        "d.jsonl:11: absent.png does not exist".to_owned(),
        "d.jsonl:12: text.png: not an image (found text)".to_owned(),
        "d.jsonl:13: cut.png: the PNG file is truncated".to_owned(),
        "d.jsonl:14: empty.png: not an image: the file is empty".to_owned(),
        "d.jsonl:15: the caption is empty".to_owned(),
        "d.jsonl:16: places for pictures (<image>): 2, pictures: 1".to_owned(),
    ];
    assert_eq!(found[..expected.len()], expected);
    let rest = &found[expected.len()..];
    assert!(
        rest[0].starts_with("d.jsonl:17: ") && rest[0].contains("a row holds 400"),
        "{}",
        rest[0]
    );
    assert_eq!(
        rest[1..],
        [
            "d.jsonl:18: a sample for understanding in a source for drawing",
            "d.jsonl:19: nothing is supervised",
            "d.jsonl:20: not UTF-8 (byte 0 of the record)",
        ]
    );
}

#[test]
fn the_budget_ends_the_run_with_names() {
    let folder = tempfile::tempdir().unwrap();
    let good = drawing(&save(folder.path(), 1));
    let lines = [&good, "{", &good, &good, "[]", &good].join("\n");
    let path = write(folder.path(), "d.jsonl", lines);
    let spec = Spec { kind: Some(Kind::Draw), ..Spec::of(path) };
    let run = |on_bad, workers| {
        let mut loader = loader(&spec, Options { on_bad, workers, ..OPTIONS }).unwrap();
        (0..6).map(|_| loader.next(&mut Toy::default())).find_map(Result::err)
    };
    for workers in [0, 2] {
        assert!(run(OnBad::Skip, workers).is_none());
        assert!(run(OnBad::Stop { share: 0.0, count: 2 }, workers).is_none());
        assert!(run(OnBad::Stop { share: 0.34, count: 0 }, workers).is_none());
        let error = run(OnBad::Stop { share: 0.0, count: 1 }, workers).unwrap().to_string();
        assert!(error.contains("2 of 6 samples of") && error.contains("d.jsonl:5:"), "{error}");
        let error = run(OnBad::default(), workers).unwrap();
        assert!(error.to_string().contains("1 of 6"), "{error}");
        assert!(error.hint().unwrap().contains("skip"));
    }
}

#[test]
fn nothing_but_bad_samples_ends_even_a_patient_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "d.jsonl", "{\"messages\":[]}\n{}\n{}\n");
    let spec = Spec { kind: Some(Kind::Draw), ..Spec::of(path) };
    let mut loader = loader(&spec, OPTIONS).unwrap();
    let error = loader.next(&mut Toy::default()).unwrap_err();
    assert!(matches!(error, DataError::AllBad { samples: 3, .. }), "{error}");
}

/// D3.
#[test]
fn tar_members_that_nobody_should_trust() {
    let folder = tempfile::tempdir().unwrap();
    let picture = png(1);
    let path = folder.path().join("d.tar");
    let spec = Spec::of(&path);
    let with = |change: &dyn Fn(&mut tar::Builder<Vec<u8>>)| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, contents: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            builder.append_data(&mut header, name, contents).unwrap();
        };
        add("good.png", &picture);
        add("good.txt", b"a cat");
        change(&mut builder);
        std::fs::write(&path, builder.into_inner().unwrap()).unwrap();
        left_out(&spec, OPTIONS.ratio)
    };
    let member = |name: &str, kind: tar::EntryType, size: u64, contents: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        let (header, contents) = (header, contents.to_vec());
        with(&move |builder| builder.append(&header, &contents[..]).unwrap())
    };
    use tar::EntryType;
    assert!(member("folder/", EntryType::Directory, 0, b"").is_empty());
    let leads = "a member .png has a name that leads out of the archive";
    for name in ["../x.png", "/etc/x.png", "a/../../x.png"] {
        let key = name.strip_suffix(".png").unwrap();
        assert_eq!(member(name, EntryType::Regular, 1, b"x"), [format!("d.tar: {key}: {leads}")]);
    }
    for (kind, problem) in [
        (EntryType::Symlink, "is a link"),
        (EntryType::Link, "is a link"),
        (EntryType::Char, "is a device, pipe or something unknown, not a file"),
        (EntryType::Block, "is a device, pipe or something unknown, not a file"),
        (EntryType::Fifo, "is a device, pipe or something unknown, not a file"),
        (EntryType::GNUSparse, "is a sparse file"),
    ] {
        assert_eq!(member("x.png", kind, 0, b""), [format!("d.tar: x: a member .png {problem}")]);
    }
    assert_eq!(member("x.png", EntryType::Regular, 1, b"x"), ["d.tar: x: no member with the text"]);
    assert_eq!(
        member("x.txt", EntryType::Regular, 1, b"x"),
        ["d.tar: x: no member with the picture"]
    );
    let huge = member("x.png", EntryType::Regular, 9 << 30, b"x");
    let damaged = "d.tar: (end): the shard is damaged and read up to here only";
    assert_eq!(huge, [format!("{damaged}: cut off inside x.png")]);
    let long = member("x", EntryType::GNULongName, 100_000, &[b'x'; 100_000]);
    assert_eq!(long, [format!("{damaged}: a header of 100000 bytes, the limit is 65536")]);
    let sizes = member("x", EntryType::XHeader, 15, b"15 size=999999\n");
    assert!(sizes.is_empty(), "an extended header without a member: {sizes:?}");
    let broken = member("x", EntryType::XHeader, 5, b"99 x\n");
    assert_eq!(broken, [format!("{damaged}: a broken extended header")]);
}

/// D3, where whole shards are wrong.
#[test]
fn tar_shards_that_are_damaged_or_repeat_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let picture = png(1);
    let path = folder.path().join("d.tar");
    let of = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        left_out(&Spec::of(&path), OPTIONS.ratio)
    };
    let (a, b) = (("a.png", &picture[..]), ("b.png", &picture[..]));
    let (a_text, b_text) = (("a.txt", &b"a cat"[..]), ("b.txt", &b"a dog"[..]));
    let twice = of(&tar(&[a, a_text, b, b_text, b]));
    assert_eq!(twice, ["d.tar: b: two members of the same kind under one key"]);
    let again = of(&tar(&[a, a_text, b, b_text, ("a.webp", &picture), a_text]));
    assert_eq!(again, ["d.tar: a: the key appears twice in the shard"]);
    let long = vec![b'x'; (1 << 20) + 1];
    let long = of(&tar(&[a, a_text, b, ("b.txt", &long)]));
    assert_eq!(long, ["d.tar: b: the text has 1048577 bytes, the limit is 1048576"]);
    let blind = of(&tar(&[a, a_text, b, ("b.json", b"{\"x\":1}")]));
    assert_eq!(blind, ["d.tar: b: the .json member has no caption, text or prompt"]);
    let whole = tar(&[a, a_text, b, b_text]);
    assert!(of(&whole).is_empty());
    // Each header and each member takes whole blocks of 512 bytes.
    let member = 512 + picture.len().next_multiple_of(512);
    let second = member + 1024;
    let damaged = "d.tar: (end): the shard is damaged and read up to here only";
    assert_eq!(of(&whole[..second + 600]), [format!("{damaged}: cut off inside b.png")]);
    assert!(of(&whole[..second + 100])[0].starts_with(damaged));
    let mut flipped = whole.clone();
    flipped[second + 3] ^= 1;
    assert_eq!(of(&flipped), [format!("{damaged}: archive header checksum mismatch")]);
    // No end marker, as some writers leave it.
    assert!(of(&whole[..second + member + 1024]).is_empty());
}

/// D4.
#[test]
fn parquet_tables_that_are_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.parquet");
    table(
        &path,
        &[
            (Some(png(1)), Some("a cat")),
            (Some(png(2)), Some("a dog")),
            (Some(png(3)), Some("a fish")),
        ],
    );
    let whole = std::fs::read(&path).unwrap();
    let spec = Spec { kind: Some(Kind::Draw), ..Spec::of(&path) };
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error =
            open(&Spec { format: Some(janus_train::data::Format::Parquet), ..spec.clone() })
                .unwrap_err();
        assert!(matches!(error, DataError::File { .. }), "{error}");
        error.to_string()
    };
    assert!(refused(b"").contains("no parquet table"));
    assert!(refused(b"PAR1").contains("no parquet table"));
    assert!(refused(&whole[..whole.len() - 1]).contains("no parquet table"));
    let mut footer = whole.clone();
    let length = footer.len() - 8;
    footer[length..length + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
    assert!(refused(&footer).contains("no parquet table"));
    // A page of the first group: its rows are bad, those of the second are used.
    let mut page = whole.clone();
    page[4..40].fill(0xff);
    std::fs::write(&path, page).unwrap();
    let found = left_out(&spec, OPTIONS.ratio);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("d.parquet: row 1: row group 1: "), "{}", found[0]);
}

/// No byte of a tar shard or a parquet table, flipped, makes the readers panic.
#[test]
fn flipped_bytes_end_in_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (shard, rows) = (folder.path().join("d.tar"), folder.path().join("d.parquet"));
    std::fs::write(&shard, tar(&[("a.png", b"x"), ("a.txt", b"a cat")])).unwrap();
    table(&rows, &[(Some(b"x".to_vec()), Some("a cat"))]);
    for path in [shard, rows] {
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for flip in [1, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                std::fs::write(&path, bytes).unwrap();
                let format = Some(if path.extension().unwrap() == "tar" {
                    janus_train::data::Format::WebDataset
                } else {
                    janus_train::data::Format::Parquet
                });
                let Ok(reader) = open(&Spec { format, ..Spec::of(&path) }) else { continue };
                let count: u64 = reader.chunks().iter().sum();
                for index in 0..count.min(4) {
                    let _ = reader.sample(index);
                    let _ = reader.place(index).to_string();
                }
            }
        }
    }
}

fn sources(folder: &Path, lines: usize) -> Vec<Source> {
    let good = drawing(&save(folder, 1));
    let path = write(folder, "d.jsonl", vec![good; lines].join("\n"));
    Source::open(&Spec::of(path), (0, 1.0), Shuffle::Seed(1)).unwrap()
}

/// D6.
#[test]
fn changed_data_are_refused_unless_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let open = |lines| {
        let prepare = Prepare::new(tokens(Objective::exact(400)));
        Loader::new(sources(folder.path(), lines), prepare, OPTIONS).unwrap()
    };
    let mut first = open(9);
    for _ in 0..4 {
        first.next(&mut Toy::default()).unwrap();
    }
    let cursor = first.cursor().clone();
    open(9).seek(&cursor, false).unwrap();
    let mut other = open(7);
    let error = other.seek(&cursor, false).unwrap_err();
    assert!(error.to_string().contains(" then, "), "{error}");
    assert!(error.hint().unwrap().contains("--allow-data-change"));
    // The position lies behind the end of the shorter file: its next epoch begins.
    other.seek(&cursor, true).unwrap();
    assert_eq!((other.cursor().sources[0].epoch, other.cursor().sources[0].position), (1, 0));
    other.next(&mut Toy::default()).unwrap();
    let seed = Cursor { sources: vec![], ..cursor };
    assert!(other.seek(&seed, true).is_err(), "another number of sources is another mix");
}

/// D7.
#[test]
fn mixes_that_cannot_be_are_refused_before_anything_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let error = |options: Options| {
        let prepare = Prepare::new(tokens(Objective::exact(400)));
        Loader::new(sources(folder.path(), 3), prepare, options).unwrap_err().to_string()
    };
    assert_eq!(
        error(Options { batch: 4, ..OPTIONS }),
        "a step takes 4 samples for drawing, the data have 3: make the batch smaller"
    );
    assert_eq!(
        error(Options { ratio: [1, 0, 1], ..OPTIONS }),
        "no source for understanding, whose part of the ratio is 1"
    );
    let text = write(folder.path(), "t.txt", "one\ntwo\n");
    let mut both = sources(folder.path(), 3);
    both.extend(Source::open(&Spec::of(text), (1, 1.0), Shuffle::Off).unwrap());
    let prepare = Prepare::new(tokens(Objective::exact(400)));
    let unused = Loader::new(both, prepare, Options { ratio: [0, 1, 0], ..OPTIONS });
    let unused = unused.unwrap_err().to_string();
    assert!(unused.ends_with("d.jsonl: samples for drawing, whose part of the ratio is 0"));
    assert_eq!(
        error(Options { ratio: [0; 3], ..OPTIONS }),
        "the ratio is 0:0:0: nothing would be taken"
    );
    let path = folder.path().join("d.jsonl");
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Source::open(&Spec::of(&path), (0, weight), Shuffle::Off).is_err(), "{weight}");
    }
    let empty = write(folder.path(), "e.jsonl", "\n\n");
    let spec = Spec { format: Some(janus_train::data::Format::Messages), ..Spec::of(empty) };
    let error = Source::open(&spec, (0, 1.0), Shuffle::Off).unwrap_err();
    assert!(matches!(error, DataError::Empty { .. }), "{error}");
}
